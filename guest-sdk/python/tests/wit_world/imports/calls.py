from typing import Any, List

from .. import host


class PendingCall:
    def __init__(self, target: str, take: Any, parts: Any = ()) -> None:
        self.target, self.take, self.parts = target, take, iter(parts)
        self.there = True

    def call_id(self) -> str:
        return f"call_{self.target}"

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.there:
            host.dropped.append(self.target)
        self.there = False


def taken(call: PendingCall) -> Any:
    assert call.there, "a call is finished once"
    call.there = False
    return call.take()


def wait_any(calls: List[PendingCall], timeout_ms: int | None) -> int | None:
    if not calls:
        host.refuse("INVALID_REQUEST", "nothing to wait for")
    host.told.append(("wait", timeout_ms))
    for target in host.order:
        for index, call in enumerate(calls):
            if call.target == target:
                return index
    return None
