from dataclasses import dataclass
from enum import Enum
from typing import List

from .. import host


class Kind(Enum):
    FILE = 0
    DIRECTORY = 1
    OTHER = 2


@dataclass
class Metadata:
    kind: Kind
    size: int
    modified: str


@dataclass
class Entry:
    name: str
    kind: Kind
    size: int


def read(path: str) -> bytes:
    host.check(path)
    if path in host.folders:
        host.refuse("NOT_A_FILE", f"{path} is a directory")
    if path not in host.files:
        host.refuse("NOT_FOUND", f"nothing is named `{path}`")
    return host.files[path]


def read_range(path: str, offset: int, length: int) -> bytes:
    host.told.append(("read_range", offset, length))
    return read(path)[offset : offset + length]


def list(path: str) -> List[Entry]:
    host.check(path)
    folder = path.rstrip("/") + "/"
    entries = []
    for name in sorted({*host.files, *host.folders}):
        if name != "/" and name.startswith(folder) and "/" not in name[len(folder) :]:
            kind = Kind.DIRECTORY if name in host.folders else Kind.FILE
            entries.append(Entry(name[len(folder) :], kind, len(host.files.get(name, b""))))
    return entries


def stat(path: str) -> Metadata:
    if path in host.folders:
        return Metadata(Kind.DIRECTORY, 0, "2026-05-13T19:30:00.020Z")
    return Metadata(Kind.FILE, len(read(path)), "2026-05-13T19:30:00.020Z")


def write(path: str, contents: bytes) -> None:
    host.check(path)
    host.files[path] = contents


def append(path: str, contents: bytes) -> None:
    host.check(path)
    host.files[path] = host.files.get(path, b"") + contents


def create_dir(path: str) -> None:
    if path in host.folders:
        host.refuse("ALREADY_EXISTS", f"{path} is there")
    host.folders.add(path)


def remove(path: str) -> None:
    host.folders.discard(path)
    host.files.pop(path, None)
