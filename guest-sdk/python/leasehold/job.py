"""What an agent may know of its own job. Needs no grant."""

from __future__ import annotations

import datetime
import time
from decimal import Decimal

from . import _host
from ._error import Cancelled
from ._time import parse_timestamp, seconds

__all__ = [
    "id", "agent", "trace_id", "expires_at", "budget", "grants", "cancel_requested", "check_cancelled", "sleep",
]  # fmt: skip

# How long `sleep` may go on after a cancellation, in seconds; the host's grace time is longer.
_NAP_MAX = 1.0


def id() -> str:
    """Gives the job's id, `job_` and a ULID (ARCP §7.1)."""
    found: str = _host.job.id()
    return found


def agent() -> str:
    """Gives the agent as it was resolved at submission, `name@version` (ARCP §7.5)."""
    found: str = _host.job.agent()
    return found


def trace_id() -> str:
    """Gives the W3C trace id, 32 hexadecimal digits (ARCP §11)."""
    found: str = _host.job.trace_id()
    return found


def expires_at() -> datetime.datetime | None:
    """Gives the instant at which the lease ends, in UTC, if it does (ARCP §9.5)."""
    at = _host.job.expires_at()
    return None if at is None else parse_timestamp(at)


def budget() -> dict[str, Decimal]:
    """Gives what is left of each currency of the budget: `{"USD": Decimal("0.75")}` (ARCP §9.6).

    Empty if the lease has no `cost.budget`. What is left may be negative.
    """
    return {currency: Decimal(left) for currency, left in _host.job.budget()}


def grants(namespace: str) -> list[str]:
    """Gives the patterns the lease grants in a namespace such as `fs.read` (ARCP §9.2)."""
    return list(_host.job.grants(namespace))


def cancel_requested() -> bool:
    """Tells whether cancellation was asked for (ARCP §7.4).

    Once true it stays true, operations raise `Cancelled`, and the job is ended by force after the host's grace time
    (default 5 s).
    """
    asked: bool = _host.job.cancel_requested()
    return asked


def check_cancelled() -> None:
    """Raises `Cancelled` once cancellation was asked for: for long loops that call nothing else."""
    if cancel_requested():
        raise Cancelled("the job is being cancelled")


def sleep(duration: float | datetime.timedelta) -> None:
    """Sleeps for so many seconds; raises `Cancelled` at most a second after cancellation was asked for."""
    # Time is counted down, not read from a clock: the calls a run makes are then the same when the host replays it.
    left = seconds(duration)
    while left > 0:
        nap = min(left, _NAP_MAX)
        time.sleep(nap)
        left -= nap
        check_cancelled()
