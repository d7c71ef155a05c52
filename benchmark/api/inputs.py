"""Checks of what a user hands in: every refusal is an `InputError` of one line, which is a ValueError."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmark.errors import UsageError
from karel_env.command import shown


class InputError(UsageError, ValueError):
    """An argument of the API that cannot be: what was received, what was expected, what to do next. A ValueError."""


def check_names(argument: str, names: Iterable[str], known: Sequence[str]) -> list[str]:
    """The names, each of which is known.

    Raises:
        InputError: one is unknown; the nearest known name is suggested.
    """
    if isinstance(names, str):
        raise InputError(
            f"{argument}: the text {shown(names)!r}; expected a sequence of names, such as [{shown(names)!r}]"
        )
    listed = list(names)
    if not listed:
        raise InputError(f"{argument}: empty; expected at least one of {', '.join(known)}")
    for name in listed:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise InputError(f"{argument}: unknown name {shown(name)!r}; {hint}")
    return listed


def as_float32(name: str, values: Any) -> np.ndarray:
    """float32 array of a NumPy array, a torch tensor on any device, or nested lists; of any real dtype.

    Raises:
        InputError: the values are no numbers.
    """
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        # A tensor of torch, which is not imported for it; NumPy has no bfloat16.
        values = values.detach().cpu().float().numpy()
    try:
        array = np.asarray(values)
        if array.dtype.kind in "cOSUMm" or (array.dtype.kind == "V" and array.dtype.name != "bfloat16"):
            raise InputError(f"{name}: values of dtype {array.dtype}; expected real numbers, such as float32")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, np.float32)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: {shown(error, 200)}; expected an array of real numbers") from error


def check_states(name: str, values: Any, num_rows: int) -> np.ndarray:
    """float32 [R, L, D] or [R, D], states of all R rows that can be probed.

    Raises:
        InputError: another shape or number of rows, values that are not finite, or rows that do not differ.
    """
    states = as_float32(name, values)
    if states.ndim not in (2, 3) or 0 in states.shape[1:]:
        raise InputError(f"{name}: shape {list(states.shape)}; expected [R, L, D] or [R, D] with R = {num_rows}")
    if len(states) != num_rows:
        where = [axis for axis, size in enumerate(states.shape) if size == num_rows]
        hint = f"; axis {where[0]} has that size: move it to the front" if where else ""
        raise InputError(
            f"{name}: {len(states)} rows; expected {num_rows}, one per action word of the probe set, in its order{hint}"
        )
    is_finite = np.isfinite(states).reshape(num_rows, -1).all(1)
    if not is_finite.all():
        raise InputError(
            f"{name}: NaN or infinity in {int((~is_finite).sum())} of {num_rows} rows, first in row "
            f"{int(np.argmin(is_finite))}; compute the states in float32 or bfloat16"
        )
    if not states.any():
        raise InputError(f"{name}: every value is 0; expected states that were read from a model")
    if num_rows > 1 and (states == states[:1]).all():
        raise InputError(f"{name}: all {num_rows} rows are equal; expected one state per row")
    return states


def check_no_empty_rows(name: str, states: np.ndarray) -> None:
    """Check that every row of states [R, ...] has a value that is not 0.

    Raises:
        InputError: a row was never filled.
    """
    is_filled = states.reshape(len(states), -1).any(1)
    if not is_filled.all():
        raise InputError(
            f"{name}: {int((~is_filled).sum())} of {len(states)} rows are all 0, first row {int(np.argmin(is_filled))}; "
            "expected a state in every row"
        )
