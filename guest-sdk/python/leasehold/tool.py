"""Tools the operator has registered: `tool.call` (ARCP §9.2)."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any

from . import _host, _json
from .calls import Pending

__all__ = ["Tool", "list", "call", "start"]


@dataclass(frozen=True)
class Tool:
    """A tool, as `list` gives it.

    Attributes:
        name: such as `search.web`.
        input_schema: the JSON Schema of its arguments.
        output_schema: the JSON Schema of its result, if it has one.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None


def list() -> builtins.list[Tool]:
    """Gives the tools that this lease covers, by name. Needs no grant."""
    return [
        Tool(
            found.name,
            found.description,
            _json.loads(found.input_schema),
            None if found.output_schema is None else _json.loads(found.output_schema),
        )
        for found in _host.call(_host.tool.list)
    ]


def call(name: str, arguments: Any = None) -> Any:
    """Calls a tool with a dict or a dataclass and gives its answer. Needs `tool.call` on `name`.

    `hits = tool.call("search.web", {"query": "leases"})`. Raises `PermissionDenied`, `NotFound`; `InvalidRequest` if
    the arguments do not fit the tool's schema; `BudgetExhausted` if its price is more than what is left;
    `InternalError` in the tool's own words if it fails; `Timeout`.
    """
    return _json.loads(_host.call(_host.tool.call, name, _arguments(arguments)))


def start(name: str, arguments: Any = None) -> Pending[Any]:
    """Starts a call of a tool, and goes on meanwhile. Raises what `call` raises, if it is known at once."""
    return Pending(_host.call(_host.tool.start, name, _arguments(arguments)), _finish)


def _finish(under_way: Any) -> Any:
    return _json.loads(_host.call(_host.tool.finish, under_way))


def _arguments(arguments: Any) -> str:
    return "{}" if arguments is None else _json.dumps(arguments)
