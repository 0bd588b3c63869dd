"""Why something did not work: the host's refusals and an agent's own failures."""

from __future__ import annotations

import enum
import errno
from typing import Any


class Code(enum.StrEnum):
    """What kind of error it is, spelt as in the contract: `str(Code.PERMISSION_DENIED)` is `permission-denied`."""

    PERMISSION_DENIED = "permission-denied"
    LEASE_SUBSET_VIOLATION = "lease-subset-violation"
    LEASE_EXPIRED = "lease-expired"
    BUDGET_EXHAUSTED = "budget-exhausted"
    JOB_NOT_FOUND = "job-not-found"
    AGENT_NOT_AVAILABLE = "agent-not-available"
    AGENT_VERSION_NOT_AVAILABLE = "agent-version-not-available"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INVALID_REQUEST = "invalid-request"
    INTERNAL_ERROR = "internal-error"
    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    NOT_A_DIRECTORY = "not-a-directory"
    NOT_A_FILE = "not-a-file"
    NOT_EMPTY = "not-empty"
    TOO_LARGE = "too-large"
    UNKNOWN_OUTCOME = "unknown-outcome"


class Error(Exception):
    """A code and a sentence: what the host answers, and what an agent ends its job with.

    Raised out of the agent it becomes `job.error` (ARCP §7.3), where clients read the message, so it holds no secret.

    Every code has a class of its own, most of which are also the built-in exception that Python users would expect, and
    `Error(code, message)` makes one of that class:

        try:
            notes = fs.read_text("/workspace/notes.md")
        except leasehold.NotFound:              # or FileNotFoundError
            notes = ""
        except leasehold.PermissionDenied as refused:  # or PermissionError
            events.warn(refused.message)

    Attributes:
        code: which kind of error it is.
        message: what happened to what, for people.
    """

    code: Code
    message: str

    # Which class has which code, and which `errno` if it is an OSError.
    _of: dict[Code, type[Error]] = {}
    _code: Code | None = None
    _errno: int | None = None

    def __init_subclass__(cls, code: Code | None = None, errno: int | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if code is not None:
            cls._code, cls._errno = code, errno
            Error._of[code] = cls

    def __new__(cls, *arguments: Any) -> Error:
        if cls is Error:
            if len(arguments) != 2:
                raise TypeError("Error(code, message) takes two arguments")
            cls = Error._of[Code(arguments[0])]
        return super().__new__(cls, *arguments)

    def __init__(self, *arguments: str) -> None:
        # `Error(code, message)`, also where that makes a class of its own, or `NotFound(message)`.
        if len(arguments) == 2:
            self.code, self.message = Code(arguments[0]), str(arguments[1])
        elif len(arguments) == 1 and self._code is not None:
            self.code, self.message = self._code, str(arguments[0])
        else:
            raise TypeError(f"{type(self).__name__}(message) takes one argument")
        super().__init__(self.code, self.message)
        if self._errno is not None and isinstance(self, OSError):
            # By name, since to a type checker they would be attributes of every `Error`.
            setattr(self, "errno", self._errno)
            setattr(self, "strerror", self.message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Error, (self.code, self.message))

    @property
    def ends_the_job(self) -> bool:
        """Whether the job can do nothing more: it is cancelled, out of time or out of money.

        Every further operation would be answered the same way, so an agent that goes on after errors of single files
        stops at these.
        """
        return self.code in (Code.CANCELLED, Code.LEASE_EXPIRED, Code.BUDGET_EXHAUSTED)


class PermissionDenied(Error, PermissionError, code=Code.PERMISSION_DENIED, errno=errno.EACCES):
    """The lease does not cover the operation (ARCP §9.3). Also a `PermissionError`."""


class LeaseSubsetViolation(Error, code=Code.LEASE_SUBSET_VIOLATION):
    """A delegated lease would be wider than its parent (ARCP §9.4)."""


class LeaseExpired(Error, code=Code.LEASE_EXPIRED):
    """The end of the lease has been reached (ARCP §9.5)."""


class BudgetExhausted(Error, code=Code.BUDGET_EXHAUSTED):
    """A budget counter is at or below zero (ARCP §9.6)."""


class JobNotFound(Error, LookupError, code=Code.JOB_NOT_FOUND):
    """No job of that id, or none this agent may see. Also a `LookupError`."""


class AgentNotAvailable(Error, LookupError, code=Code.AGENT_NOT_AVAILABLE):
    """No agent of that name. Also a `LookupError`."""


class AgentVersionNotAvailable(Error, LookupError, code=Code.AGENT_VERSION_NOT_AVAILABLE):
    """The agent exists, the version does not (ARCP §7.5). Also a `LookupError`."""


class Cancelled(Error, code=Code.CANCELLED):
    """The job is being cancelled (ARCP §7.4): stop and return, or let it through."""


class Timeout(Error, TimeoutError, code=Code.TIMEOUT, errno=errno.ETIMEDOUT):
    """The operation took longer than its limit. Also a `TimeoutError`."""


class InvalidRequest(Error, ValueError, code=Code.INVALID_REQUEST):
    """An argument is malformed or over a limit. Also a `ValueError`."""


class InternalError(Error, code=Code.INTERNAL_ERROR):
    """The host, or what it asked, failed; the same call may work later."""


class NotFound(Error, FileNotFoundError, code=Code.NOT_FOUND, errno=errno.ENOENT):
    """Nothing has that name. Also a `FileNotFoundError`."""


class AlreadyExists(Error, FileExistsError, code=Code.ALREADY_EXISTS, errno=errno.EEXIST):
    """Something has that name already. Also a `FileExistsError`."""


class NotADirectory(Error, NotADirectoryError, code=Code.NOT_A_DIRECTORY, errno=errno.ENOTDIR):
    """A directory was needed and something else is there. Also a `NotADirectoryError`."""


class NotAFile(Error, IsADirectoryError, code=Code.NOT_A_FILE, errno=errno.EISDIR):
    """A regular file was needed and something else is there. Also an `IsADirectoryError`."""


class NotEmpty(Error, OSError, code=Code.NOT_EMPTY, errno=errno.ENOTEMPTY):
    """The directory holds entries. Also an `OSError`."""


class TooLarge(Error, OSError, code=Code.TOO_LARGE, errno=errno.EFBIG):
    """The answer is over a limit; the message names it and the way round. Also an `OSError`."""


class UnknownOutcome(Error, code=Code.UNKNOWN_OUTCOME):
    """The host stopped while the call was under way and cannot know whether it took effect."""
