"""From the text the host sends to the text it gets."""

from __future__ import annotations

import contextlib
import datetime
import enum
import importlib
import io
import json
import logging
import sys
import types
import unittest
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NotRequired, Optional, TypedDict

import wit_world
from componentize_py_types import Err

import leasehold
from leasehold import _agent, output


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Part:
    size: int
    tags: list[str] = field(default_factory=list)


class Options(TypedDict):
    depth: int
    quiet: NotRequired[bool]


@dataclass
class Input:
    name: str
    part: Optional[Part] = None
    parts: list[Part] = field(default_factory=list)
    colour: Colour = Colour.RED
    amount: Decimal = Decimal(0)
    at: datetime.datetime | None = None
    ratio: float = 1.0
    mode: Literal["fast", "slow"] = "fast"
    by_name: dict[str, int] = field(default_factory=dict)
    pair: tuple[int, str] | None = None
    options: Options | None = None
    many: set[int] = field(default_factory=set)
    either: int | str = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: must not be empty")


def component(function: Any, raw: bool = False) -> Any:
    """The export that a module with this function would have."""
    _agent._chosen = None
    leasehold.agent(raw=raw)(function)
    return _agent.WitWorld()


def answer(function: Any, text: str, raw: bool = False) -> str:
    """What the host gets: the result's text, or `code: message`."""
    try:
        return component(function, raw).run(text)
    except Err as error:
        return f"{leasehold.Code[error.value.code.name]}: {error.value.message}"


