"""Figures as the pages of the documentation write them."""

from __future__ import annotations

from benchmark.installation.paths import SOURCE_ROOT
from benchmark.statistics import Estimate


def page_text(name: str) -> str:
    """The text of a page of docs/, with single spaces in place of line ends."""
    return " ".join((SOURCE_ROOT / "docs" / name).read_text().split())


def percent_bounds(value: Estimate, unit: str = "") -> str:
    """As `17.8 [16.7, 18.9]`; `unit` follows the value."""
    return f"{100 * value.value:.1f}{unit} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


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
