"""Calls that are under way while the agent goes on.

What takes its time can be started instead of done: `net.start`, `tool.start`, `model.start` and `delegate.Task.start`
give a `Pending` at once, or raise if the host refuses.

    pages = [net.start("GET", url) for url in urls]
    for page in calls.as_completed(pages):
        events.info(page.finish().status)

A call that nobody wants any more is given up with `drop`, at the end of a `with`, or when nothing refers to it. An
agent has at most the host's number of calls under way (default 128); one more is refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from . import _host
from ._error import Error, Timeout
from ._time import millis

__all__ = ["Pending", "UnderWay", "wait_any", "finish_all", "as_completed"]

T = TypeVar("T")


class UnderWay:
    """Something under way that can be waited for: a `Pending` or a stream."""

    def __init__(self, call: Any) -> None:
        self._call = call

    @property
    def id(self) -> str:
        """The `call_id` of its `tool_call` and `tool_result` events (ARCP §8.2)."""
        found: str = self._under_way().call_id()
        return found

    def drop(self) -> None:
        """Gives the call up: what can be stopped of it is stopped. Does nothing once it is finished or dropped."""
        call, self._call = self._call, None
        if call is not None:
            call.__exit__(None, None, None)

    def _under_way(self) -> Any:
        if self._call is None:
            raise ValueError("the call was finished or dropped already")
        return self._call

    def _taken(self) -> Any:
        call, self._call = self._under_way(), None
        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


class Pending(UnderWay, Generic[T]):
    """A call under way, and what it will give."""

    def __init__(self, call: Any, finish: Callable[[Any], T]) -> None:
        super().__init__(call)
        self._finish = finish

    def finish(self) -> T:
        """Waits for the call's end and gives its outcome, once. Raises what the call itself raises."""
        return self._finish(self._taken())


def wait_any(calls: Iterable[UnderWay], timeout: float | datetime.timedelta | None = None) -> int | None:
    """Waits until one of some calls has something to take, and gives its index: the one that had it first.

    That is its end, or the next part of a stream. None once `timeout` (in seconds) is over without. Raises
    `InvalidRequest` for no calls at all.
    """
    under_way = [call._under_way() for call in calls]
    first: int | None = _host.call(_host.calls.wait_any, under_way, millis(timeout))
    return first


@overload
def finish_all(calls: Iterable[Pending[T]]) -> list[T]: ...
@overload
def finish_all(calls: Iterable[Pending[T]], *, return_errors: Literal[True]) -> list[T | Error]: ...


def finish_all(calls: Iterable[Pending[T]], *, return_errors: bool = False) -> Sequence[T | Error]:
    """Waits for all of some calls and gives their outcomes, in the order of the calls.

    The first error is raised and the other calls are given up; with `return_errors` an error stands in its place
    instead.
    """
    waiting = list(calls)
    outcomes: list[T | Error] = []
    try:
        for call in waiting:
            try:
                outcomes.append(call.finish())
            except Error as error:
                if not return_errors:
                    raise
                outcomes.append(error)
    finally:
        for call in waiting:
            call.drop()
    return outcomes


def as_completed(
    calls: Iterable[Pending[T]], timeout: float | datetime.timedelta | None = None
) -> Iterator[Pending[T]]:
    """Gives some calls in the order in which they end; each is then finished by the caller.

    Raises `Timeout` if none ends for `timeout` seconds. Calls that are still under way then are not given up.
    """
    waiting = list(calls)
    while waiting:
        first = wait_any(waiting, timeout)
        if first is None:
            raise Timeout(f"none of {len(waiting)} calls has ended in time")
        yield waiting.pop(first)
