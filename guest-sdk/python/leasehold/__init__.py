"""Writes Leasehold agents in Python.

An agent is one function from an input to a result. It is built as a WebAssembly component, and it reaches nothing but
what its job's lease grants (ARCP §9): no files, no network and no environment come from the standard library. Each
module here is one of the host's interfaces, and a refusal is an exception to handle.

    from dataclasses import dataclass

    import leasehold
    from leasehold import events, fs


    @dataclass
    class Input:
        path: str


    @leasehold.agent
    def run(input: Input) -> dict:
        events.info(f"counting the lines of {input.path}")
        text = fs.read_text(input.path)          # needs `fs.read` on that path
        return {"lines": len(text.splitlines())}

Outside a component the package can be imported, so the parts of an agent that call no host can be tested with any
Python from 3.11 on; a call to the host raises `NoHostError` there.

    fs         files                          `fs.read`, `fs.write`
    net        HTTP                           `net.fetch`
    tool       the operator's tools           `tool.call`
    model      language models                `model.use`
    delegate   other agents                   `agent.delegate`
    calls      calls under way                (those of what was called)
    events     logs, thoughts, progress       no grant
    metrics    figures and costs              no grant; a cost is taken off `cost.budget`
    output     a result in parts              no grant
    job        id, budget, cancellation       no grant
"""

from . import calls, delegate, events, fs, job, metrics, model, net, output, tool
from ._agent import agent
from ._error import (
    AgentNotAvailable,
    AgentVersionNotAvailable,
    AlreadyExists,
    BudgetExhausted,
    Cancelled,
    Code,
    Error,
    InternalError,
    InvalidRequest,
    JobNotFound,
    LeaseExpired,
    LeaseSubsetViolation,
    NotADirectory,
    NotAFile,
    NotEmpty,
    NotFound,
    PermissionDenied,
    Timeout,
    TooLarge,
    UnknownOutcome,
)
from ._host import NoHostError
from ._logging import LogHandler

# What stands here is named after here, in tracebacks and in documentation.
for _public in (*Error._of.values(), Error, Code, LogHandler, NoHostError, agent):
    _public.__module__ = __name__

__all__ = [
    "agent", "calls", "delegate", "events", "fs", "job", "metrics", "model", "net", "output", "tool",
    "Code", "Error", "LogHandler", "NoHostError",
    "AgentNotAvailable", "AgentVersionNotAvailable", "AlreadyExists", "BudgetExhausted", "Cancelled", "InternalError",
    "InvalidRequest", "JobNotFound", "LeaseExpired", "LeaseSubsetViolation", "NotADirectory", "NotAFile", "NotEmpty",
    "NotFound", "PermissionDenied", "Timeout", "TooLarge", "UnknownOutcome",
]  # fmt: skip
