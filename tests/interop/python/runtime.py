"""The Python SDK's own runtime with the agents that `leasehold conformance` needs.

    runtime.py NAME=TOKEN …     prints a ws:// URL once it serves echo, chatty and sleeper
"""

import asyncio
import sys

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, StaticBearerVerifier


async def echo(value, _context):
    return value


async def chatty(value, context):
    count = value["count"]
    await asyncio.sleep(value.get("start_delay_ms", 0) / 1000)
    for n in range(1, count + 1):
        await context.log("info", f"event {n}")
        if n < count:
            await asyncio.sleep(value.get("delay_ms", 0) / 1000)
    return {"count": count}


async def sleeper(value, _context):
    await asyncio.sleep(value["sec"])
    return {"slept": value["sec"]}


async def main(tokens):
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="python-sdk", version="1"),
        bearer=StaticBearerVerifier(dict(reversed(pair.split("=", 1)) for pair in tokens)),
        heartbeat_interval_sec=1,
    )
    for agent in (echo, chatty, sleeper):
        runtime.register_agent_version(agent.__name__, "1.0.0", agent)
    server = await serve_websocket(runtime.accept, host="127.0.0.1", port=0, path="/arcp")
    async with server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ready at ws://127.0.0.1:{port}/arcp", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
