"""From a Python function to the export the host calls."""

from __future__ import annotations

import contextlib
import inspect
import io
import linecache
import re
import sys
import traceback
import typing
from collections.abc import Callable
from typing import Any, TypeVar, overload

from . import _host, _json, _late, _logging, events
from ._error import Error, InternalError, InvalidRequest

F = TypeVar("F", bound=Callable[..., Any])

# The function that is the agent of this component.
_chosen: Agent | None = None

# componentize-py numbers the folders of the module path, and in a component those numbers are all that is left of them.
_NUMBERED = re.compile(r'File "/\d+/')


@overload
def agent(function: F, /) -> F: ...
@overload
def agent(*, raw: bool = False) -> Callable[[F], F]: ...


def agent(function: F | None = None, /, *, raw: bool = False) -> F | Callable[[F], F]:
    """Makes a function the agent of this component.

        @dataclass
        class Input:
            name: str
            tags: list[str] = field(default_factory=list)

        @leasehold.agent
        def run(input: Input) -> dict:
            return {"greeting": f"Hello, {input.name}!"}

    The annotation of its one parameter says what the input must be: a dataclass or TypedDict of any depth, with
    `Optional`, lists, dicts, enums, `Decimal` (a string or an integer in JSON) and `datetime`; `dict`, or nothing,
    takes it as it comes. An input that does not fit ends the job with `invalid-request` and `input: FIELD: …`; fields
    that nothing asks for are let be. A parameter with a default gets it for an input of `null`, and a function without
    a parameter ignores the input.

    It returns anything that has a JSON: dicts, lists, texts, numbers, dataclasses, enums, `Decimal` and `datetime` (as
    texts). After `leasehold.output` was used it returns None or a str, the summary of a streamed result (ARCP §8.4).

    A `leasehold.Error` that it raises ends the job with that code and message. Any other exception is logged at `error`
    with its traceback, and ends the job with `internal-error` and its last line.

    With `@leasehold.agent(raw=True)` the function takes and gives JSON as text, untouched.

    The function itself stays as it was, so tests can call it. The module it stands in is the component's
    (`[tool.leasehold] module`, `agent` by default), or one that module imports.
    """
    if function is None:
        return lambda function: _choose(function, raw)
    return _choose(function, raw)


def _choose(function: F, raw: bool) -> F:
    global _chosen
    if inspect.iscoroutinefunction(function):
        raise TypeError("an agent is no async function; leasehold.calls has several calls under way at once")
    if _chosen is not None and _host.PRESENT:
        raise TypeError(f"{_chosen.name} is the agent of this component already, and {function.__name__} cannot be too")
    _chosen = Agent(function, raw)
    # componentize-py looks for the class in the module it was given: this one, or the package it stands in.
    if _host.PRESENT:
        names = function.__module__.split(".")
        for end in range(1, len(names) + 1):
            module = sys.modules.get(".".join(names[:end]))
            if module is not None:
                setattr(module, "WitWorld", WitWorld)
    return function


class Agent:
    """A function, what it takes, and how it is called."""

    def __init__(self, function: Callable[..., Any], raw: bool) -> None:
        self.name = function.__name__
        self._function, self._raw = function, raw
        parameters = list(inspect.signature(function).parameters.values())
        self._parameter = parameters[0] if parameters else None
        if len(parameters) > 1 and any(other.default is other.empty for other in parameters[1:]):
            raise TypeError(f"{self.name} takes {len(parameters)} parameters, and an agent takes one: its input")
        self._wanted: Any = None

    def prepare(self) -> None:
        """Resolves the annotation, once everything in its module is defined."""
        if self._parameter is not None and self._wanted is None:
            hints = typing.get_type_hints(self._function, include_extras=True)
            self._wanted = hints.get(self._parameter.name, Any)

    def answer(self, text: str) -> str:
        """Calls the function with an input and gives its result, both as JSON."""
        if self._parameter is None:
            result = self._function()
        elif self._raw:
            return str(self._function(text))
        else:
            value = self._parse(text)
            if value is None and self._parameter.default is not self._parameter.empty:
                result = self._function()
            else:
                self.prepare()
                result = self._function(_json.fit(value, self._wanted, "input"))
        try:
            return _json.dumps(result)
        except InvalidRequest as error:
            raise InternalError(f"result: {error.message}") from None

    @staticmethod
    def _parse(text: str) -> Any:
        try:
            return _json.loads(text)
        except InternalError as error:
            raise InvalidRequest(f"input: {error.message.removeprefix('the answer is no JSON: ')}") from None


class WitWorld:
    """What componentize-py exports: it makes one while it builds the component, and calls `run` for each job."""

    def __init__(self) -> None:
        if _chosen is None:
            raise TypeError("no function is marked with @leasehold.agent")
        _chosen.prepare()
        _late.load()
        _remember_sources()

    def run(self, input: str) -> str:
        """Does one job."""
        assert _chosen is not None
        for stream in (sys.stdout, sys.stderr):
            # A line is told when it is complete, so that it stands among the events where it belongs. An agent's module
            # may have put something else there.
            if isinstance(stream, io.TextIOWrapper) and not stream.closed:
                stream.reconfigure(line_buffering=True, errors="backslashreplace")
        _logging.install()
        _late.explain()
        try:
            return _chosen.answer(input)
        except Error as error:
            raise _host.err(error) from None
        except BaseException as error:  # SystemExit among them: there is no process that could end
            events.error(_trace(error))
            raise _host.err(InternalError(_last_line(error))) from None
        finally:
            for stream in (sys.stdout, sys.stderr):
                # The agent may have closed it, or set it to None.
                with contextlib.suppress(AttributeError, ValueError):
                    stream.flush()


def _trace(error: BaseException) -> str:
    """The traceback as text, from the agent's own function on."""
    # The first two are `run` and `answer` above, which say nothing to whoever reads it.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames or error.__traceback__)
    return _NUMBERED.sub('File "', "".join(lines)).rstrip()


def _last_line(error: BaseException) -> str:
    """What a traceback ends with: the kind of the exception and what it says."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return f"{name}: {error}" if str(error) else name


def _remember_sources() -> None:
    """Keeps the lines of the loaded modules that are no part of Python, for tracebacks: a component has no files."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and _NUMBERED.match(f'File "{file}'):
            lines = linecache.getlines(file)
            # Without a time of change the entry is taken as it is and never looked up again.
            linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
