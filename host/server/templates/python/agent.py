"""Counts the lines and words of a text file, and finds its longest word."""

from dataclasses import dataclass

import leasehold
from leasehold import events, fs


@dataclass
class Input:
    """The `input` of a job."""

    path: str


@dataclass
class Report:
    """Its result."""

    lines: int
    words: int
    longest: str


@leasehold.agent
def run(input: Input) -> Report:
    events.info(f"reading {input.path}")
    # The one line that needs a grant: `fs.read` on the path. Without it the
    # host answers `permission-denied`, and the exception ends the job with that.
    text = fs.read_text(input.path)
    events.progress(1, 2, units="steps", message="read")
    report = examine(text)
    events.progress(2, 2, units="steps", message="counted")
    return report


def examine(text: str) -> Report:
    """Everything that needs no host, so that `python3 -m unittest` can try it."""
    words = text.split()
    return Report(lines=len(text.splitlines()), words=len(words), longest=max(words, key=len, default=""))