class AnAgent(unittest.TestCase):
    def setUp(self) -> None:
        self.host = wit_world.reset()

    def test_gets_its_type(self) -> None:
        got: list[Input] = []
        text = json.dumps(
            {
                "name": "Ada", "part": {"size": 2.0, "tags": ["a"]}, "parts": [{"size": 1, "unknown": 0}],
                "colour": "blue", "amount": "0.10", "at": "2026-05-13T21:30:00+02:00", "ratio": 2, "mode": "slow",
                "by_name": {"a": 1}, "pair": [1, "b"], "options": {"depth": 3}, "many": [2, 2], "either": "x",
            }
        )  # fmt: skip
        self.assertEqual(answer(lambda input: None, text), "null")

        def run(input: Input) -> None:
            got.append(input)

        self.assertEqual(answer(run, text), "null")
        at = datetime.datetime(2026, 5, 13, 19, 30, tzinfo=datetime.timezone.utc)
        expected = Input(
            "Ada", Part(2, ["a"]), [Part(1)], Colour.BLUE, Decimal("0.10"), at, 2.0, "slow", {"a": 1}, (1, "b"),
            {"depth": 3}, {2}, "x",
        )  # fmt: skip
        self.assertEqual(got, [expected])
        self.assertIsInstance(got[0].part.size, int)

    def test_says_which_part_of_its_input_does_not_fit(self) -> None:
        def run(input: Input) -> str:
            return input.name

        for text, expected in [
            ('{"name": "Ada"}', '"Ada"'),
            ("{}", "input: name: is missing"),
            ('{"name": 7}', "input: name: expected a string, got 7"),
            ('{"name": ""}', "input: name: must not be empty"),
            ("null", "input: expected an object, got null"),
            ("[]", "input: expected an object, got []"),
            ('{"name": "", "part": 1}', "input: part: expected an object, got 1"),
            ('{"name": "a", "part": {}}', "input: part.size: is missing"),
            ('{"name": "a", "part": {"size": 1.5}}', "input: part.size: expected an integer, got 1.5"),
            ('{"name": "a", "part": {"size": true}}', "input: part.size: expected an integer, got true"),
            ('{"name": "a", "parts": [{"size": 1}, {}]}', "input: parts[1].size: is missing"),
            ('{"name": "a", "parts": {}}', "input: parts: expected a list, got {}"),
            ('{"name": "a", "colour": "green"}', 'input: colour: expected one of "red", "blue", got "green"'),
            ('{"name": "a", "mode": "idle"}', 'input: mode: expected one of "fast", "slow", got "idle"'),
            (
                '{"name": "a", "amount": 0.1}',
                'input: amount: expected an exact number as a string, such as "0.25", got 0.1',
            ),
            (
                '{"name": "a", "at": "tomorrow"}',
                'input: at: expected an instant such as 2026-05-13T19:30:00Z, got "tomorrow"',
            ),
            (
                '{"name": "a", "at": "2026-05-13T19:30:00"}',
                'input: at: expected an instant such as 2026-05-13T19:30:00Z, got "2026-05-13T19:30:00"',
            ),
            ('{"name": "a", "ratio": "1"}', 'input: ratio: expected a number, got "1"'),
            ('{"name": "a", "by_name": {"x": null}}', 'input: by_name["x"]: expected an integer, got null'),
            ('{"name": "a", "pair": [1]}', "input: pair: expected a list of 2, got [1]"),
            ('{"name": "a", "options": {}}', "input: options.depth: is missing"),
            ('{"name": "a", "either": []}', "input: either: [] fits none of int, str"),
            ("{", "input: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
            ('{"name": "' + "x" * 99 + '"} 3', "input: Extra data: line 1 column 113 (char 112)"),
        ]:
            if not expected.startswith('"'):
                expected = f"invalid-request: {expected}"
            self.assertEqual(answer(run, text), expected, text)

    def test_may_take_its_input_in_other_ways(self) -> None:
        def nothing() -> int:
            return 1

        def default(input: Input = Input("nobody")) -> str:
            return input.name

        def optional(input: Part | None) -> bool:
            return input is None

        def plain(input: dict) -> int:  # type: ignore[type-arg]
            return len(input)

        def text(input: str) -> str:
            return input

        for function, input, expected in [
            (nothing, "{}", "1"),
            (default, "null", '"nobody"'),
            (default, '{"name": "Ada"}', '"Ada"'),
            (optional, "null", "true"),
            (optional, '{"size": 1}', "false"),
            (plain, '{"a": 1}', "1"),
            (plain, "[]", "invalid-request: input: expected an object, got []"),
            (text, '"é"', '"é"'),
            (text, "1", "invalid-request: input: expected a string, got 1"),
        ]:
            self.assertEqual(answer(function, input), expected, function.__name__)
        self.assertEqual(answer(lambda text: text.upper(), '{"a":1.10}', raw=True), '{"A":1.10}')

    def test_returns_what_has_a_json(self) -> None:
        at = datetime.datetime(2026, 5, 13, 19, 30, tzinfo=datetime.timezone.utc)
        for result, expected in [
            (None, "null"),
            ("é𝄞\0", '"é𝄞\\u0000"'),
            ({"a": [1, 2.5, True]}, '{"a":[1,2.5,true]}'),
            (Part(1, ["x"]), '{"size":1,"tags":["x"]}'),
            ([Part(1)], '[{"size":1,"tags":[]}]'),
            (Decimal("0.10"), '"0.10"'),
            (Decimal("1E+3"), '"1000"'),
            ({"at": at, "colour": Colour.RED}, '{"at":"2026-05-13T19:30:00+00:00","colour":"red"}'),
            ({3, 1, 2}, "[1,2,3]"),
            (leasehold.Code.TIMEOUT, '"timeout"'),
            (b"x", "internal-error: result: a value of type bytes has no JSON"),
            ("\ud800", "internal-error: result: 'utf-8' codec can't encode character '\\ud800' in position 1:"),
            (float("nan"), "internal-error: result: Out of range float values are not JSON compliant"),
        ]:
            self.assertTrue(answer(lambda input: result, "null").startswith(expected), expected)

    def test_ends_the_job_with_the_error_it_raises(self) -> None:
        def refused(input: Any) -> None:
            leasehold.fs.read("/private/key.txt")

        def own(input: Any) -> None:
            raise leasehold.Error(leasehold.Code.TOO_LARGE, "too much")

        self.host.refusals["/private/key.txt"] = ("PERMISSION_DENIED", "the lease grants no fs.read on it")
        self.assertEqual(answer(refused, "null"), "permission-denied: the lease grants no fs.read on it")
        self.assertEqual(answer(own, "null"), "too-large: too much")
        self.assertEqual(self.host.told, [])

    def test_logs_any_other_exception_with_its_traceback(self) -> None:
        def helper() -> None:
            raise ValueError("no chapter 7\nnor 8")

        def run(input: Any) -> None:
            helper()

        self.assertEqual(answer(run, "null"), "internal-error: ValueError: no chapter 7\nnor 8")
        [(level, trace)] = self.host.told
        self.assertEqual(level, "error")
        lines = trace.splitlines()
        self.assertEqual(lines[0], "Traceback (most recent call last):")
        self.assertIn("in run", lines[1])  # and not the SDK's own frames
        self.assertEqual(lines[-2:], ["ValueError: no chapter 7", "nor 8"])

    def test_is_ended_by_no_exception_of_another_kind(self) -> None:
        def recursive(input: Any) -> None:
            recursive(input)

        for raised, expected in [
            (SystemExit(3), "SystemExit: 3"),
            (KeyboardInterrupt(), "KeyboardInterrupt"),
            (ExceptionGroup("two", [ValueError(1)]), "ExceptionGroup: two (1 sub-exception)"),
            (json.JSONDecodeError("no", "", 0), "json.decoder.JSONDecodeError: no: line 1 column 1 (char 0)"),
            (RuntimeError("\ud800"), "RuntimeError: ?"),
        ]:

            def run(input: Any) -> None:
                raise raised

            self.assertEqual(answer(run, "null"), f"internal-error: {expected}")
        self.assertTrue(answer(recursive, "null").startswith("internal-error: RecursionError: maximum recursion depth"))

    def test_is_one_function_that_is_not_async(self) -> None:
        async def waits(input: Any) -> None: ...

        with self.assertRaisesRegex(TypeError, "no async function"):
            component(waits)
        with self.assertRaisesRegex(TypeError, "an agent takes one"):
            component(lambda a, b: None)
        component(lambda input: None)
        with self.assertRaisesRegex(TypeError, "agent of this component already"):
            leasehold.agent(lambda input: None)
        _agent._chosen = None
        with self.assertRaisesRegex(TypeError, "no function is marked"):
            _agent.WitWorld()

    def test_is_found_in_its_module_and_in_the_packages_above_it(self) -> None:
        _agent._chosen = None
        above, module = types.ModuleType("pack"), types.ModuleType("pack.agent")
        sys.modules |= {"pack": above, "pack.agent": module}
        exec("import leasehold\n@leasehold.agent\ndef run(input): return input", module.__dict__)
        self.assertIs(module.WitWorld, _agent.WitWorld)
        self.assertIs(above.WitWorld, _agent.WitWorld)
        self.assertEqual(module.run(3), 3)


class WhatPythonTells(unittest.TestCase):
    def setUp(self) -> None:
        self.host = wit_world.reset()
        self.root = logging.getLogger()
        self.before = self.root.handlers[:], self.root.level
        self.root.handlers.clear()
        self.root.setLevel(logging.WARNING)

    def tearDown(self) -> None:
        self.root.handlers[:], level = self.before
        self.root.setLevel(level)
        sys.meta_path[:] = [finder for finder in sys.meta_path if "_Explanation" not in repr(finder)]

    def test_logging_becomes_log_events(self) -> None:
        def run(input: Any) -> None:
            log = logging.getLogger("some.module")
            log.debug("hidden")
            log.info("%d files", 3)
            log.warning("careful \ud800")
            try:
                raise ValueError("v")
            except ValueError:
                log.exception("failed")
            log.critical("worse")

        self.assertEqual(answer(run, "null"), "null")
        told = [(level, message.splitlines()[0], message.splitlines()[-1]) for level, message in self.host.told]
        self.assertEqual(
            told,
            [
                ("info", "3 files", "3 files"),
                ("warn", "careful ?", "careful ?"),
                ("error", "failed", "ValueError: v"),
                ("error", "worse", "worse"),
            ],
        )

    def test_the_level_and_format_of_basic_config_stay(self) -> None:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")

        def run(input: Any) -> None:
            logging.debug("seen")

        answer(run, "null")
        self.assertEqual(self.host.told, [("debug", "DEBUG seen")])

    def test_handlers_of_the_agents_own_are_let_be(self) -> None:
        kept = io.StringIO()
        logging.getLogger().addHandler(logging.StreamHandler(kept))
        answer(lambda input: logging.error("kept"), "null")
        self.assertEqual((self.host.told, kept.getvalue()), ([], "kept\n"))

    def test_print_is_told_line_by_line(self) -> None:
        told = io.BytesIO()
        seen: list[bytes] = []

        def run(input: Any) -> None:
            print("one")
            seen.append(told.getvalue())
            print("two", end="")

        with contextlib.redirect_stdout(io.TextIOWrapper(told, write_through=False)) as stream:
            answer(run, "null")
            self.assertEqual((seen, told.getvalue()), ([b"one\n"], b"one\ntwo"))
            stream.detach()

    def test_standard_output_may_be_closed_or_something_else(self) -> None:
        for stream in [io.StringIO(), io.TextIOWrapper(io.BytesIO()), None]:

            def run(input: Any) -> int:
                if sys.stdout is not None:
                    sys.stdout.close()
                return 1

            with contextlib.redirect_stdout(stream):
                outcomes = [answer(run, "null"), answer(lambda input: 2, "null")]
            self.assertEqual(outcomes, ["1", "2"])

    def test_an_import_that_comes_too_late_says_so(self) -> None:
        def run(input: Any) -> None:
            importlib.import_module("no_such_module")

        self.assertEqual(
            answer(run, "null"),
            "internal-error: ModuleNotFoundError: No module named 'no_such_module': "
            "a component imports nothing while it runs; import it at the top of the module",
        )

    def test_a_streamed_result_has_a_summary(self) -> None:
        def run(input: Any) -> str:
            with output.text() as report:
                print("a line", file=report)
            return "one line"

        self.assertEqual(answer(run, "null"), '"one line"')
        self.assertEqual(self.host.told, [("text", "a line\n"), ("finish",)])
