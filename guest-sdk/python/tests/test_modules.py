"""What each module makes of the host's answers, and what it hands to the host."""

from __future__ import annotations

import copy
import csv
import datetime
import gc
import io
import json
import pathlib
import pickle
import shutil
import subprocess
import sys
import unittest
import unittest.mock
import zipfile
from decimal import Decimal

import wit_world
from wit_world.imports.net import Request, Response

import leasehold
from leasehold import calls, delegate, events, fs, job, metrics, model, net, output, tool

AT = datetime.datetime(2026, 5, 13, 19, 30, 0, 20_000, tzinfo=datetime.timezone.utc)


class WithHost(unittest.TestCase):
    def setUp(self) -> None:
        self.host = wit_world.reset()


class Errors(WithHost):
    def test_each_code_has_a_class_of_its_own_that_survives_a_copy(self) -> None:
        classes = set()
        for code in leasehold.Code:
            error = leasehold.Error(code, "what happened")
            self.assertEqual((error.code, error.message, str(error)), (code, "what happened", f"{code}: what happened"))
            for other in (copy.copy(error), pickle.loads(pickle.dumps(error)), type(error)("what happened")):
                self.assertEqual((type(other), other.code, other.message), (type(error), code, "what happened"))
            classes.add(type(error))
        self.assertEqual(len(classes), 18)
        self.assertNotIn(leasehold.Error, classes)

    def test_a_refusal_is_the_exception_that_python_users_expect(self) -> None:
        for code, builtin in [
            ("PERMISSION_DENIED", PermissionError),
            ("NOT_FOUND", FileNotFoundError),
            ("ALREADY_EXISTS", FileExistsError),
            ("NOT_A_DIRECTORY", NotADirectoryError),
            ("NOT_A_FILE", IsADirectoryError),
            ("NOT_EMPTY", OSError),
            ("TOO_LARGE", OSError),
            ("TIMEOUT", TimeoutError),
            ("INVALID_REQUEST", ValueError),
            ("AGENT_NOT_AVAILABLE", LookupError),
        ]:
            self.host.refusals["/x"] = (code, "refused")
            with self.assertRaises(builtin) as caught:
                fs.read("/x")
            self.assertIsInstance(caught.exception, leasehold.Error)
            self.assertIsNone(caught.exception.__context__, "a traceback shows one error")
            if issubclass(builtin, OSError):
                self.assertTrue(caught.exception.errno)

    def test_some_end_the_job(self) -> None:
        ending = [code.name for code in leasehold.Code if leasehold.Error(code, "").ends_the_job]
        self.assertEqual(ending, ["LEASE_EXPIRED", "BUDGET_EXHAUSTED", "CANCELLED"])

    def test_one_is_made_from_a_code_and_a_message(self) -> None:
        for arguments in [(), ("not-found",), ("not-found", "a", "b")]:
            with self.assertRaises(TypeError):
                leasehold.Error(*arguments)
        with self.assertRaises(ValueError):
            leasehold.Error("NOT_FOUND", "spelt as the wire does")


