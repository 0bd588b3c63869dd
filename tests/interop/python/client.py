"""What a program written against the SDK from PyPI does with a Leasehold host.

    client.py SCENARIO --token TOKEN --url URL
    client.py SCENARIO --token TOKEN --data DIR --stdio PROGRAM ARGUMENT...

Every scenario is a function below. It says what must be true with `assert`,
and a scenario that returns something prints it as one JSON document. Nothing
may wait for ever: the SDK has calls without a timeout of their own, so the
whole scenario has one.
"""

import argparse
import asyncio
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta

from arcp import (
    AgentNotAvailableError,
    AgentVersionNotAvailableError,
    ARCPError,
    ClientInfo,
    DuplicateKeyError,
    InternalError,
    InvalidRequestError,
    JobNotFoundError,
    LeaseConstraints,
    LeaseSubsetViolationError,
    ListJobsFilter,
    PermissionDeniedError,
    ResumeWindowExpiredError,
    SessionResume,
    StdioTransport,
    TransportClosed,
    UnauthenticatedError,
    WebSocketTransport,
)
from arcp.client import ARCPClient, AutoAckOptions

TIMEOUT_SEC = 50

# The longest line of a host's: a result in one message, every character of it escaped.
LINE_BYTES_MAX = 8 << 20


async def connects(client, welcome):
    assert welcome.runtime.name == "leasehold", welcome.runtime
    assert welcome.session_id and welcome.resume_token
    assert client.session_id == welcome.session_id
    agents = {agent.name: agent for agent in welcome.capabilities.agents}
    assert {"chatty", "echo", "hello-rust", "sleeper", "summarize-files"} <= set(agents), agents
    assert agents["echo"].versions == ("1.0.0",) and agents["echo"].default == "1.0.0"
    assert {"heartbeat", "list_jobs", "cost.budget", "progress", "result_chunk"} <= set(client.negotiated_features)
    job = await client.submit(agent="hello-rust@1.0.0", input={"name": "Python"})
    assert job.agent_ref == "hello-rust@1.0.0" and job.trace_id and job.lease == {}
    done = await job.done
    assert done.final_status == "success" and done.result == {"greeting": "Hello, Python!"}, done


async def values(client, _welcome):
    for value in [
        None, True, 0, -1, 1.5, "", [], {},
        2**53 + 1, -(2**63), 2**64 - 1, 10**40,  # none of which a double holds
        1e-7, 1.7976931348623157e308,
        "ä€𝄞 \u0000\u001f\u007f\u2028\ud7ff", "\\\"/\b\f\n\r\t", "x" * 100_000,
        {"": {"a b": [[[[{"ключ": [None, {"值": False}]}]]]]}},
        [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],
        {str(key): key for key in range(1000)},
    ]:
        job = await client.submit(agent="echo", input=value)
        done = await job.done
        assert done.final_status == "success", done
        assert done.result == value and type(done.result) is type(value), (str(value)[:80], str(done.result)[:80])


async def events(client, _welcome):
    job = await client.submit(agent="chatty", input={"count": 1000})
    seen = [event async for event in job.events()]
    logs = [event["body"]["message"] for event in seen if event["kind"] == "log"]
    assert logs == [f"event {n}" for n in range(1, 1001)], logs[:5]
    assert all(event["body"]["level"] == "info" for event in seen if event["kind"] == "log")
    assert (await job.done).result == {"count": 1000}
    # ARCP §8.3: dense from 1, over the end of the job too.
    assert client.latest_event_seq == len(seen) + 1, (client.latest_event_seq, len(seen))


async def streams(client, _welcome):
    job = await client.submit(
        agent="summarize-files",
        input={"path": "/workspace"},
        lease_request={"fs.read": ["/workspace/**"], "cost.budget": ["USD:0.05"]},
    )
    assert job.budget == {"USD": "USD:0.05"}, job.budget
    report = await job.collect_chunks()
    done = await job.done
    assert done.final_status == "success" and done.result is None and done.result_id
    assert done.result_size == len(report), (done.result_size, len(report))
    return {"sha256": hashlib.sha256(report).hexdigest(), "size": len(report), "summary": done.summary}


