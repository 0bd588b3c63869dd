import json
from dataclasses import dataclass
from typing import List, Optional, Tuple

from .. import host
from .calls import PendingCall, taken


@dataclass
class Task:
    agent: str
    input: str
    lease: List[Tuple[str, List[str]]]
    expires_at: Optional[str]
    max_runtime_sec: Optional[int]


def run(task: Task) -> str:
    return json.dumps(host.answer(task.agent, task))


def start(task: Task) -> PendingCall:
    return PendingCall(task.agent, lambda: run(task))


def start_stream(task: Task) -> PendingCall:
    event = {"kind": "log", "ts": "2026-05-13T19:30:00.000Z", "body": {"level": "info", "message": "hello"}}
    return PendingCall(task.agent, lambda: run(task), [json.dumps(event)])


def finish(call: PendingCall) -> str:
    return taken(call)


def job_id(call: PendingCall) -> str:
    return "job_01M7ZHB2YSPKDD43MGFMHT6J07"


def next_event(call: PendingCall) -> Optional[str]:
    for event in call.parts:
        return event
    return None