class Files(WithHost):
    def setUp(self) -> None:
        super().setUp()
        self.host.folders |= {"/w", "/w/a", "/w/b", "/w/d"}
        self.host.files |= {"/w/a/x.txt": b"x", "/w/c.txt": "größe\r\nzwei\n".encode(), "/w/d/y.txt": b"\xff"}

    def test_are_read_and_described(self) -> None:
        self.assertEqual(fs.read("/w/a/x.txt"), b"x")
        self.assertEqual(fs.read_text(pathlib.PurePosixPath("/w/c.txt")), "größe\r\nzwei\n")
        self.assertEqual(fs.read_text("/w/d/y.txt", "latin-1"), "ÿ")
        with self.assertRaisesRegex(leasehold.InvalidRequest, "/w/d/y.txt is not UTF-8"):
            fs.read_text("/w/d/y.txt")
        self.assertEqual(fs.read_range("/w/c.txt", 1, 2), b"r\xc3")
        self.assertEqual(fs.stat("/w/a/x.txt"), fs.Stat(fs.Kind.FILE, 1, AT))
        self.assertEqual((fs.exists("/w/a"), fs.exists("/w/e")), (True, False))
        for wrong in [lambda: fs.read_range("/w/c.txt", -1, 2), lambda: fs.read("/nothing")]:
            self.assertRaises(leasehold.Error, wrong)
        self.assertRaises(TypeError, fs.read, b"/w/a/x.txt")
        self.assertRaises(TypeError, fs.read, 3)

    def test_are_written(self) -> None:
        fs.write("/w/new", "é")
        fs.append("/w/new", b"!")
        fs.append("/w/new", memoryview(b"?"))
        self.assertEqual(self.host.files["/w/new"], "é!?".encode())
        fs.mkdir("/w/made")
        self.assertRaises(FileExistsError, fs.mkdir, "/w/made")
        fs.remove("/w/made")
        self.assertNotIn("/w/made", self.host.folders)
        self.assertRaises(TypeError, fs.write, "/w/new", 3)

    def test_are_read_in_parts(self) -> None:
        size = 1_000_000
        self.host.files["/digits"] = bytes(b"0123456789" * (size // 10))
        with fs.open("/digits", "rb") as file:
            self.assertEqual(file.read(3), b"012")
            for offset, whence, position, expected in [
                (3, 0, 3, b"345"),
                (1, 1, 7, b"789"),
                (-8, 1, 2, b"234"),
                (-2, 2, size - 2, b"89"),  # shorter at the end
                (5, 2, size + 5, b""),  # beyond the end
                (262_143, 0, 262_143, b"345"),
            ]:
                self.assertEqual(file.seek(offset, whence), position)
                self.assertEqual(file.read(3), expected)
            self.assertRaises(ValueError, file.seek, -1)
            file.seek(0)
            self.host.told.clear()
            self.assertEqual(len(file.read()), size)
        lengths = [told[2] for told in self.host.told]
        self.assertLess(len(lengths), 10, "a large file is not read in small parts")

    def test_are_read_as_lines_of_text(self) -> None:
        with fs.open("/w/c.txt") as file:
            self.assertEqual(list(file), ["größe\n", "zwei\n"])
        with fs.open("/w/c.txt", newline="") as file:
            self.assertEqual(file.readline(), "größe\r\n")
        self.assertRaises(leasehold.NotAFile, fs.open, "/w")
        self.assertRaises(FileNotFoundError, fs.open, "/nothing")
        with self.assertRaisesRegex(ValueError, "leasehold.fs.write"):
            fs.open("/w/c.txt", "w")

    def test_are_walked_through_downwards_and_past_what_cannot_be_entered(self) -> None:
        self.host.refusals["/w/b"] = ("PERMISSION_DENIED", "not b")
        errors: list[str] = []
        walk = fs.walk("/w", enter=lambda at: at.name != "d", on_error=lambda error: errors.append(error.message))
        self.assertEqual([entry.path for entry in walk], ["/w/a", "/w/a/x.txt", "/w/b", "/w/c.txt", "/w/d"])
        self.assertEqual(errors, ["not b"])
        walk = fs.walk("/w/")
        self.assertEqual([next(walk).path for _ in range(3)], ["/w/a", "/w/a/x.txt", "/w/b"])
        self.assertRaises(PermissionError, next, walk)
        self.assertEqual([(entry.name, entry.is_dir, entry.is_file, entry.size) for entry in fs.list("/w")][2:],
                         [("c.txt", False, True, 14), ("d", True, False, 0)])  # fmt: skip


class Telling(WithHost):
    def test_events(self) -> None:
        events.debug("d")
        events.info(7)
        events.warn(leasehold.NotFound("x"))
        events.error("é\ud800")
        events.thought("so")
        events.status("files")
        events.progress(1, 4, units="steps", message="m")
        events.vendor("x-vendor.a.b", {"n": Decimal("1.50")})
        self.assertEqual(
            self.host.told,
            [
                ("debug", "d"), ("info", "7"), ("warn", "not-found: x"), ("error", "é?"), ("thought", "so"),
                ("status", "files", None), ("progress", 1, 4, "steps", "m"), ("vendor", "x-vendor.a.b", '{"n":"1.50"}'),
            ],
        )  # fmt: skip
        self.assertRaises(leasehold.InvalidRequest, events.status, "back_pressure")
        self.assertRaises(leasehold.InvalidRequest, events.progress, -1)
        self.assertRaises(leasehold.InvalidRequest, events.vendor, "x-vendor.a.b", object())
        events.artifact("file:///a", "text/plain", byte_size=3)
        artifact = self.host.told[-1][1]
        self.assertEqual((artifact.uri, artifact.byte_size, artifact.sha256), ("file:///a", 3, None))

    def test_figures_are_exact(self) -> None:
        for value, expected in [
            (3, "3"),
            (12.5, "12.5"),
            (0.1, "0.1"),
            (1e-7, "0.0000001"),
            (1e22, "10000000000000000000000"),
            ("0.0234", "0.0234"),
            (Decimal("1E-3"), "0.001"),
            (-2, "-2"),
        ]:
            metrics.metric("name", value, unit="u", dimensions={"k": "v"})
            self.assertEqual(self.host.told[-1], ("metric", "name", expected, "u", [("k", "v")]))
        for wrong in [float("nan"), float("inf"), "Infinity", "much", ""]:
            self.assertRaises(leasehold.InvalidRequest, metrics.metric, "name", wrong)

    def test_money_is_no_float(self) -> None:
        metrics.cost("inference", Decimal("0.25"), "USD")
        self.assertEqual(self.host.told, [("metric", "cost.inference", "0.25", "USD", [])])
        self.assertRaises(TypeError, metrics.cost, "inference", 0.25, "USD")
        self.assertRaises(TypeError, metrics.metric, "cost.inference", 0.25)

    def test_a_job_knows_itself(self) -> None:
        self.assertEqual(job.budget(), {"USD": Decimal("0.75")})
        self.assertIsNone(job.expires_at())
        self.host.expires = "2026-05-13T19:30:00.020Z"
        self.assertEqual(job.expires_at(), AT)
        self.assertEqual((job.agent(), len(job.trace_id()), job.id()[:4]), ("test@1.0.0", 32, "job_"))
        self.assertEqual((job.grants("fs.read"), job.grants("net.fetch")), (["/workspace/**"], []))

    def test_a_job_that_is_cancelled_does_not_sleep_on(self) -> None:
        job.check_cancelled()
        job.sleep(datetime.timedelta(milliseconds=1))
        self.host.cancelled = True
        self.assertRaises(leasehold.Cancelled, job.check_cancelled)
        with unittest.mock.patch("time.sleep") as sleep:
            self.assertRaises(leasehold.Cancelled, job.sleep, 3600)
        self.assertEqual([call.args for call in sleep.mock_calls], [(1.0,)])


class Output(WithHost):
    def sent(self) -> list[int]:
        return [len(told[1]) if len(told) > 1 else -1 for told in self.host.told]

    def test_small_writes_become_few_calls_and_none_is_lost(self) -> None:
        with output.text() as writer:
            for _ in range(3):
                self.assertEqual(writer.write("é" * 30_000), 30_000)
            writer.flush()
            writer.flush()
            print("the end", file=writer, end="")
        self.assertEqual(self.sent(), [90_000, 7, -1])
        self.assertRaises(ValueError, writer.write, "more")
        writer.close()
        self.host.told.clear()
        with output.binary() as binary:
            shutil.copyfileobj(io.BytesIO(b"0" * 100_000), binary, 30_000)
        self.assertEqual(self.sent(), [90_000, 10_000, -1])

    def test_a_writer_is_a_file(self) -> None:
        with output.text() as text:
            csv.writer(text).writerow([1, "é"])
            json.dump({"a": 1}, text)
            self.assertRaises(TypeError, text.write, b"x")
        self.assertEqual(self.host.told, [("text", '1,é\r\n{"a": 1}'), ("finish",)])
        self.host.told.clear()
        with output.binary() as binary:
            with zipfile.ZipFile(binary, "w") as archive:
                archive.writestr("a.txt", "content")
            self.assertRaises(TypeError, binary.write, "x")
        archive = zipfile.ZipFile(io.BytesIO(b"".join(told[1] for told in self.host.told[:-1])))
        self.assertEqual(archive.read("a.txt"), b"content")

    def test_a_result_that_failed_or_was_forgotten_is_not_ended(self) -> None:
        with self.assertRaises(KeyError), output.text() as text:
            text.write("half")
            raise KeyError
        output.text().write("forgotten")
        gc.collect()
        self.assertEqual(self.host.told, [("text", "half"), ("text", "forgotten")])

    def test_a_refusal_reaches_the_agent_as_it_was(self) -> None:
        self.host.refusals["output"] = ("TOO_LARGE", "256 MiB are enough")
        self.assertRaises(leasehold.TooLarge, output.text().write, "x" * 70_000)
        self.assertRaises(leasehold.TooLarge, output.write_bytes, b"x")


class Calls(WithHost):
    def setUp(self) -> None:
        super().setUp()
        for name in "abc":
            self.host.answers[name] = f"answer of {name}"

    def start(self, names: str) -> list[calls.Pending]:  # type: ignore[type-arg]
        return [tool.start(name) for name in names]

    def test_the_first_is_told_by_its_index(self) -> None:
        self.host.order = ["c", "b"]
        started = self.start("abc")
        self.assertEqual(calls.wait_any(started), 2)
        self.assertEqual(started[2].finish(), "answer of c")
        self.assertEqual(calls.wait_any(started[:1], 0.0204), None)
        self.assertEqual(calls.wait_any(started[:1], datetime.timedelta(seconds=2)), None)
        self.assertEqual([told[1] for told in self.host.told], [None, 20, 2000])
        self.assertRaises(leasehold.InvalidRequest, calls.wait_any, [])

    def test_a_call_is_finished_or_dropped_once(self) -> None:
        first, second = self.start("ab")
        self.assertEqual(first.id, "call_a")
        first.finish()
        self.assertRaises(ValueError, first.finish)
        with second:
            pass
        second.drop()
        self.assertRaises(ValueError, calls.wait_any, [second])
        self.assertEqual(self.host.dropped, ["b"])

    def test_all_are_finished_in_their_order(self) -> None:
        self.assertEqual(calls.finish_all(self.start("cab")), ["answer of c", "answer of a", "answer of b"])
        self.host.refusals["a"] = ("TIMEOUT", "too long")
        outcomes = calls.finish_all(self.start("ba"), return_errors=True)
        self.assertEqual((outcomes[0], outcomes[1].code), ("answer of b", leasehold.Code.TIMEOUT))
        self.assertEqual(self.host.dropped, [])
        with self.assertRaises(leasehold.Timeout):
            calls.finish_all(self.start("abc"))
        self.assertEqual(self.host.dropped, ["b", "c"])

    def test_they_come_as_they_end(self) -> None:
        self.host.order = ["c", "a"]
        coming = calls.as_completed(self.start("abc"), timeout=1)
        self.assertEqual([next(coming).finish(), next(coming).finish()], ["answer of c", "answer of a"])
        self.assertRaises(leasehold.Timeout, next, coming)


class Services(WithHost):
    def test_what_the_bindings_cannot_take_is_refused_before_they_trap(self) -> None:
        lone = "\ud800"
        for wrong, expected in [
            (lambda: events.status(7), TypeError),
            (lambda: events.status("x", b""), TypeError),
            (lambda: events.status(lone), leasehold.InvalidRequest),
            (lambda: events.progress(1.5), TypeError),
            (lambda: events.progress(True), TypeError),
            (lambda: events.progress(2**64), leasehold.InvalidRequest),
            (lambda: events.artifact("file:///a", "text/plain", byte_size="3"), TypeError),
            (lambda: metrics.metric("a", 1, dimensions={"a": 1}), TypeError),
            (lambda: fs.read(lone), leasehold.InvalidRequest),
            (lambda: fs.read_range("/a", 0, 2**65), leasehold.InvalidRequest),
            (lambda: output.write_text(lone), leasehold.InvalidRequest),
            (lambda: net.get("http://h/", headers={"a": 1}), TypeError),
            (lambda: net.get("http://h/", headers={lone: "1"}), leasehold.InvalidRequest),
            (lambda: net.request("GET", None), TypeError),
            (lambda: delegate.run("a", lease={"fs.read": [1]}), TypeError),
            (lambda: delegate.run(lone), leasehold.InvalidRequest),
            (lambda: tool.call(3), TypeError),
        ]:
            self.assertRaises(expected, wrong)
        self.assertEqual(self.host.told, [])

    def test_json_that_is_nested_too_deeply_is_refused_before_it_traps(self) -> None:
        for body, outcome in [
            (b"[" * 250 + b"]" * 250, None),
            (b"[" * 251 + b"]" * 251, "nested deeper than 250 levels"),
            (b'{"a":' * 100_000, "nested deeper than 250 levels"),
            (b'["' + b"[" * 1000 + b'\\""' + b",[]" * 1000 + b"]", None),
            (b'"' + b"[" * 9, "Unterminated string"),
            (b"\xff\xff", "codec can't decode"),
        ]:
            self.host.answers["http://h/"] = Response(200, "http://h/", [], body)
            if outcome is None:
                net.get("http://h/").json()
            else:
                with self.assertRaisesRegex(leasehold.InvalidRequest, outcome):
                    net.get("http://h/").json()

    def test_http(self) -> None:
        asked: list[Request] = []

        def answer(request: Request) -> Response:
            asked.append(request)
            headers = [("Content-Type", b"text/plain; charset=latin-1"), ("Set-Cookie", b"a"), ("set-cookie", b"\xe9")]
            return Response(200, request.url, headers, b"\xe9\n")

        self.host.answers["http://h/"] = answer
        page = net.get("http://h/", headers={"x-survey": "yes"}, timeout=1.5)
        self.assertEqual((page.status, page.ok, page.text, page.body), (200, True, "é\n", b"\xe9\n"))
        self.assertEqual(page.headers["content-type"], "text/plain; charset=latin-1")
        self.assertEqual(page.headers.get_all("SET-COOKIE"), ["a", "é"])
        self.assertEqual((len(page.headers), list(page.headers)), (2, ["content-type", "set-cookie"]))
        self.assertNotIn("etag", page.headers)
        self.assertIs(page.successful(), page)
        self.assertEqual(asked[-1], Request("GET", "http://h/", [("x-survey", b"yes")], b"", 10, 1500))
        net.post("http://h/", json={"n": 1}, redirects=0)
        self.assertEqual(
            asked[-1], Request("POST", "http://h/", [("content-type", b"application/json")], b'{"n":1}', 0, None)
        )
        net.request("PUT", "http://h/", json=[], headers=[("Content-Type", "a/b")])
        self.assertEqual(asked[-1].headers, [("Content-Type", b"a/b")])
        net.start("PUT", "http://h/", body="é").finish()
        self.assertEqual(asked[-1].body, "é".encode())
        self.assertRaises(TypeError, net.post, "http://h/", body="x", json=1)

    def test_an_answer_that_is_something_else(self) -> None:
        self.host.answers["http://h/"] = Response(404, "http://h/", [], b"no")
        page = net.get("http://h/")
        with self.assertRaisesRegex(leasehold.InternalError, "http://h/ answered 404"):
            page.successful()
        with self.assertRaisesRegex(leasehold.InvalidRequest, "http://h/: the answer is no JSON"):
            page.json()

    def test_a_response_is_read_as_it_comes(self) -> None:
        body = "größe\r\nzwei\ndrei".encode()
        self.host.answers["http://h/"] = Response(200, "http://h/", [], body)
        with net.stream("GET", "http://h/") as stream:
            self.assertEqual((stream.status, [len(part) for part in stream]), (200, [9, 9]))
        self.assertEqual(self.host.dropped, ["http://h/"])
        self.assertEqual(net.stream("GET", "http://h/").read(), body)
        # The parts meet inside a character or a line, and the lines do not show it.
        for cut in range(len(body)):
            self.host.answers["http://h/"] = Response(200, "http://h/", [], b"x" * max(0, 2 * cut - len(body)) + body)
            lines = list(net.stream("GET", "http://h/").lines())
            self.assertEqual((lines[0].lstrip("x"), lines[1:]), ("größe", ["zwei", "drei"]))

    def test_tools(self) -> None:
        self.assertEqual(tool.list(), [tool.Tool("upper", "makes a text loud", {"type": "object"}, None)])
        self.host.answers["upper"] = lambda asked: {"text": asked["text"].upper()}
        self.assertEqual(tool.call("upper", {"text": "lease"}), {"text": "LEASE"})
        self.assertEqual(tool.start("upper", {"text": "é"}).finish(), {"text": "É"})
        self.host.answers["none"] = lambda asked: asked
        self.assertEqual(tool.call("none"), {})
        self.host.refusals["dear"] = ("BUDGET_EXHAUSTED", "it costs more")
        self.assertRaises(leasehold.BudgetExhausted, tool.call, "dear")

    def test_models(self) -> None:
        asked = []

        def answer(request: dict) -> dict:  # type: ignore[type-arg]
            asked.append(request)
            message = {"role": "assistant", "content": "a few words"}
            return {"choices": [{"message": message}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}

        self.host.answers["m"] = answer
        self.assertEqual(model.list(), ["tier-fast/small"])
        self.assertEqual(model.ask("m", "say", max_tokens=3), "a few words")
        self.assertEqual(asked[-1], {"max_tokens": 3, "messages": [{"role": "user", "content": "say"}]})
        self.assertEqual(model.complete("m", {"messages": []}).tokens, (1, 2))
        self.assertEqual(model.start("m", "say").finish().message["role"], "assistant")
        stream = model.stream("m", "say")
        self.assertEqual("".join(stream.texts()), "a few words ")
        self.assertEqual(stream.finish().text, "a few words")
        self.host.answers["mute"] = {"choices": [{"message": {"content": None}}]}
        self.assertRaises(leasehold.InternalError, model.ask, "mute", "say")
        self.host.answers["empty"] = {}
        empty = model.complete("empty", "say")
        self.assertEqual((empty.text, empty.message, empty.tokens), (None, {}, None))

    def test_other_agents(self) -> None:
        asked = []
        self.host.answers["echo"] = lambda task: asked.append(task) or json.loads(task.input)
        self.assertEqual(delegate.run("echo", {"from": "é"}, budget="USD:0.10"), {"from": "é"})
        self.assertEqual(asked[-1].lease, [("cost.budget", ["USD:0.10"])])
        task = delegate.task(
            "echo", lease={"fs.read": ("/a", "/b"), "net.fetch": "https://h/**"}, expires_at=AT, max_runtime=0.2
        )
        self.assertIsNone(task.start().finish())
        self.assertEqual(asked[-1].lease, [("fs.read", ["/a", "/b"]), ("net.fetch", ["https://h/**"])])
        self.assertEqual((asked[-1].expires_at, asked[-1].max_runtime_sec), ("2026-05-13T19:30:00.020Z", 1))
        with task.watch() as child:
            self.assertEqual(child.job_id[:4], "job_")
            [event] = child
            self.assertEqual((event.kind, event.body["message"], event.ts.hour), ("log", "hello", 19))
            self.assertIsNone(child.finish())
        self.assertEqual(self.host.dropped, [])
        naive = delegate.task("echo", expires_at=datetime.datetime(2026, 1, 1))
        self.assertRaises(ValueError, naive.run)
        self.host.refusals["echo"] = ("LEASE_SUBSET_VIOLATION", "wider")
        self.assertRaises(leasehold.LeaseSubsetViolation, task.run)


class WithoutAHost(unittest.TestCase):
    def test_the_package_is_imported_and_a_call_to_the_host_says_what_is_wrong(self) -> None:
        sdk = pathlib.Path(__file__).parent.parent
        program = """
import leasehold
from leasehold import fs, events, calls, delegate, metrics, model, net, output, tool, job

@leasehold.agent
def run(input): return len(input)

@leasehold.agent
def another(input): return len(input)  # of another module, as tests may import two

assert run("abc") == 3 and "WitWorld" not in globals()
for call in [
    lambda: fs.read("/x"), lambda: events.info("x"), lambda: calls.wait_any([]), lambda: delegate.run("x"),
    lambda: metrics.cost("x", 1, "USD"), lambda: model.ask("m", "x"), lambda: net.get("http://x"),
    lambda: output.write_text("x"), lambda: tool.list(), job.id,
]:
    try:
        call()
    except leasehold.NoHostError as error:
        print(error)
"""
        run = subprocess.run([sys.executable, "-c", program], cwd=sdk, capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        lines = run.stdout.splitlines()
        self.assertEqual(
            lines[0],
            "leasehold.fs needs a host, and this is plain Python: "
            "build the agent with `leasehold build` and run it with `leasehold run`",
        )
        self.assertEqual(len(lines), 10)


if __name__ == "__main__":
    unittest.main()