async def spends(client, _welcome):
    job = await client.submit(
        agent="summarize-files",
        input={"path": "/workspace", "price_per_file": "0.01"},
        lease_request={"fs.read": ["/workspace/**"], "cost.budget": ["USD:0.05"]},
    )
    seen = [event async for event in job.events()]
    metrics = [event["body"] for event in seen if event["kind"] == "metric"]
    costs = [metric["value"] for metric in metrics if metric["name"] == "cost.scan"]
    left = [metric["value"] for metric in metrics if metric["name"] == "cost.budget.remaining"]
    assert costs and all(cost == 0.01 for cost in costs), metrics
    assert left and left == sorted(left, reverse=True) and left[-1] >= 0, metrics
    assert all(metric["unit"] == "USD" for metric in metrics), metrics
    progress = [event["body"] for event in seen if event["kind"] == "progress"]
    assert progress and all(body["current"] <= body["total"] for body in progress), progress
    assert (await job.done).final_status == "success"


async def refusals(client, _welcome):
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    for error, submission in [
        (AgentNotAvailableError, {"agent": "nobody"}),
        (AgentVersionNotAvailableError, {"agent": "echo@9.9.9"}),
        (LeaseSubsetViolationError, {"agent": "echo", "lease_request": {"fs.read": ["/etc/**"]}}),
        (LeaseSubsetViolationError, {"agent": "echo", "lease_request": {"fs.write": ["/workspace/**"]}}),
        (InvalidRequestError, {"agent": "echo", "lease_request": {"fs.read": ["/workspace/../etc/**"]}}),
        (InvalidRequestError, {"agent": "echo", "lease_request": {"cost.budget": ["a lot"]}}),
        (InvalidRequestError, {"agent": "echo", "lease_constraints": LeaseConstraints(expires_at=past)}),
    ]:
        try:
            await client.submit(**submission)
        except error as refused:
            assert str(refused), submission
            assert refused.retryable is (error is AgentNotAvailableError), (submission, refused)
        else:
            raise AssertionError(f"{submission} was accepted")
    # A refusal ends nothing but its request.
    assert (await (await client.submit(agent="echo", input=1)).done).result == 1


async def unauthenticated(client, _welcome, connect):
    stranger = client_with("a wrong token")
    try:
        await stranger.connect(await connect())
    except UnauthenticatedError as refused:
        assert refused.retryable is False
    else:
        raise AssertionError("a wrong token was accepted")
    finally:
        await stranger.close()
    assert (await (await client.submit(agent="echo", input=1)).done).result == 1


async def denied(client, _welcome):
    job = await client.submit(
        agent="summarize-files",
        input={"path": "/workspace", "try_outside": "/etc/passwd"},
        lease_request={"fs.read": ["/workspace/**"]},
    )
    seen = [event async for event in job.events()]
    calls = {event["body"]["call_id"]: event["body"] for event in seen if event["kind"] == "tool_call"}
    results = [event["body"] for event in seen if event["kind"] == "tool_result"]
    assert {result["call_id"] for result in results} == set(calls)
    refused = [result for result in results if result.get("error")]
    assert len(refused) == 1, refused
    assert refused[0]["error"]["code"] == "PERMISSION_DENIED", refused
    assert calls[refused[0]["call_id"]]["args"]["path"] == "/etc/passwd", calls
    # The agent was told, went on, and succeeded.
    assert (await job.done).final_status == "success"


async def fails(client, _welcome):
    for error, agent, submission in [
        (InvalidRequestError, "hostile", {"input": {"do": "fail", "code": "invalid-request", "message": "my own"}}),
        (PermissionDeniedError, "hostile", {"input": {"do": "fail", "code": "permission-denied", "message": "my own"}}),
        (InternalError, "hostile", {"input": {"do": "trap"}}),
        (PermissionDeniedError, "summarize-files", {"input": {"path": "/workspace"}}),
        (InvalidRequestError, "sleeper", {"input": {"sec": "soon"}}),
    ]:
        job = await client.submit(agent=agent, **submission)
        try:
            done = await job.done
        except error as failed:
            assert "my own" in str(failed) or submission["input"].get("message") is None, failed
        else:
            raise AssertionError(f"{submission} ended with {done}")
        # Its events end too, so that a loop over them does.
        assert all(event["kind"] for event in [event async for event in job.events()])


