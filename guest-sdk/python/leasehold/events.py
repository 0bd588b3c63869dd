"""What an agent tells those who watch its job (ARCP §8.2). Needs no grant.

The host stores an event before anyone sees it and cuts texts at its limit (default 16 KiB). An agent that tells more
than the host can store waits.

The standard `logging` and `print` lead here too: a record of `logging` becomes a log event of its level, and a printed
line one at `info`.
"""

from __future__ import annotations

from typing import Any

from . import _host, _json

__all__ = ["debug", "info", "warn", "error", "thought", "status", "progress", "artifact", "vendor"]


def debug(message: object) -> None:
    """Logs what helps to find a fault."""
    _host.events.log(_host.events.Level.DEBUG, _host.clean(str(message)))


def info(message: object) -> None:
    """Logs what went as it should."""
    _host.events.log(_host.events.Level.INFO, _host.clean(str(message)))


def warn(message: object) -> None:
    """Logs what the agent can cope with and people may want to know."""
    _host.events.log(_host.events.Level.WARN, _host.clean(str(message)))


def error(message: object) -> None:
    """Logs what the agent cannot cope with."""
    _host.events.log(_host.events.Level.ERROR, _host.clean(str(message)))


def thought(text: object) -> None:
    """Tells the reasoning that explains what comes next."""
    _host.events.thought(_host.clean(str(text)))


def status(phase: str, message: str | None = None) -> None:
    """Tells that the job has entered a phase.

    Raises `InvalidRequest` for the host's own phases `back_pressure`, `credential_rotated` and `lease_expired`.
    """
    _host.call(_host.events.status, phase, message)


def progress(current: int, total: int | None = None, *, units: str | None = None, message: str | None = None) -> None:
    """Tells how far the job has come (ARCP §8.2.1): `progress(47, 120, units="files", message="src/auth.py")`.

    Without a total the end is not known. Raises `InvalidRequest` for a figure below zero or over the total.
    """
    _host.call(_host.events.progress, current, total, units, message)


def artifact(uri: str, content_type: str, *, byte_size: int | None = None, sha256: str | None = None) -> None:
    """Tells that something was made and can be found at `uri`. A digest is 64 hexadecimal digits."""
    _host.call(_host.events.artifact_ref, _host.events.Reference(uri, content_type, byte_size, sha256))


def vendor(kind: str, body: Any) -> None:
    """Emits an event of the agent's own kind, `x-vendor.<vendor>.<name>`, whose body is a dict or a dataclass.

    Raises `InvalidRequest` for another kind or a body that is no JSON object.
    """
    _host.call(_host.events.vendor, kind, _json.dumps(body))
