"""Modules that Python would load only when they are needed, which a component cannot.

A component is a picture of the interpreter after its modules were imported; the files they came from are not in it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

# What the standard library imports inside its functions, and the encodings that people meet.
_MODULES = (
    "_strptime", "calendar", "decimal", "linecache", "locale", "stringprep", "tokenize", "traceback", "unicodedata",
    "encodings.ascii", "encodings.cp1252", "encodings.idna", "encodings.iso8859_1", "encodings.iso8859_15",
    "encodings.latin_1", "encodings.punycode", "encodings.raw_unicode_escape", "encodings.unicode_escape",
    "encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le", "encodings.utf_32", "encodings.utf_8",
    "encodings.utf_8_sig",
)  # fmt: skip


def load() -> None:
    """Imports them, while there still is something to import from."""
    for name in _MODULES:
        # One that this Python was built without is missed by who uses it, and by nobody else.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class _Explanation:
    """Asked last for a module nobody found: says why, and what to do."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        raise ModuleNotFoundError(
            f"No module named {name!r}: a component imports nothing while it runs; import it at the top of the module",
            name=name,
        )


def explain() -> None:
    """Makes an import that comes too late say so."""
    if _Explanation not in sys.meta_path:
        sys.meta_path.append(_Explanation)
