"""Language models the operator offers: `model.use` (ARCP §9.7).

A request is the body of an OpenAI chat completion, a dict with its `messages` and, if wanted, `tools`, `temperature`,
`max_tokens` and the like; `model` and `stream` are the host's. A str is short for one message of the user.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import _host, _json
from ._error import InternalError
from .calls import Pending, UnderWay

__all__ = ["list", "ask", "complete", "start", "stream", "Completion", "Stream"]


@dataclass(frozen=True)
class Completion:
    """A chat completion, as the API gives it.

    Attributes:
        raw: all of it.
    """

    raw: dict[str, Any]

    @property
    def message(self) -> dict[str, Any]:
        """The message of the answer, with its `tool_calls` if there are some; empty if there is none."""
        choices = self.raw.get("choices") or [{}]
        return choices[0].get("message") or {}

    @property
    def text(self) -> str | None:
        """The text of the answer, if it has one."""
        return self.message.get("content")

    @property
    def tokens(self) -> tuple[int, int] | None:
        """The tokens of the request and of the answer, if they were told."""
        usage = self.raw.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return None if None in counts else counts  # type: ignore[return-value]


class Stream(UnderWay):
    """An answer that comes in parts: an iterator over `chat.completion.chunk`s, which are dicts.

    It is given up with `drop`, at the end of a `with`, or when nothing refers to it.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        """Waits for the next chunk. Raises what `complete` raises."""
        chunk = _host.call(_host.model.next, self._under_way())
        if chunk is None:
            raise StopIteration
        parsed: dict[str, Any] = _json.loads(chunk)
        return parsed

    def texts(self) -> Iterator[str]:
        """Gives the words of the answer as they come."""
        for chunk in self:
            choices = chunk.get("choices") or [{}]
            words = (choices[0].get("delta") or {}).get("content")
            if words:
                yield words

    def finish(self) -> Completion:
        """Waits for the whole answer, put together from its parts."""
        return _finish(self._taken())


def list() -> builtins.list[str]:
    """Gives the models that this lease covers, by name. Needs no grant."""
    return builtins.list(_host.call(_host.model.list))


def ask(model: str, question: str, **options: Any) -> str:
    """Asks a model one question and gives its answer's text. Needs `model.use` on `model`.

    `ask("tier-fast/small", "What is a lease?", max_tokens=100)`. Raises what `complete` raises, and `InternalError` if
    the answer has no text.
    """
    text = complete(model, {**options, "messages": [_user(question)]}).text
    if text is None:
        raise InternalError("the model's answer has no text")
    return text


def complete(model: str, request: dict[str, Any] | str) -> Completion:
    """Asks a model. Needs `model.use` on `model`.

    Raises `PermissionDenied`, `NotFound`; `InvalidRequest` naming the field; `BudgetExhausted` if it might cost more
    than is left; `InternalError` if the model's provider fails; `Timeout`.
    """
    return Completion(_json.loads(_host.call(_host.model.complete, model, _request(request))))


def start(model: str, request: dict[str, Any] | str) -> Pending[Completion]:
    """Starts what `complete` does, and goes on meanwhile. Raises what `complete` raises, if it is known at once."""
    return Pending(_host.call(_host.model.start, model, _request(request)), _finish)


def stream(model: str, request: dict[str, Any] | str) -> Stream:
    """Asks a model and takes the answer as it comes. Raises what `complete` raises, if it is known at once.

        for words in model.stream("tier-fast/small", "Tell me a story.").texts():
            output.write_text(words)
    """
    return Stream(_host.call(_host.model.start_stream, model, _request(request)))


def _finish(under_way: Any) -> Completion:
    return Completion(_json.loads(_host.call(_host.model.finish, under_way)))


def _request(request: dict[str, Any] | str) -> str:
    return _json.dumps({"messages": [_user(request)]} if isinstance(request, str) else request)


def _user(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}
