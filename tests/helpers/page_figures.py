"""Figures as the pages of the documentation write them."""

from __future__ import annotations

from benchmark.statistics import Estimate


def decimal(value: float, sign: str = "", places: int = 3) -> str:
    """As `.178`; with the sign `+`, as `+.178`."""
    return f"{value:{sign}.{places}f}".replace("0.", ".", 1)


def full_bounds(value: Estimate, sign: str = "") -> str:
    """As `0.178 [0.167, 0.189]`."""
    return f"{value.value:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def bounds(value: Estimate, sign: str = "") -> str:
    """As `.178 [.167, .189]`."""
    low, high = decimal(value.low, sign), decimal(value.high, sign)
    return f"{decimal(value.value, sign)} [{low}, {high}]"
