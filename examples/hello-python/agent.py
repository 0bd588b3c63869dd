"""Greets: the smallest agent that has an input, an event and a result."""

from dataclasses import dataclass

import leasehold
from leasehold import events


@dataclass
class Input:
    name: str | None = None


@leasehold.agent
def run(input: Input | None) -> dict[str, str]:
    name = input.name if input else None
    if name == "":
        raise leasehold.InvalidRequest("input: name: must not be empty")
    greeting = f"Hello, {name or 'world'}!"
    events.info(greeting)
    return {"greeting": greeting}
