"""A server of tools for the suite `tools`, on the official MCP SDK for Python.

`server.py stdio` speaks over its pipes, `server.py http PORT` over streamable HTTP.
"""

import asyncio
import os
import subprocess
import sys
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ImageContent, TextContent
from pydantic import BaseModel

server = MCPServer("suite")


class Weather(BaseModel):
    city: str
    degrees: float
    usage: dict[str, int]


@server.tool()
def weather(city: str, days: int = 1) -> Weather:
    """The weather of a city."""
    return Weather(city=city, degrees=21.5, usage={"pages": days})


@server.tool(structured_output=False)
def text(words: str) -> str:
    """The words as they came."""
    return words


@server.tool(structured_output=False)
def image() -> list:
    """A text and an image."""
    return [TextContent(type="text", text="see"), ImageContent(type="image", data="AAAA", mime_type="image/png")]


@server.tool(structured_output=False)
def fail(words: str) -> str:
    """Fails, and says something of it."""
    raise ToolError(words + os.environ.get("SUITE_KEY", ""))


@server.tool(structured_output=False)
async def wait(mark: str) -> str:
    """Writes to a file that it waits, and then that nobody waits any more."""
    with open(mark, "w") as file:
        file.write("waits")
    try:
        await asyncio.sleep(3600)
    finally:
        with open(mark, "w") as file:
            file.write("cancelled")
    return "never"


@server.tool(structured_output=False)
async def together(path: str, count: int) -> str:
    """Answers when so many calls are under way at once."""
    with open(path, "a") as file:
        file.write("x")
    while os.path.getsize(path) < count:
        await asyncio.sleep(0.005)
    return "all here"


@server.tool(structured_output=False)
def large(size: int) -> str:
    """A text of so many bytes."""
    return "x" * size


@server.tool(structured_output=False)
def die(mark: str = "") -> str:
    """Ends the whole server, in the middle of the call."""
    os._exit(3)


@server.tool(structured_output=False)
def noise() -> str:
    """Prints what is no message to where the messages go."""
    os.write(1, b"hello?\n\x00\xff\n{\"jsonrpc\": \"2.0\", \"id\": 77, \"result\": 1\n[]\n{}\n" + b"z" * 100_000 + b"\n\n")
    return "that was loud"


@server.tool()
def told(ctx: Context) -> dict[str, Any]:
    """What the call came with, and the names of what is in the environment."""
    meta = dict(ctx.request_context.meta or {})
    headers = dict(ctx.headers or {})
    return {
        "meta": {name: meta.get(name) for name in ("traceparent", "leasehold/call")},
        "headers": {name: headers.get(name) for name in ("traceparent", "authorization")},
        "environment": sorted(os.environ),
    }


@server.tool(structured_output=False)
async def grow(ctx: Context) -> str:
    """Adds a tool."""
    server.add_tool(text, name="grown", structured_output=False)
    await ctx.request_context.session.send_tool_list_changed()
    return "grown"


@server.tool(structured_output=False)
def leave(mark: str) -> str:
    """Starts a process that outlives the call, and writes its number down."""
    child = subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with open(mark, "w") as file:
        file.write(str(child.pid))
    return "left"


@server.tool(name="odd\tname", structured_output=False)
def odd_name() -> str:
    """No lease can name this."""
    return "odd"


@server.tool(structured_output=False, description=f"It has the key {os.environ.get('SUITE_KEY', '')}.")
def telling(words: str) -> str:
    return f"{words} {os.environ.get('SUITE_KEY', '')}"


tool = server._tool_manager.get_tool("telling")
tool.parameters["properties"]["words"]["description"] = f"not {os.environ.get('SUITE_KEY', '')}"


@server.tool(structured_output=False)
def outside(words: str) -> str:
    """Its schema refers to another machine."""
    return words


tool = server._tool_manager.get_tool("outside")
tool.parameters = {"type": "object", "properties": {"words": {"$ref": "http://127.0.0.1:1/schema.json"}}}

if __name__ == "__main__":
    print("the suite's server starts", os.environ.get("SUITE_KEY", ""), file=sys.stderr)
    if sys.argv[1] == "http":
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run("stdio")
