import json
from typing import List, Optional

from .. import host
from .calls import PendingCall, taken


def list() -> List[str]:
    return ["tier-fast/small"]


def complete(model: str, request: str) -> str:
    return host.answer_json(model, request)


def start(model: str, request: str) -> PendingCall:
    return PendingCall(model, lambda: complete(model, request))


def finish(call: PendingCall) -> str:
    return taken(call)


def start_stream(model: str, request: str) -> PendingCall:
    words = json.loads(complete(model, request))["choices"][0]["message"]["content"].split()
    chunks = [{"choices": [{"delta": {"content": f"{word} "}}]} for word in words]
    chunks += [{"choices": [{"delta": {}}]}, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}]
    return PendingCall(model, lambda: complete(model, request), map(json.dumps, chunks))


def next(call: PendingCall) -> Optional[str]:
    for chunk in call.parts:
        return chunk
    return None