async def cancels(client, _welcome):
    job = await client.submit(agent="sleeper", input={"sec": 600})
    await client.cancel_job(job.job_id, reason="changed my mind")
    done = await job.done
    assert done.final_status == "cancelled" and done.result is None, done
    # Again, when it is over.
    await client.cancel_job(job.job_id)
    listed = await client.list_jobs(filter=ListJobsFilter(status=("cancelled",)))
    assert [entry.job_id for entry in listed.jobs] == [job.job_id], listed


async def times_out(client, _welcome):
    job = await client.submit(agent="sleeper", input={"sec": 600}, max_runtime_sec=1)
    done = await job.done
    assert done.final_status == "timed_out" and done.result is None, done


async def lists(client, _welcome):
    jobs = [await client.submit(agent="echo", input=n) for n in range(5)]
    for job in jobs:
        await job.done
    sleeper = await client.submit(agent="sleeper", input={"sec": 600})
    listed = await client.list_jobs()
    expected = [job.job_id for job in [*jobs, sleeper]]
    assert [entry.job_id for entry in reversed(listed.jobs)] == expected, listed
    by_status = {entry.job_id: entry.status for entry in listed.jobs}
    assert by_status.pop(sleeper.job_id) == "running" and set(by_status.values()) == {"success"}, listed
    only = await client.list_jobs(filter=ListJobsFilter(agent="sleeper", status=("pending", "running")))
    assert [entry.job_id for entry in only.jobs] == [sleeper.job_id], only
    pages, cursor = [], None
    while True:
        page = await client.list_jobs(limit=2, cursor=cursor)
        assert len(page.jobs) <= 2
        pages += [entry.job_id for entry in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert pages == list(reversed(expected)), pages
    await client.cancel_job(sleeper.job_id)
    assert (await sleeper.done).final_status == "cancelled"


async def stays_alive(client, welcome):
    # The host pings, the SDK answers; without the answers the host would hang up after two intervals.
    assert welcome.heartbeat_interval_sec == 1, welcome
    job = await client.submit(agent="sleeper", input={"sec": 4})
    assert (await job.done).result == {"slept": 4}


async def interleaves(client, _welcome):
    slow = await client.submit(agent="chatty", input={"count": 40, "delay_ms": 20})
    fast = await client.submit(agent="chatty", input={"count": 10, "delay_ms": 20})
    order = []

    async def read(name, job):
        async for event in job.events():
            order.append((name, event["body"]["message"]))
        return (await job.done).result

    results = await asyncio.gather(read("slow", slow), read("fast", fast))
    assert results == [{"count": 40}, {"count": 10}]
    for name, count in [("slow", 40), ("fast", 10)]:
        assert [text for who, text in order if who == name] == [f"event {n}" for n in range(1, count + 1)]
    # Neither waited for the other's end.
    assert order.index(("slow", "event 40")) > order.index(("fast", "event 10")) > order.index(("slow", "event 1"))


async def many_at_once(client, _welcome):
    async def one(n):
        return (await (await client.submit(agent="echo", input=n)).done).result

    assert await asyncio.gather(*(one(n) for n in range(100))) == list(range(100))


async def repeats(client, _welcome):
    submission = {"agent": "echo", "input": {"n": 1}, "idempotency_key": "the-same"}
    first = await client.submit(**submission)
    assert (await first.done).result == {"n": 1}
    again = await client.submit(**submission)
    assert again.job_id == first.job_id and (await again.done).result == {"n": 1}
    try:
        await client.submit(**{**submission, "input": {"n": 2}})
    except DuplicateKeyError:
        pass
    else:
        raise AssertionError("a key was used for two jobs")


async def watches(client, _welcome, connect):
    job = await client.submit(agent="chatty", input={"count": 200, "delay_ms": 2})
    seen = 0
    async for _event in job.events():
        seen += 1
        if seen == 20:
            break
    other, transport = client_with(client.token), Recorded(await connect())
    await other.connect(transport)
    assert other.session_id != client.session_id
    watched = await other.subscribe(job.job_id, history=True)
    assert watched.replayed and watched.handle.accepted.agent == "chatty@1.0.0", watched
    logs = [event["body"]["message"] async for event in watched.handle.events() if event["kind"] == "log"]
    assert logs == [f"event {n}" for n in range(1, 201)], (len(logs), logs[:3])
    assert (await watched.handle.done).result == {"count": 200} == (await job.done).result
    # One that has ended is told to its end, too, and one that is left is not told on.
    again = await other.subscribe(job.job_id, history=True)
    assert len([event async for event in again.handle.events()]) == len(logs)
    endless = await client.submit(agent="sleeper", input={"sec": 600})
    left = await other.subscribe(endless.job_id)
    assert not left.replayed
    await other.unsubscribe(endless.job_id)
    await client.cancel_job(endless.job_id)
    assert (await endless.done).final_status == "cancelled"
    assert (await (await other.submit(agent="echo", input=1)).done).result == 1
    told = [frame["type"] for frame in transport.frames if frame.get("job_id") == endless.job_id]
    assert told == ["job.subscribed"], told
    await raises(JobNotFoundError, other.subscribe("job_00000000000000000000000000"))
    await other.close()


async def acks(client, _welcome, connect):
    eager = client_with(client.token, auto_ack=AutoAckOptions(every_n=10, interval_sec=0.01))
    transport = Recorded(await connect())
    await eager.connect(transport)
    assert "ack" in eager.negotiated_features
    job = await eager.submit(agent="chatty", input={"count": 500, "delay_ms": 1})
    logs = [event["body"]["message"] async for event in job.events() if event["kind"] == "log"]
    assert logs == [f"event {n}" for n in range(1, 501)], (len(logs), logs[:3])
    assert (await job.done).result == {"count": 500}
    for seq in [0, 10**9, 1]:
        await eager.ack(seq)
    assert (await (await eager.submit(agent="echo", input=1)).done).result == 1
    numbers = [frame["event_seq"] for frame in transport.frames if "event_seq" in frame]
    assert numbers == list(range(1, len(numbers) + 1)), "acks take no number"
    await eager.close()


async def misuse(client, _welcome, connect):
    unconnected = client_with("a token")
    await raises(InternalError, unconnected.submit(agent="echo"))
    await unconnected.close()
    await raises(ValueError, client.submit(agent="not a name"))
    await raises(ValueError, client.submit(agent="echo", max_runtime_sec=0))
    await raises(ValueError, client.submit(agent="echo", idempotency_key=""))
    await raises(TypeError, client.submit(agent="echo", input=object()), also=ValueError)
    # The SDK lets a refusal fail everything that is under way, so nothing is.
    await raises(JobNotFoundError, client.subscribe("job_00000000000000000000000000"))
    await client.unsubscribe("job_00000000000000000000000000")
    await client.ack(10**9)
    # Refused by the host, which the SDK does not wait for; a job that runs is not disturbed.
    job = await client.submit(agent="chatty", input={"count": 3, "delay_ms": 50})
    await client.cancel_job("job_00000000000000000000000000")
    await client.cancel_job("nonsense")
    assert (await job.done).result == {"count": 3}
    # The SDK waits for a listing without a limit of its own and reads no refusal of one: this call must be cut short.
    await raises(TimeoutError, asyncio.wait_for(client.list_jobs(cursor="nonsense"), 1), also=ARCPError)
    assert (await (await client.submit(agent="echo", input=1)).done).result == 1
    await client.close()
    await raises(TransportClosed, client.submit(agent="echo"))
    await client.close()


async def closes(client, _welcome, connect):
    job = await client.submit(agent="sleeper", input={"sec": 600})
    await client.close()
    await raises(TransportClosed, job.done)
    return {"session_id": client.session_id, "job_id": job.job_id}


async def resumes(client, welcome, connect):
    job = await client.submit(agent="chatty", input={"count": 100, "delay_ms": 2})
    seen = 0
    async for _event in job.events():
        seen += 1
        if seen == 10:
            break
    # What has come and was not looked at is as if it had never come.
    await client._transport.close()
    await raises(TransportClosed, job.done)
    token = welcome.resume_token
    for newest, last in [(102, 10), (103, 10), (104, 102)]:
        transport = Recorded(await connect())
        returned = client_with(client.token)
        resume = SessionResume(session_id=welcome.session_id, resume_token=token, last_event_seq=last)
        again = await returned.resume(transport, resume=resume)
        assert again.session_id == welcome.session_id, again
        assert again.resume_token != token, "the token rotates"
        assert again.capabilities.features == welcome.capabilities.features, again
        token = again.resume_token
        # The handles were the old client's, so what they would have told is looked for in the frames.
        mine = await returned.submit(agent="echo", input="new")
        assert (await mine.done).result == "new"
        while returned.latest_event_seq < newest:
            await asyncio.sleep(0.01)
        numbers = [frame["event_seq"] for frame in transport.frames if "event_seq" in frame]
        assert numbers == list(range(last + 1, newest + 1)), numbers
        told = [frame for frame in transport.frames if frame.get("job_id") == job.job_id]
        if last == 10:
            messages = [frame["payload"]["body"]["message"] for frame in told if frame["type"] == "job.event"]
            assert messages == [f"event {n}" for n in range(11, 101)], messages
            assert told[-1]["type"] == "job.result", told[-1]
        await returned.close()
    # A token is good once.
    stale = SessionResume(session_id=welcome.session_id, resume_token=welcome.resume_token, last_event_seq=101)
    await raises(ResumeWindowExpiredError, client_with(client.token).resume(await connect(), resume=stale))


class Recorded:
    """A transport that keeps what came over it."""

    def __init__(self, transport):
        self.transport = transport
        self.frames = []

    def __getattr__(self, name):
        return getattr(self.transport, name)

    async def recv(self):
        frame = await self.transport.recv()
        self.frames.append(frame)
        return frame


def client_with(token, **more):
    # The SDK's own five seconds are few for a host that starts on a busy machine.
    info = ClientInfo(name="interop", version="1.0")
    return ARCPClient(client=info, token=token, handshake_timeout_sec=30, **more)


async def raises(error, awaitable, also=()):
    try:
        outcome = await awaitable
    except error:
        return
    except also:
        return
    raise AssertionError(f"{outcome!r} instead of {error.__name__}")


SCENARIOS = {
    name: function
    for name, function in list(globals().items())
    if asyncio.iscoroutinefunction(function) and name != "raises"
}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--token", required=True)
    parser.add_argument("--url")
    parser.add_argument("--data")
    parser.add_argument("--stdio", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    hosts = []

    async def connect():
        if args.url:
            return await WebSocketTransport.connect(args.url)
        pipe = asyncio.subprocess.PIPE
        # Two hosts cannot share their data.
        command = [*args.stdio, "--data", f"{args.data}/{len(hosts)}"]
        host = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=LINE_BYTES_MAX)
        hosts.append(host)
        return await StdioTransport.from_process_pipes(host)

    async with asyncio.timeout(TIMEOUT_SEC):
        client = client_with(args.token)
        welcome = await client.connect(await connect())
        scenario = SCENARIOS[args.scenario]
        more = (connect,) if scenario.__code__.co_argcount == 3 else ()
        answer = await scenario(client, welcome, *more)
        await client.close()
        # A host on pipes ends with its client, and says that all is well.
        codes = [await host.wait() for host in hosts]
        assert all(code == 0 for code in codes), codes
    if answer is not None:
        print(json.dumps(answer))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
