"""The exception of the bindings, as componentize-py has it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Err(Exception):
    value: Any
