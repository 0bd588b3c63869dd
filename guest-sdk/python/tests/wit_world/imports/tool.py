from dataclasses import dataclass
from typing import List, Optional

from .. import host
from .calls import PendingCall, taken


@dataclass
class Description:
    name: str
    description: str
    input_schema: str
    output_schema: Optional[str]


def list() -> List[Description]:
    return [Description("upper", "makes a text loud", '{"type": "object"}', None)]


def call(name: str, arguments: str) -> str:
    return host.answer_json(name, arguments)


def start(name: str, arguments: str) -> PendingCall:
    return PendingCall(name, lambda: call(name, arguments))


def finish(call: PendingCall) -> str:
    return taken(call)
