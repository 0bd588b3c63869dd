"""The Python SDK, as a runtime to be measured or as a client that measures.

    python_sdk.py serve TOKEN          prints a ws:// URL once it serves `echo`
    python_sdk.py measure URL TOKEN    prints latency and jobs/s of `echo`
"""

import asyncio
import sys
import time

from arcp import ClientInfo, RuntimeInfo, WebSocketTransport, serve_websocket
from arcp.client import ARCPClient
from arcp.runtime import ARCPRuntime, StaticBearerVerifier

SEQUENTIAL = 1000
SESSIONS = 4
IN_FLIGHT = 16
SPELL_SEC = 8.0


async def serve(token):
    async def echo(value, _context):
        return value

    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="bench", version="1"),
        bearer=StaticBearerVerifier({token: "bench"}),
        max_concurrent_jobs=1000,
    )
    runtime.register_agent("echo", echo)
    server = await serve_websocket(runtime.accept, host="127.0.0.1", port=0, path="/arcp")
    async with server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ready at ws://127.0.0.1:{port}/arcp", flush=True)
        await server.serve_forever()


async def connect(url, token):
    client = ARCPClient(client=ClientInfo(name="bench", version="1"), token=token)
    await client.connect(await WebSocketTransport.connect(url))
    return client


async def one(client):
    job = await client.submit(agent="echo", input={"n": 1})
    return await job.done


async def measure(url, token):
    client = await connect(url, token)
    times = []
    for n in range(SEQUENTIAL + 100):
        begun = time.perf_counter()
        await one(client)
        if n >= 100:
            times.append(time.perf_counter() - begun)
    times.sort()
    clients = [await connect(url, token) for _ in range(SESSIONS)]
    begun = time.perf_counter()
    done = 0

    async def work(client):
        nonlocal done
        while time.perf_counter() - begun < SPELL_SEC:
            await one(client)
            done += 1

    await asyncio.gather(*(work(client) for client in clients for _ in range(IN_FLIGHT)))
    rate = done / (time.perf_counter() - begun)
    p50, p99 = (times[int(len(times) * part)] * 1000 for part in (0.5, 0.99))
    print(f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; {rate:.0f} jobs/s at 4 × 16")


if __name__ == "__main__":
    asyncio.run({"serve": serve, "measure": measure}[sys.argv[1]](*sys.argv[2:]))
