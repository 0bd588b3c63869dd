"""From Python's `logging` to log events."""

from __future__ import annotations

import logging
import sys

from . import _host


class LogHandler(logging.Handler):
    """A `logging.Handler` that makes log events of the records it gets.

    The root logger has one in every component, at level `INFO`: `logging.getLogger(__name__).warning("…")` is a log
    event at `warn`, and `logging.getLogger().setLevel(logging.DEBUG)` lets more through. `CRITICAL` becomes `error`.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Tells one record."""
        try:
            message = _host.clean(self.format(record))
            known = _host.events.Level
            if record.levelno >= logging.ERROR:
                level = known.ERROR
            elif record.levelno >= logging.WARNING:
                level = known.WARN
            elif record.levelno >= logging.INFO:
                level = known.INFO
            else:
                level = known.DEBUG
            _host.events.log(level, message)
        except Exception:
            self.handleError(record)


def install() -> None:
    """Gives the root logger our handler, unless the agent has chosen others.

    A handler that writes to the standard streams is what `logging.basicConfig` makes: ours takes its place, so that
    levels are kept, and the level and format it was given stay.
    """
    root = logging.getLogger()
    if any(isinstance(handler, LogHandler) for handler in root.handlers):
        return
    standard = [
        handler
        for handler in root.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)
    ]
    if len(standard) < len(root.handlers):
        return
    ours = LogHandler()
    for handler in standard:
        ours.setFormatter(handler.formatter)
        ours.setLevel(handler.level)
        root.removeHandler(handler)
    if not standard and root.level == logging.WARNING:
        root.setLevel(logging.INFO)
    root.addHandler(ours)
