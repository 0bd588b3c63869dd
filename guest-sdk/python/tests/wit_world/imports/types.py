from dataclasses import dataclass
from enum import Enum


class ErrorCode(Enum):
    PERMISSION_DENIED = 0
    LEASE_SUBSET_VIOLATION = 1
    LEASE_EXPIRED = 2
    BUDGET_EXHAUSTED = 3
    JOB_NOT_FOUND = 4
    AGENT_NOT_AVAILABLE = 5
    AGENT_VERSION_NOT_AVAILABLE = 6
    CANCELLED = 7
    TIMEOUT = 8
    INVALID_REQUEST = 9
    INTERNAL_ERROR = 10
    NOT_FOUND = 11
    ALREADY_EXISTS = 12
    NOT_A_DIRECTORY = 13
    NOT_A_FILE = 14
    NOT_EMPTY = 15
    TOO_LARGE = 16
    UNKNOWN_OUTCOME = 17


@dataclass
class Error:
    code: ErrorCode
    message: str
