"""A result too large to return, streamed (ARCP §8.4). Needs no grant.

A job that wrote anything here has a streamed result: its function then returns None or a summary, a str. Text and bytes
cannot be mixed in one result.

    with output.text() as report:
        print("# Report", file=report)
        for line in lines:
            report.write(line)
    return "the report is complete"
"""

from __future__ import annotations

import io
from collections.abc import Callable
from types import TracebackType
from typing import Any

from . import _host

__all__ = ["write_text", "write_bytes", "finish", "text", "binary", "TextWriter", "BinaryWriter"]

# How much a writer gathers before it calls the host: characters or bytes.
_GATHERED_MAX = 64 * 1024


def write_text(text: str) -> None:
    """Adds text to the result, at once.

    Raises `TooLarge` over the host's limit (default 256 MiB), `InvalidRequest` after `finish` or when bytes were
    written.
    """
    _host.call(_host.output.write_text, text)


def write_bytes(data: bytes | bytearray | memoryview) -> None:
    """Adds bytes to the result, at once.

    Raises `TooLarge` over the host's limit (default 256 MiB), `InvalidRequest` after `finish` or when text was written.
    """
    _host.call(_host.output.write_bytes, bytes(data))


def finish() -> None:
    """Ends the result; the host does so itself when the agent returns. Raises `InvalidRequest` if it has ended
    already."""
    _host.call(_host.output.finish)


def text() -> TextWriter:
    """Makes a buffered text file that is written into the result; see `TextWriter`."""
    return TextWriter()


def binary() -> BinaryWriter:
    """Makes a buffered binary file that is written into the result; see `BinaryWriter`."""
    return BinaryWriter()


class _Gathered:
    """What was written and not sent yet."""

    def __init__(self, send: Callable[[Any], None], empty: str | bytes) -> None:
        self._send, self._empty = send, empty
        self._parts: list[Any] = []
        self._length = 0

    def add(self, part: Any) -> None:
        self._parts.append(part)
        self._length += len(part)
        if self._length >= _GATHERED_MAX:
            self.flush()

    def flush(self) -> None:
        parts, self._parts, self._length = self._parts, [], 0
        if parts:
            self._send(self._empty.join(parts))


class _Writer(io.IOBase):
    """What a file into the result does with what was written and not sent yet."""

    _gathered: _Gathered

    def writable(self) -> bool:
        """Always true."""
        return True

    def flush(self) -> None:
        """Hands over what was gathered, so that watchers see it now."""
        if not self.closed:
            self._gathered.flush()

    def close(self) -> None:
        """Sends what is left and ends the result."""
        if not self.closed:
            self.flush()
            super().close()
            finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush() if kind else self.close()

    def __del__(self) -> None:
        # `close` would end the result, which a writer that was only forgotten should not do.
        try:
            self.flush()
        except Exception:  # nobody is left to be told; `close` is the way to know
            pass

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class TextWriter(_Writer, io.TextIOBase):
    """A text file that is written into the result: for `print(file=…)`, `json.dump`, `csv.writer` and the like.

    It gathers 64 Ki characters before it calls the host; `flush` lets watchers see what there is. `close`, or the end
    of a `with`, ends the result; a `with` that ends with an exception sends what there is and leaves the result open.
    """

    def __init__(self) -> None:
        self._gathered = _Gathered(write_text, "")

    def write(self, text: str, /) -> int:
        """Adds a text and gives its length in characters. Raises what `write_text` raises."""
        self._check_open()
        if not isinstance(text, str):
            raise TypeError(f"a text is written here, not {type(text).__name__}")
        if text:
            self._gathered.add(text)
        return len(text)


class BinaryWriter(_Writer, io.BufferedIOBase):
    """A binary file that is written into the result: for `shutil.copyfileobj`, `zipfile.ZipFile` and the like.

    It gathers 64 KiB before it calls the host; `flush` lets watchers see what there is. `close`, or the end of a
    `with`, ends the result; a `with` that ends with an exception sends what there is and leaves the result open.
    """

    def __init__(self) -> None:
        self._gathered = _Gathered(write_bytes, b"")

    def write(self, data: Any, /) -> int:
        """Adds bytes and gives their number. Raises what `write_bytes` raises."""
        self._check_open()
        part = bytes(memoryview(data))
        if part:
            self._gathered.add(part)
        return len(part)
