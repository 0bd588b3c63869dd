from .. import host


def write_text(text: str) -> None:
    host.check("output")
    host.told.append(("text", text))


def write_bytes(bytes: bytes) -> None:
    host.check("output")
    host.told.append(("bytes", bytes))


def finish() -> None:
    host.told.append(("finish",))
