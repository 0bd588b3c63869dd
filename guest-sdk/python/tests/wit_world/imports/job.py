from .. import host


def id() -> str:
    return "job_01M7ZHB2YSPKDD43MGFMHT6J06"


def agent() -> str:
    return "test@1.0.0"


def trace_id() -> str:
    return "0123456789abcdef" * 2


def expires_at() -> str | None:
    return host.expires


def budget() -> list[tuple[str, str]]:
    return host.left


def grants(namespace: str) -> list[str]:
    return ["/workspace/**"] if namespace == "fs.read" else []


def cancel_requested() -> bool:
    return host.cancelled
