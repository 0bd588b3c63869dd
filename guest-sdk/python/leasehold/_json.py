"""Between JSON and Python's types: dicts and lists, or dataclasses of any depth."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import re
import types
import typing
import uuid
from collections.abc import Mapping, Sequence, Set
from typing import Any

from ._error import InternalError, InvalidRequest
from ._time import parse_timestamp

_NAMES = {str: "a string", bool: "true or false"}
# The contract's own JSON is at most 120 levels deep, 128 where the agent is told it (`wit/types.wit`); others', such as web
# servers', may be deeper.
_DEPTH_MAX = 250
# A bracket, or a whole string, whose brackets do not count.
_BRACKETS = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*+"', re.DOTALL)
# What is shown of a value that does not fit: enough to recognise it.
_SHOWN_MAX = 60


def dumps(value: Any) -> str:
    """The JSON text of a value; `InvalidRequest` says what in it has none."""
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(str(error)) from None
    return text


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; `InternalError` if the host or who it asked sent another text."""
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        _check_depth(text)
        return json.loads(text)
    except ValueError as error:
        raise InternalError(f"the answer is no JSON: {error}") from None


def _check_depth(text: str) -> None:
    """Refuses what is nested too deeply: the parser would use up the stack of a component, which nothing can catch."""
    if text.count("[") + text.count("{") <= _DEPTH_MAX:
        return
    depth = 0
    for found in _BRACKETS.finditer(text):
        token = found[0]
        if len(token) == 1:
            depth += 1 if token in "[{" else -1
            if depth > _DEPTH_MAX:
                raise ValueError(f"it is nested deeper than {_DEPTH_MAX} levels")


def _plain(value: Any) -> Any:
    """What stands in JSON for a value that json does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, pathlib.PurePath)):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        # A set has no order of its own, and a replay compares results.
        return sorted(value, key=repr)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"a value of type {type(value).__name__} has no JSON")


def fit(value: Any, wanted: Any, path: str) -> Any:
    """Makes a parsed JSON value one of a type; `InvalidRequest` names the place in it that does not fit."""
    if wanted is Any or wanted is object:
        return value
    if wanted is None or wanted is type(None):
        if value is not None:
            raise _unfit(path, "null", value)
        return None
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return fit(value, arguments[0], path)
    if origin is typing.Union or origin is types.UnionType:
        return _fit_one_of(value, arguments, path)
    if origin is typing.Literal:
        if not any(value == known and type(value) is type(known) for known in arguments):
            raise _unfit(path, "one of " + ", ".join(json.dumps(known) for known in arguments), value)
        return value
    if isinstance(wanted, typing.NewType):
        return fit(value, wanted.__supertype__, path)
    if dataclasses.is_dataclass(wanted):
        return _fit_dataclass(value, wanted, path)
    if typing.is_typeddict(wanted):
        return _fit_typed_dict(value, wanted, path)
    return _fit_plain(value, origin or wanted, arguments, path)


def _fit_one_of(value: Any, kinds: Sequence[Any], path: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not type(None)]
    errors = []
    for kind in kinds:
        try:
            return fit(value, kind, path)
        except InvalidRequest as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise InvalidRequest(f"{path}: {_show(value)} fits none of {', '.join(_name(kind) for kind in kinds)}")


def _fit_dataclass(value: Any, wanted: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise _unfit(path, "an object", value)
    hints = _hints(wanted)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(wanted):
        if not field.init:
            continue
        place = f"{path}: {field.name}" if path == "input" else f"{path}.{field.name}"
        if field.name in value:
            fields[field.name] = fit(value[field.name], hints[field.name], place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if not _takes_none(hints[field.name]):
                raise InvalidRequest(f"{place}: is missing")
            fields[field.name] = None
    try:
        return wanted(**fields)
    except InvalidRequest:
        raise
    except ValueError as error:
        # What `__post_init__` has to say of its own.
        raise InvalidRequest(f"{path}: {error}") from error


def _fit_typed_dict(value: Any, wanted: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise _unfit(path, "an object", value)
    fitted = dict(value)
    for name, hint in _hints(wanted).items():
        place = f"{path}: {name}" if path == "input" else f"{path}.{name}"
        if name in value:
            fitted[name] = fit(value[name], hint, place)
        # Annotations that are texts hide their `NotRequired` from `__required_keys__`.
        elif name in wanted.__required_keys__ and typing.get_origin(hint) is not typing.NotRequired:
            raise InvalidRequest(f"{place}: is missing")
    return fitted


def _fit_plain(value: Any, kind: Any, arguments: tuple[Any, ...], path: str) -> Any:
    if kind in (dict, Mapping):
        if not isinstance(value, dict):
            raise _unfit(path, "an object", value)
        if not arguments:
            return value
        return {name: fit(item, arguments[1], f"{path}[{_show(name)}]") for name, item in value.items()}
    if kind in (list, Sequence, set, frozenset, Set, tuple):
        if not isinstance(value, list):
            raise _unfit(path, "a list", value)
        if kind is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise _unfit(path, f"a list of {len(arguments)}", value)
            return tuple(fit(item, hint, f"{path}[{n}]") for n, (item, hint) in enumerate(zip(value, arguments)))
        items = [fit(item, arguments[0], f"{path}[{n}]") for n, item in enumerate(value)] if arguments else value
        if kind in (list, Sequence):
            return items
        return set(items) if kind is Set else kind(items)
    if kind is bool or kind is str:
        if not isinstance(value, kind):
            raise _unfit(path, _NAMES[kind], value)
        return value
    if kind is int:
        # In JSON 2.0 is the same number as 2.
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _unfit(path, "an integer", value)
        return value
    if kind is float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise _unfit(path, "a number", value)
        return float(value)
    if kind is decimal.Decimal:
        # A number of JSON is a float by now, and money is never a float.
        try:
            if isinstance(value, str) or isinstance(value, int) and not isinstance(value, bool):
                return decimal.Decimal(value)
        except decimal.InvalidOperation:
            pass
        raise _unfit(path, 'an exact number as a string, such as "0.25"', value)
    if kind is datetime.datetime:
        try:
            return parse_timestamp(value)
        except (TypeError, ValueError):
            raise _unfit(path, "an instant such as 2026-05-13T19:30:00Z", value) from None
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(json.dumps(member.value, default=repr) for member in kind)
            raise _unfit(path, f"one of {known}", value) from None
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"{path}: an agent's input cannot have the type {_name(kind)}")


def _hints(wanted: Any) -> dict[str, Any]:
    return typing.get_type_hints(wanted, include_extras=True)


def _takes_none(hint: Any) -> bool:
    return hint is Any or hint is type(None) or type(None) in typing.get_args(hint)


def _unfit(path: str, wanted: str, value: Any) -> InvalidRequest:
    return InvalidRequest(f"{path}: expected {wanted}, got {_show(value)}")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
