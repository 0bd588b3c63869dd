"""Instants and durations as the host writes them."""

from __future__ import annotations

import datetime


def parse_timestamp(text: str) -> datetime.datetime:
    """Reads RFC 3339; an instant without an offset is none."""
    at = datetime.datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} has no offset from UTC")
    return at.astimezone(datetime.timezone.utc)


def format_timestamp(at: datetime.datetime) -> str:
    """Writes `2026-05-13T19:30:00.000Z`; an instant without a time zone is a mistake, not a guess."""
    if at.tzinfo is None:
        raise ValueError("an instant needs a time zone: datetime.now(timezone.utc)")
    utc = at.astimezone(datetime.timezone.utc)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03}Z"


def seconds(duration: float | datetime.timedelta) -> float:
    """A duration in seconds, which is how Python writes one."""
    return duration.total_seconds() if isinstance(duration, datetime.timedelta) else float(duration)


def millis(duration: float | datetime.timedelta | None) -> int | None:
    """A duration for the host, which counts in whole milliseconds and has no end of time."""
    if duration is None:
        return None
    return min(max(round(seconds(duration) * 1000), 0), 2**64 - 1)
