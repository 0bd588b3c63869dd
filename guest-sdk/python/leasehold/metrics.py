"""Figures an agent reports, money among them (ARCP §8.2 `metric`, §9.6). Needs no grant.

Money is a `decimal.Decimal`, or a text or an int that makes one: a float is seldom the amount that was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from . import _host
from ._error import InvalidRequest

__all__ = ["metric", "cost"]


def metric(
    name: str,
    value: Decimal | int | float | str,
    *,
    unit: str | None = None,
    dimensions: Mapping[str, str] | None = None,
) -> None:
    """Reports one figure: `metric("parse.duration", 12.5, unit="ms", dimensions={"format": "toml"})`.

    A name that begins with `cost.` is money, see `cost`. Limits: a name of 1 to 128 bytes, a unit of at most 32, at
    most 16 dimensions of at most 64 + 256 bytes, a value of at most 28 significant digits.

    Raises `InvalidRequest` for anything over its limit and a value that is no finite number, `TypeError` for a cost
    that is a float.
    """
    if isinstance(value, float) and name.startswith("cost."):
        raise TypeError(f"{name}: money is a Decimal, a text or an int, never a float")
    figure = _decimal(value)
    _host.call(_host.metrics.emit, name, figure, unit, list((dimensions or {}).items()))


def cost(name: str, amount: Decimal | int | str, currency: str) -> None:
    """Reports money spent: the metric `cost.<name>`, taken off the budget in `currency`.

    `cost("inference", "0.0234", "USD")`. The cost that exhausts a budget is accepted; the next operation is refused
    with `BudgetExhausted` (ARCP §9.6). Raises `InvalidRequest` for a negative or malformed amount, `TypeError` for a
    float.
    """
    metric(f"cost.{name}", amount, unit=currency)


def _decimal(value: Decimal | int | float | str) -> str:
    """The plain notation, without exponent, which is the only one the contract knows."""
    try:
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise InvalidRequest(f"{value!r} is no decimal number") from None
    if not exact.is_finite():
        raise InvalidRequest(f"{value!r} is no finite number")
    return format(exact, "f")
