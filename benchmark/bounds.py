"""Bounds of a record's figures: what is no share, no interval, no date or no number of anything is refused.

They hold before anything is computed, so no entry of a record can ask for unbounded work. Intervals: low <= value <= high.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, BeforeValidator

from benchmark.errors import SubmissionError
from benchmark.intake import shown
from benchmark.statistics import Estimate
from karel_env.command import shown as printable

ROUNDING = 1e-9
TEXT, LIST, ENTRIES = 2_000, 5_000, 200
"""Characters of a text, items of a list, entries of a mapping."""
LARGEST_INT, LARGEST_FLOAT = 2**63, 1e6
SECONDS = 1e10
SKEW = timedelta(days=1)
"""By which clocks may differ."""
ANTEDATED = timedelta(days=31)
"""By which the date of a folder may lie before its run."""
EARLIEST = datetime(2024, 1, 1, tzinfo=UTC)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", re.ASCII)
DATED = re.compile(r"(\d{4}-\d\d-\d\d)_.+", re.ASCII)
SHARES = {
    "shown", "held_out", "both", "shown_state", "exact", "valid", "distinct", "finished", "arithmetic", "geometric",
    "majority", "accuracy", "macro_f1", "p", "p_holm", "p_rand", "reach_p",
}  # fmt: skip
"""Entries whose figures lie from 0 to 1."""
AT_MOST_ONE = {"skill", "skill_alternatives", "skill_unseen", "extras", "selectivity"}
"""Entries whose figures have no lower end of their own."""
MAPPINGS = {"geometric", "reach_p", "extras"}
"""Entries that hold figures by name."""
COUNTS = {"n", "programs", "states", "test_programs", "test_states", "budget", "tasks", "shots", "samples"}
"""Entries that count what a figure rests on: at least 1."""


def known_version(newest: int) -> BeforeValidator:
    """Validator of an entry `schema_version`, a whole number from 1 to the newest that this program reads."""

    def check(version: object) -> object:
        if type(version) is not int or not 1 <= version <= newest:
            known = f"a whole number from 1 to {newest}" if newest > 1 else "1"
            raise ValueError(
                f"received {printable(version)}; expected {known}, what this program reads; write the file with this "
                "version of the benchmark, or read it with the one that wrote it"
            )
        return version

    return BeforeValidator(check)


def check_figures(value: Any, where: str) -> None:
    """Refuse a figure of a record that cannot be.

    Args:
        value: a model of pydantic or a dataclass, with all that is in it.
        where: its name, for messages.

    Raises:
        SubmissionError: naming the first entry that is out of its bounds.
    """
    for path, entry in _walk(value, where):
        names = path.split(".")
        if isinstance(entry, Estimate):
            _check_estimate(path, entry)
        elif isinstance(entry, bool):
            continue
        elif isinstance(entry, float):
            _check_float(path, entry, names)
        elif isinstance(entry, int):
            if not -LARGEST_INT < entry < LARGEST_INT:
                raise SubmissionError(f"{path}: a number of more than 63 bits")
            if names[-1] in COUNTS and entry < (1 if names[-1] == "n" else 0):
                raise SubmissionError(f"{path}: {entry}; a count is at least {1 if names[-1] == 'n' else 0}")
        elif isinstance(entry, str):
            if len(entry) > TEXT:
                raise SubmissionError(f"{path}: {len(entry):,} characters; at most {TEXT:,} are read")
        elif isinstance(entry, list | tuple | Mapping):
            limit = ENTRIES if isinstance(entry, Mapping) else LIST
            if len(entry) > limit:
                raise SubmissionError(f"{path}: {len(entry):,} entries; at most {limit:,} are read")


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value within a value, outer ones first, with its path; what is in a container follows only if asked for."""
    pending = [(path, value)]
    while pending:
        place, current = pending.pop()
        yield place, current
        inner: list[tuple[str, Any]] = []
        if isinstance(current, BaseModel):
            inner = [(name, getattr(current, name)) for name in type(current).model_fields]
        elif isinstance(current, Mapping):
            inner = [(shown(key).strip("'"), part) for key, part in current.items()]
            pending += [(f"{place} (a key)", key) for key in current if isinstance(key, str)]
        elif isinstance(current, list | tuple):
            inner = [(str(number), part) for number, part in enumerate(current)]
        elif hasattr(current, "__dataclass_fields__"):
            inner = list(vars(current).items())
        pending += [(f"{place}.{name}", part) for name, part in reversed(inner)]


