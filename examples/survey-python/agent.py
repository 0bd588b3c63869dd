"""Uses everything an agent can touch, in the order that `examples/README.md` gives."""

import time
from dataclasses import dataclass
from decimal import Decimal

import leasehold
from leasehold import calls, delegate, events, fs, job, metrics, model, net, output, tool

MODEL = "tier-fast/small"


@dataclass
class Input:
    url: str = ""
    wait: bool = False


@leasehold.agent
def run(input: Input) -> str:
    if input.wait:
        wait()
    files()
    services(input.url)
    delegation()
    money(input.url)
    return end()


def wait() -> None:
    events.status("waiting")
    while not job.cancel_requested():
        # `job.sleep` would raise as soon as it is asked.
        time.sleep(0.02)
    events.info("cancellation noticed")
    raise leasehold.Cancelled("stopped as asked")


def files() -> None:
    events.info("survey begins")
    events.status("files", "what the lease shows")
    names = [entry.name for entry in fs.list("/workspace/letters")]
    events.info(f"letters: {', '.join(names)}")
    notes = fs.stat("/workspace/notes.md")
    events.info(f"notes.md: {notes.kind}, {notes.size} bytes")
    text = fs.read_text("/workspace/notes.md")
    lines = text.count("\n")
    events.info(f"notes.md: {lines} lines")
    events.info(f"from 2: {fs.read_range('/workspace/notes.md', 2, 5).decode()}")

    fs.write("/outbox/survey.txt", "first\n")
    fs.append("/outbox/survey.txt", "second\n")
    events.info(f"outbox: {len(fs.read('/outbox/survey.txt'))} bytes")
    fs.mkdir("/outbox/made")
    fs.remove("/outbox/made")
    events.info("made and removed")
    events.artifact("file:///outbox/survey.txt", "text/plain", byte_size=13)

    try:
        fs.read("/private/key.txt")
    except leasehold.PermissionDenied as denied:
        events.warn(f"denied: {denied.code}")
    try:
        fs.read("/workspace/missing.md")
    except leasehold.NotFound as missing:
        events.info(f"missing: {missing.code}")
    events.progress(1, 4, units="steps", message="files")


def services(url: str) -> None:
    events.status("services")
    events.thought("the operator offers tools and models")
    events.info(f"tools: {', '.join(found.name for found in tool.list())}")
    events.info(f"upper: {tool.call('upper', {'text': 'lease'})['text']}")
    try:
        tool.call("upper", {})
    except leasehold.Error as refused:
        events.warn(f"refused: {refused.code}")

    page = net.get(f"{url}/page", headers={"x-survey": "yes"})
    events.info(f"page: {page.status}, {page.text}")
    events.info(f"echo: {net.post(f'{url}/echo', json={'n': 1}).json()['n']}")
    events.info(f"missing page: {net.get(f'{url}/missing').status}")

    racers = [net.start("GET", f"{url}/slow"), net.start("GET", f"{url}/fast")]
    events.info(f"first: {calls.wait_any(racers)}")
    slow, fast = racers
    events.info(f"fast: {fast.finish().text}")
    net.get(f"{url}/release")
    events.info(f"slow: {slow.finish().text}")
    with net.start("GET", f"{url}/never") as never:
        in_time = calls.wait_any([never], timeout=0.02) is not None
        events.info(f"in time: {'yes' if in_time else 'no'}")
    with net.stream("GET", f"{url}/parts") as parts:
        events.info(f"parts: {sum(len(part) for part in parts)} bytes")

    events.info(f"models: {', '.join(model.list())}")
    answer = model.ask(MODEL, "say lease", max_tokens=16)
    events.info(f"model: {answer}")
    request = {"messages": [{"role": "user", "content": "say it in parts"}], "max_tokens": 16}
    with model.stream(MODEL, request) as stream:
        told = "".join(stream.texts())
    events.info(f"streamed: {told.rstrip()}")
    events.progress(2, 4, units="steps", message="services")


def delegation() -> None:
    events.status("delegation")
    echoed = delegate.run("echo", {"from": "survey"}, budget="USD:0.10")
    events.info(f"echo: {echoed['from']}")
    started = delegate.start("echo", {"from": "start"}, budget="USD:0.10")
    calls.wait_any([started])
    events.info(f"started: {started.finish()['from']}")
    for task in (delegate.task("echo", lease={"fs.read": ["/**"]}), delegate.task("nobody")):
        try:
            task.run()
        except leasehold.Error as refused:
            events.warn(f"refused: {refused.code}")
    events.progress(3, 4, units="steps", message="delegation")


def money(url: str) -> None:
    events.status("money")
    metrics.metric("survey.steps", 3, unit="steps", dimensions={"kind": "done"})
    events.info(f"held: {net.get(f'{url}/hold').text}")
    metrics.cost("inference", "0.25", "USD")
    if job.budget()["USD"] < Decimal("0.76"):
        events.info("budget: less")
    metrics.cost("inference", 5, "USD")
    try:
        fs.read("/workspace/notes.md")
    except leasehold.BudgetExhausted as refused:
        events.warn(f"refused: {refused.code}")


def end() -> str:
    events.vendor("x-vendor.leasehold.survey", {"steps": 26})
    print("printed")
    events.progress(4, 4, units="steps", message="money")
    for line in ("one\n", "two\n", "three\n"):
        output.write_text(line)
    output.finish()
    return "survey complete"
