"""Handing part of the job to another agent: `agent.delegate` (ARCP §9.4, §10).

The other agent runs as a job of its own, with a lease that is a part of this one's.

    report = delegate.run("summarize-files", {"path": "/workspace/letters"},
                          lease={"fs.read": ["/workspace/letters/**"]}, budget="USD:0.50")
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _host, _json
from ._time import format_timestamp, parse_timestamp, seconds
from .calls import Pending, UnderWay

__all__ = ["task", "run", "start", "watch", "Task", "Watched", "ChildEvent"]


@dataclass(frozen=True)
class Task:
    """A task for another agent, which `run`, `start` or `watch` begins, also more than once.

    Attributes:
        agent: `name` or `name@version` (ARCP §7.5).
        input: what the other agent gets: anything that has a JSON.
        lease: the patterns of each namespace, such as `{"fs.read": ["/workspace/**"]}`. What is not named is not
            granted.
        budget: how much of this job's budget it gets, such as `USD:0.50`; without it, all that is left.
        expires_at: ends its lease earlier than this job's own (ARCP §9.5).
        max_runtime: ends it if it runs for longer, in seconds: whole ones, and at least one.
    """

    agent: str
    input: Any = None
    lease: Mapping[str, Sequence[str]] = field(default_factory=dict)
    budget: str | None = None
    expires_at: datetime.datetime | None = None
    max_runtime: float | datetime.timedelta | None = None

    def run(self) -> Any:
        """Has the task done and waits for its result. Needs `agent.delegate` on the agent.

        Raises `LeaseSubsetViolation` if the task asks for more than this job may, `PermissionDenied`,
        `AgentNotAvailable`, `BudgetExhausted`; or the error with which the other job ended.
        """
        return _json.loads(_host.call(_host.delegate.run, self._for_host()))

    def start(self) -> Pending[Any]:
        """Starts the task. Raises what `run` raises, if it is known at once."""
        return Pending(_host.call(_host.delegate.start, self._for_host()), _finish)

    def watch(self) -> Watched:
        """Starts the task and watches it: an iterator over its events. Raises what `run` raises, if known at once.

            with delegate.task("chatty").watch() as child:
                for event in child:
                    events.info(f"{child.job_id} says {event.kind}")
                result = child.finish()
        """
        return Watched(_host.call(_host.delegate.start_stream, self._for_host()))

    def _for_host(self) -> Any:
        lease = {namespace: [patterns] if isinstance(patterns, str) else [*patterns]
                 for namespace, patterns in self.lease.items()}  # fmt: skip
        if self.budget is not None:
            lease.setdefault("cost.budget", []).append(self.budget)
        return _host.delegate.Task(
            self.agent,
            _json.dumps(self.input),
            list(lease.items()),
            None if self.expires_at is None else format_timestamp(self.expires_at),
            None if self.max_runtime is None else min(max(int(seconds(self.max_runtime)), 1), 2**32 - 1),
        )


@dataclass(frozen=True)
class ChildEvent:
    """One event of another agent's job (ARCP §8.2).

    Attributes:
        kind: such as `log` or `progress`.
    """

    kind: str
    ts: datetime.datetime
    body: dict[str, Any]


class Watched(UnderWay):
    """A task under way that is watched: an iterator over its events.

    It is cancelled with `drop`, at the end of a `with`, or when nothing refers to it.
    """

    @property
    def job_id(self) -> str:
        """The id of the job that does it."""
        found: str = _host.call(_host.delegate.job_id, self._under_way())
        return found

    def __iter__(self) -> Iterator[ChildEvent]:
        return self

    def __next__(self) -> ChildEvent:
        """Waits for the next event of that job. Raises the error with which the other job ended."""
        event = _host.call(_host.delegate.next_event, self._under_way())
        if event is None:
            raise StopIteration
        parsed = _json.loads(event)
        return ChildEvent(parsed["kind"], parse_timestamp(parsed["ts"]), parsed["body"])

    def finish(self) -> Any:
        """Waits for the result. Raises the error with which the other job ended."""
        return _finish(self._taken())


def task(
    agent: str,
    input: Any = None,
    *,
    lease: Mapping[str, Sequence[str]] | None = None,
    budget: str | None = None,
    expires_at: datetime.datetime | None = None,
    max_runtime: float | datetime.timedelta | None = None,
) -> Task:
    """Describes a task for `agent`, `name` or `name@version`; what each argument means stands at `Task`."""
    return Task(agent, input, lease or {}, budget, expires_at, max_runtime)


def run(agent: str, input: Any = None, **rest: Any) -> Any:
    """Has a task done and waits for its result: `task(agent, input, …).run()`."""
    return task(agent, input, **rest).run()


def start(agent: str, input: Any = None, **rest: Any) -> Pending[Any]:
    """Starts a task and goes on meanwhile: `task(agent, input, …).start()`."""
    return task(agent, input, **rest).start()


def watch(agent: str, input: Any = None, **rest: Any) -> Watched:
    """Starts a task and watches it: `task(agent, input, …).watch()`."""
    return task(agent, input, **rest).watch()


def _finish(under_way: Any) -> Any:
    return _json.loads(_host.call(_host.delegate.finish, under_way))