def _check_float(path: str, entry: float, names: list[str]) -> None:
    largest = SECONDS if "seconds" in names else LARGEST_FLOAT
    if not math.isfinite(entry) or abs(entry) > largest:
        raise SubmissionError(f"{path}: {entry:g}; no figure of a run is so large")
    if "seconds" in names and entry < 0:
        raise SubmissionError(f"{path}: {entry:g}; expected seconds from 0")
    # An estimate's ends are checked with the estimate.
    if names[-1] in ("value", "low", "high"):
        return
    named = names[-2] if len(names) > 1 and names[-2] in MAPPINGS else names[-1]
    if named in SHARES and not -ROUNDING <= entry <= 1 + ROUNDING:
        raise SubmissionError(f"{path}: {entry:g}; expected a share from 0 to 1")
    if named in AT_MOST_ONE and entry > 1 + ROUNDING:
        raise SubmissionError(f"{path}: {entry:g}; expected at most 1")


def _check_estimate(path: str, estimate: Estimate) -> None:
    ends = (estimate.low, estimate.value, estimate.high)
    if not all(map(math.isfinite, ends)) or max(map(abs, ends)) > LARGEST_FLOAT:
        raise SubmissionError(f"{path}: {estimate.value:g} with an end that no figure of a run has")
    if not estimate.low - ROUNDING <= estimate.value <= estimate.high + ROUNDING:
        raise SubmissionError(
            f"{path}: {estimate.value:g} is not in its interval {estimate.low:g} to {estimate.high:g}"
        )
    if not 1 <= estimate.n <= 10**9:
        raise SubmissionError(f"{path}.n: {shown(estimate.n)}; expected how many independent units it rests on")
    names = set(path.split(".")[-2:])
    if names & SHARES and not (estimate.low >= -ROUNDING and estimate.high <= 1 + ROUNDING):
        raise SubmissionError(f"{path}: {estimate.low:g} to {estimate.high:g}; expected a share from 0 to 1")
    if names & AT_MOST_ONE and estimate.value > 1 + ROUNDING:
        raise SubmissionError(f"{path}: {estimate.value:g}; expected at most 1")


def check_times(started: str, finished: str, where: str) -> None:
    """Refuse times that are none, lie in the future, or end before they begin.

    Args:
        started, finished: as a record writes them, in UTC.
        where: the entry, for messages.
    """
    times = {}
    for name, text in (("started", started), ("finished", finished)):
        try:
            times[name] = datetime.fromisoformat(text) if TIME.fullmatch(text) else None
        except ValueError:
            times[name] = None
        if times[name] is None:
            raise SubmissionError(f"{where}.{name}: {shown(text)}; expected a time such as 2026-11-25T03:10:46+00:00")
    first, last = times["started"], times["finished"]
    assert first is not None
    assert last is not None
    if not EARLIEST <= first <= last:
        raise SubmissionError(f"{where}: started {started}, finished {finished}; expected one after the other")
    if last > datetime.now(UTC) + SKEW:
        raise SubmissionError(f"{where}.finished: {finished} is yet to come; expected a run that is over")


def check_folder_date(name: str) -> datetime:
    """The day that a folder's name begins with.

    Raises:
        SubmissionError: there is none, or it is yet to come.
    """
    dated = DATED.fullmatch(name)
    try:
        day = datetime.fromisoformat(dated[1]).replace(tzinfo=UTC) if dated else None
    except ValueError:
        day = None
    if day is None:
        raise SubmissionError(f"{shown(name)}: no date; expected a folder named such as 2026-11-25_my-llama")
    if not EARLIEST <= day <= datetime.now(UTC) + SKEW:
        raise SubmissionError(f"{shown(name)}: {day:%Y-%m-%d} is yet to come or long past; expected the day of the run")
    return day


def check_dates(name: str, started: str) -> None:
    """Refuse a folder that claims to be much older than its run, which started at a time that `check_times` passed."""
    day = check_folder_date(name)
    if day < datetime.fromisoformat(started) - ANTEDATED:
        raise SubmissionError(
            f"{shown(name)}: dated more than {ANTEDATED.days} days before its run started ({started[:10]})"
        )
