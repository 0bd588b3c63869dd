from .. import host


def emit(name: str, value: str, unit: str | None, dimensions: list[tuple[str, str]]) -> None:
    host.told.append(("metric", name, value, unit, dimensions))
