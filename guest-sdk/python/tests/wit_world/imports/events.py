from dataclasses import dataclass
from enum import Enum

from .. import host


class Level(Enum):
    DEBUG = 0
    INFO = 1
    WARN = 2
    ERROR = 3


@dataclass
class Reference:
    uri: str
    content_type: str
    byte_size: int | None
    sha256: str | None


def log(level: Level, message: str) -> None:
    message.encode()  # the real one cannot lower a lone surrogate
    host.told.append((level.name.lower(), message))


def thought(text: str) -> None:
    host.told.append(("thought", text))


def status(phase: str, message: str | None) -> None:
    if phase == "back_pressure":
        host.refuse("INVALID_REQUEST", "the phase is the host's own")
    host.told.append(("status", phase, message))


def progress(current: int, total: int | None, units: str | None, message: str | None) -> None:
    host.told.append(("progress", current, total, units, message))


def artifact_ref(artifact: Reference) -> None:
    host.told.append(("artifact", artifact))


def vendor(kind: str, body: str) -> None:
    host.told.append(("vendor", kind, body))
