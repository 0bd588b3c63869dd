"""The files the lease grants: `fs.read` and `fs.write` (ARCP §9.2).

A path is absolute and names a place in the job's own tree. `//` and `.` collapse; `..` and symbolic links are refused.
A path is a str or a `pathlib.PurePosixPath`.

Every function can raise `PermissionDenied`, `LeaseExpired`, `BudgetExhausted` and `Cancelled`, in addition to what it
says itself. Python's own `open` and `os` find nothing in a component: what the lease grants is here.
"""

from __future__ import annotations

import builtins
import datetime
import enum
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, TextIO, overload

from . import _host
from ._error import Error, InvalidRequest, NotAFile, NotFound
from ._time import parse_timestamp

__all__ = [
    "read", "read_text", "read_range", "open", "exists", "stat", "list", "walk", "write", "append", "mkdir", "remove",
    "Entry", "Kind", "Stat",
]  # fmt: skip

Path = str | os.PathLike[str]

# How much a file that is read in parts asks for at least.
_BUFFER_SIZE = 256 * 1024


class Kind(enum.StrEnum):
    """What a name in a directory stands for.

    `OTHER` is a symbolic link, a device, a pipe or a socket. Nothing opens it.
    """

    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"


@dataclass(frozen=True)
class Entry:
    """One entry of a directory, as `list` and `walk` give it.

    Attributes:
        path: the whole path, ready for `read` or `list`.
        name: the last part of the path.
        size: bytes for a file, 0 for everything else.
    """

    path: str
    name: str
    kind: Kind
    size: int

    @property
    def is_file(self) -> bool:
        """Whether it is a file that can be read."""
        return self.kind is Kind.FILE

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory that can be listed."""
        return self.kind is Kind.DIRECTORY


@dataclass(frozen=True)
class Stat:
    """What is known of a file or directory.

    Attributes:
        size: bytes for a file, 0 for everything else.
        modified: when it was last changed, in UTC.
    """

    kind: Kind
    size: int
    modified: datetime.datetime


def read(path: Path) -> bytes:
    """Reads a whole file. Needs `fs.read` on `path`.

    Raises `TooLarge` over the host's read limit (default 16 MiB), where `open` is the way; `NotFound`, `NotAFile`.
    """
    contents: bytes = _host.call(_host.fs.read, _text(path))
    return contents


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Reads a whole file as text; line ends stay as they are. Needs `fs.read` on `path`.

    Raises what `read` raises, and `InvalidRequest` for a file that is not of the encoding.
    """
    try:
        return read(path).decode(encoding)
    except UnicodeDecodeError:
        raise InvalidRequest(f"{_text(path)} is not {encoding.upper()}") from None


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Reads at most `length` bytes from `offset`. Needs `fs.read` on `path`.

    Gives fewer at the end of the file, none beyond it, and never more than the host's read limit (default 16 MiB).
    Raises `NotFound`, `NotAFile`.
    """
    contents: bytes = _host.call(_host.fs.read_range, _text(path), offset, length)
    return contents


@overload
def open(
    path: Path, mode: Literal["r", "rt"] = "r", *, encoding: str = "utf-8", newline: str | None = None
) -> TextIO: ...
@overload
def open(path: Path, mode: Literal["rb"]) -> BinaryIO: ...


def open(
    path: Path, mode: str = "r", *, encoding: str = "utf-8", newline: str | None = None
) -> TextIO | BinaryIO:
    """Opens a file of any size to read it in parts, as text (`"r"`) or bytes (`"rb"`). Needs `fs.read` on `path`.

        with fs.open("/workspace/server.log") as log:
            errors = sum("ERROR" in line for line in log)

    The host keeps nothing open: each part is asked for by path, and the lease is checked each time. A file that changes
    meanwhile is read as it changes. To write a file at once there are `write` and `append`.

    Raises `NotFound`, `NotAFile`.
    """
    if mode not in ("r", "rt", "rb"):
        raise ValueError(f"mode {mode!r}: files are opened to be read; leasehold.fs.write and append write them")
    described = stat(path)
    if described.kind is not Kind.FILE:
        raise NotAFile(f"{_text(path)} is not a file")
    buffered = io.BufferedReader(_File(_text(path), described.size))
    return buffered if mode == "rb" else io.TextIOWrapper(buffered, encoding, newline=newline)


class _File(io.RawIOBase):
    """A file that is read in parts; the position is ours, the host knows only ranges.

    It keeps a part of its own, since what stands on it asks for as little as 8 KiB at a time.
    """

    def __init__(self, path: str, size: int) -> None:
        self.name, self._size, self._position = path, size, 0
        self._part, self._part_from = b"", 0

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        if not self._part_from <= self._position < self._part_from + len(self._part):
            self._part = read_range(self.name, self._position, max(len(into), _BUFFER_SIZE))
            self._part_from = self._position
        begin = self._position - self._part_from
        taken = self._part[begin : begin + len(into)]
        into[: len(taken)] = taken
        self._position += len(taken)
        return len(taken)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def exists(path: Path) -> bool:
    """Tells whether something has that name. Needs `fs.read` on `path`."""
    try:
        stat(path)
    except NotFound:
        return False
    return True


def stat(path: Path) -> Stat:
    """Describes a file or directory without opening it. Needs `fs.read` on `path`. Raises `NotFound`."""
    found = _host.call(_host.fs.stat, _text(path))
    return Stat(_kind(found.kind), found.size, parse_timestamp(found.modified))


def list(path: Path) -> builtins.list[Entry]:
    """Lists a directory in the order of its names. Needs `fs.read` on `path`.

    Names that are not UTF-8 are left out. Raises `TooLarge` over the host's limit (default 65,536 entries), `NotFound`,
    `NotADirectory`.
    """
    folder = _text(path)
    entries = _host.call(_host.fs.list, folder)
    folder = folder.rstrip("/")
    return [Entry(f"{folder}/{entry.name}", entry.name, _kind(entry.kind), entry.size) for entry in entries]


def walk(
    path: Path,
    *,
    enter: Callable[[Entry], bool] | None = None,
    on_error: Callable[[Error], object] | None = None,
) -> Iterator[Entry]:
    """Walks a directory and all below it, in the order of names. Needs `fs.read` on each directory.

    A directory comes before what it holds, and it is listed only when the walk goes on. `enter` says which directories
    are walked into. With `on_error` a directory that cannot be listed is told to it and the walk goes on beside it;
    without, the error is raised and ends the walk.

        for entry in fs.walk("/workspace", enter=lambda folder: folder.name != ".git", on_error=events.warn):
            if entry.is_file: ...
    """
    waiting: builtins.list[Entry] = []
    folder: Path | None = path
    while folder is not None or waiting:
        if folder is not None:
            try:
                waiting.extend(reversed(list(folder)))
            except Error as error:
                if on_error is None:
                    raise
                on_error(error)
            folder = None
            continue
        entry = waiting.pop()
        yield entry
        if entry.is_dir and (enter is None or enter(entry)):
            folder = entry.path


def write(path: Path, contents: bytes | bytearray | memoryview | str) -> None:
    """Replaces a file's contents at once, or creates the file; a str is written as UTF-8. Needs `fs.write` on `path`.

    A reader sees the old contents or the new, never a mixture. Raises `NotFound` without its directory, `NotAFile`,
    `TooLarge` over the host's write limit (default 16 MiB).
    """
    _host.call(_host.fs.write, _text(path), _bytes(contents))


def append(path: Path, contents: bytes | bytearray | memoryview | str) -> None:
    """Adds to the end of a file, or creates it; a str is written as UTF-8. Needs `fs.write` on `path`.

    Raises what `write` raises, and `UnknownOutcome` if the host stopped meanwhile.
    """
    _host.call(_host.fs.append, _text(path), _bytes(contents))


def mkdir(path: Path) -> None:
    """Creates a directory. Needs `fs.write` on `path`. Raises `AlreadyExists`, and `NotFound` without its parent."""
    _host.call(_host.fs.create_dir, _text(path))


def remove(path: Path) -> None:
    """Removes a file or an empty directory. Needs `fs.write` on `path`. Raises `NotFound`, `NotEmpty`."""
    _host.call(_host.fs.remove, _text(path))


def _text(path: Path) -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("a path is a str or a pathlib.PurePosixPath")
    return text


def _bytes(contents: bytes | bytearray | memoryview | str) -> bytes:
    return contents.encode() if isinstance(contents, str) else bytes(memoryview(contents))


def _kind(kind: enum.Enum) -> Kind:
    return Kind[kind.name]
