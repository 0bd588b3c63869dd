"""The door to the host: the bindings that componentize-py makes, or a clear error where there are none.

componentize-py generates the package `wit_world` from `wit/` while it builds a component, and no other program has it.
So every module of the SDK asks for the bindings here, and natively finds stand-ins that say so when they are used.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import typing
from collections.abc import Callable
from typing import Any

from ._error import Code, Error, InvalidRequest


class NoHostError(RuntimeError):
    """A function of the host was called in a program that is no component, so there is nobody to ask.

    Keep what needs no host in functions of its own, and tests can run them anywhere.
    """


class _Absent:
    """Stands for the bindings of one interface where there are none."""

    def __init__(self, interface: str) -> None:
        self._interface = interface

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NoHostError(
            f"leasehold.{self._interface} needs a host, and this is plain Python: "
            "build the agent with `leasehold build` and run it with `leasehold run`"
        )


def _interface(name: str) -> Any:
    """The bindings of one interface. Everything is imported at once: while a component runs, nothing can be."""
    try:
        return importlib.import_module(f"wit_world.imports.{name}")
    except ModuleNotFoundError as missing:
        if missing.name != "wit_world":
            raise
        return _Absent(name)


calls = _interface("calls")
delegate = _interface("delegate")
events = _interface("events")
fs = _interface("fs")
job = _interface("job")
metrics = _interface("metrics")
model = _interface("model")
net = _interface("net")
output = _interface("output")
tool = _interface("tool")
_types = _interface("types")

# Whether there is a host, or will be one once the component is built.
PRESENT = not isinstance(_types, _Absent)


class _NoErr(Exception):
    """Nothing raises it: it stands where the exception of the bindings would."""


_Err: Any = importlib.import_module("componentize_py_types").Err if PRESENT else _NoErr


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the bindings; a refusal of the host is raised as an `Error`."""
    _check(function, arguments)
    try:
        return function(*arguments)
    except _Err as refusal:
        code = Code[refusal.value.code.name]
        message = refusal.value.message
    # Raised here, so that a traceback shows one error and not two.
    raise Error(code, message)


def _check(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Holds arguments against the annotations of the bindings, which end the job with a trap where one does not fit."""
    hints = _hints(function)
    for hint, argument in zip(hints.values(), arguments):
        _check_one(argument, hint)


@functools.cache
def _hints(annotated: Any) -> dict[str, Any]:
    return typing.get_type_hints(annotated)


def _check_one(value: Any, hint: Any) -> None:
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        if value is not None:
            _check_one(value, arguments[0])
    elif hint is str:
        _check_kind(value, str)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidRequest(f"a text with a lone surrogate cannot be sent: {value[:60]!a}") from None
    elif hint is int:
        _check_kind(value, int)
        if not 0 <= value < 2**64:
            raise InvalidRequest(f"{value} is no number from 0 to 2^64 - 1")
    elif typing.get_origin(hint) is list:
        for item in value:
            _check_one(item, arguments[0])
    elif typing.get_origin(hint) is tuple:
        for item, kind in zip(value, arguments):
            _check_one(item, kind)
    elif dataclasses.is_dataclass(hint):
        for name, kind in _hints(typing.cast(type, hint)).items():
            _check_one(getattr(value, name), kind)
    else:
        _check_kind(value, hint)


def _check_kind(value: Any, kind: type) -> None:
    if not isinstance(value, kind) or kind is int and isinstance(value, bool):
        raise TypeError(f"{kind.__name__} is needed here, not {type(value).__name__}: {value!r}")


def err(error: Error) -> Exception:
    """The exception that the bindings turn into the error of the job."""
    value = _types.Error(_types.ErrorCode[error.code.name], clean(error.message))
    raised: Exception = _Err(value)
    return raised


def clean(text: str) -> str:
    """The text without lone surrogates, which Python allows in a string and nothing can send."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
