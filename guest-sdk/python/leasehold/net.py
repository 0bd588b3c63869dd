"""HTTP requests the lease grants: `net.fetch` (ARCP §9.2).

A status such as 404 is a `Response` and no error. Every function can raise `PermissionDenied`, `LeaseExpired`,
`BudgetExhausted` and `Cancelled`, in addition to what it says itself.

All of them take the same options:

    headers      a dict or a list of pairs; the host sets `host`, `content-length` and what belongs to the connection
    body         bytes, or a str that is sent as UTF-8
    json         anything that has a JSON, sent instead of a body with `content-type: application/json`
    redirects    how many are followed at most (default 10), each of which needs a grant of its own; 0 gives the
    redirect timeout      in seconds, within the host's own limit (default 60)
"""

from __future__ import annotations

import codecs
import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from . import _host, _json
from ._error import InternalError, InvalidRequest
from ._time import millis
from .calls import Pending, UnderWay

__all__ = ["get", "post", "request", "start", "stream", "Response", "Stream", "Headers"]

HeadersLike = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]
Seconds = float | datetime.timedelta

# How many redirects a request follows that does not say.
_REDIRECTS = 10


class Headers(Mapping[str, str]):
    """Headers of a response, by names in any case; of a name that stands there twice, the first.

    Attributes:
        pairs: the names and values as the server sent them.
    """

    def __init__(self, pairs: list[tuple[str, bytes]]) -> None:
        self.pairs = pairs

    def __getitem__(self, name: str) -> str:
        for value in self.get_all(name):
            return value
        raise KeyError(name)

    def get_all(self, name: str) -> list[str]:
        """Gives every value of a name, such as `set-cookie`."""
        return [_value(value) for known, value in self.pairs if known.lower() == name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self.pairs))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self.pairs})

    def __repr__(self) -> str:
        return f"Headers({dict(self)})"


@dataclass(frozen=True)
class Response:
    """What came back.

    Attributes:
        status: such as 200.
        url: where it came from, after redirects.
        body: all of it, as bytes.
    """

    status: int
    url: str
    headers: Headers
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 200 to 299."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body in the encoding that `content-type` names, or UTF-8; what does not fit it becomes U+FFFD."""
        return self.body.decode(_charset(self.headers), "replace")

    def json(self) -> Any:
        """Reads the body as JSON. Raises `InvalidRequest` if it is something else."""
        try:
            return _json.loads(self.body)
        except InternalError as error:
            raise InvalidRequest(f"{self.url}: {error.message}") from None

    def successful(self) -> Self:
        """Gives the response itself; raises `InternalError` for a status that is not one of success."""
        if not self.ok:
            raise InternalError(f"{self.url} answered {self.status}")
        return self


class Stream(UnderWay):
    """A response that is read as it comes: an iterator over the parts of its body, as bytes.

    The connection is closed with `drop`, at the end of a `with`, or when nothing refers to the stream.

    Attributes:
        status: such as 200.
        url: where it came from, after redirects.
        headers: as in a `Response`.
    """

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        head = _response(_host.call(_host.net.head, call))
        self.status: int = head.status
        self.url: str = head.url
        self.headers: Headers = head.headers

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Waits for the next part. Raises `InternalError` if the connection broke, `Timeout`."""
        part: bytes | None = _host.call(_host.net.next, self._under_way())
        if part is None:
            raise StopIteration
        return part

    def read(self) -> bytes:
        """Reads what is left of the body."""
        return b"".join(self)

    def lines(self) -> Iterator[str]:
        """Gives the body line by line, without line ends, in the encoding that `content-type` names, or UTF-8."""
        decoder = codecs.getincrementaldecoder(_charset(self.headers))("replace")
        rest = ""
        for part in self:
            *whole, rest = (rest + decoder.decode(part)).split("\n")
            for line in whole:
                yield line.removesuffix("\r")
        rest += decoder.decode(b"", True)
        if rest:
            yield rest


def get(
    url: str, *, headers: HeadersLike = (), redirects: int = _REDIRECTS, timeout: Seconds | None = None
) -> Response:
    """Gets what is at a URL. Needs `net.fetch` on it.

    Raises `Timeout`, `TooLarge` over the host's limit (default 16 MiB), and `InternalError` if nobody answers.
    """
    return request("GET", url, headers=headers, redirects=redirects, timeout=timeout)


def post(
    url: str,
    *,
    headers: HeadersLike = (),
    body: bytes | str | None = None,
    json: Any = None,
    redirects: int = _REDIRECTS,
    timeout: Seconds | None = None,
) -> Response:
    """Posts to a URL: `net.post(url, json={"text": "kept"})`. Needs `net.fetch` on it. Raises what `get` raises."""
    return request("POST", url, headers=headers, body=body, json=json, redirects=redirects, timeout=timeout)


def request(
    method: str,
    url: str,
    *,
    headers: HeadersLike = (),
    body: bytes | str | None = None,
    json: Any = None,
    redirects: int = _REDIRECTS,
    timeout: Seconds | None = None,
) -> Response:
    """Makes a request and waits for the whole response. Needs `net.fetch` on the URL. Raises what `get` raises."""
    made = _request(method, url, headers, body, json, redirects, timeout)
    return _response(_host.call(_host.net.fetch, made))


def start(
    method: str,
    url: str,
    *,
    headers: HeadersLike = (),
    body: bytes | str | None = None,
    json: Any = None,
    redirects: int = _REDIRECTS,
    timeout: Seconds | None = None,
) -> Pending[Response]:
    """Makes a request, and goes on meanwhile. Raises what `get` raises, if it is known at once."""
    made = _request(method, url, headers, body, json, redirects, timeout)
    return Pending(_host.call(_host.net.start, made), _finish)


def stream(
    method: str,
    url: str,
    *,
    headers: HeadersLike = (),
    body: bytes | str | None = None,
    json: Any = None,
    redirects: int = _REDIRECTS,
    timeout: Seconds | None = None,
) -> Stream:
    """Makes a request, waits for the beginning of the response and reads its body as it comes.

        with net.stream("GET", "https://example.com/large") as large:
            size = sum(len(part) for part in large)

    Raises what `get` raises, but for `TooLarge`.
    """
    made = _request(method, url, headers, body, json, redirects, timeout)
    return Stream(_host.call(_host.net.start_stream, made))


def _finish(under_way: Any) -> Response:
    return _response(_host.call(_host.net.finish, under_way))


def _request(
    method: str,
    url: str,
    headers: HeadersLike,
    body: bytes | str | None,
    json: Any,
    redirects: int,
    timeout: Seconds | None,
) -> Any:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    sent = [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]
    if json is not None:
        if body is not None:
            raise TypeError("a request has a body or a json, not both")
        body = _json.dumps(json)
        if not any(name.lower() == "content-type" for name, _ in sent):
            sent.append(("content-type", b"application/json"))
    data = body.encode() if isinstance(body, str) else body or b""
    return _host.net.Request(method, url, sent, data, min(redirects, 2**32 - 1), millis(timeout))


def _response(response: Any) -> Response:
    return Response(response.status, response.url, Headers(list(response.headers)), response.body)


def _value(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _charset(headers: Headers) -> str:
    for part in headers.get("content-type", "").split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name.lower() == "charset":
            try:
                return codecs.lookup(value.strip('"')).name
            except LookupError:
                break
    return "utf-8"
