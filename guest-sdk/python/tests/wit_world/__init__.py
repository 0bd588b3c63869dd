"""A fake of the bindings that componentize-py makes: one host in memory, which the tests set up and look into.

The names, types and signatures are those of the generated package; `host` says what is there and keeps what was told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


class Host:
    """What the fake answers, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = {"/"}
        self.told: list[tuple[Any, ...]] = []
        self.cancelled = False
        self.left = [("USD", "0.7500")]
        self.expires: str | None = None
        # By what is asked: a tool's name, a model's, an agent's, a URL.
        self.answers: dict[str, Any] = {}
        # The order in which calls under way end, by what they were of.
        self.order: list[str] = []
        self.dropped: list[str] = []
        self.refusals: dict[str, tuple[str, str]] = {}

    def refuse(self, code: str, message: str) -> Any:
        from componentize_py_types import Err

        from .imports.types import Error, ErrorCode

        raise Err(Error(ErrorCode[code], message))

    def check(self, target: str) -> None:
        if target in self.refusals:
            self.refuse(*self.refusals[target])

    def answer(self, target: str, asked: Any = None) -> Any:
        self.check(target)
        answer = self.answers[target]
        return answer(asked) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]

    def answer_json(self, target: str, asked: str) -> str:
        return json.dumps(self.answer(target, json.loads(asked)))


host = Host()


def reset() -> Host:
    """A new host, with nothing in it."""
    host.__init__()  # type: ignore[misc]
    return host
