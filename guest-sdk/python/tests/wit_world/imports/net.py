from dataclasses import dataclass
from typing import List, Optional, Tuple

from .. import host
from .calls import PendingCall, taken


@dataclass
class Request:
    method: str
    url: str
    headers: List[Tuple[str, bytes]]
    body: bytes
    redirects: int
    timeout_ms: Optional[int]


@dataclass
class Response:
    status: int
    url: str
    headers: List[Tuple[str, bytes]]
    body: bytes


def fetch(request: Request) -> Response:
    return host.answer(request.url, request)


def start(request: Request) -> PendingCall:
    host.check("start")
    return PendingCall(request.url, lambda: fetch(request))


def finish(call: PendingCall) -> Response:
    return taken(call)


def start_stream(request: Request) -> PendingCall:
    answer = fetch(request)
    half = len(answer.body) // 2
    return PendingCall(request.url, lambda: answer, [answer.body[:half], answer.body[half:]])


def head(call: PendingCall) -> Response:
    return Response(call.take().status, call.take().url, call.take().headers, b"")


def next(call: PendingCall) -> Optional[bytes]:
    for part in call.parts:
        return part
    return None
