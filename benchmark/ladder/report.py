"""The results of a ladder as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter
from tabulate import tabulate

from benchmark.ladder.measurement import RungResult, count_rungs
from benchmark.statistics import in_percent

_RUNG = TypeAdapter(RungResult)


def format_rung(result: RungResult) -> str:
    """One line per question, as it is measured."""
    outcome = "above" if result.is_reached else "not above"
    floor = 100 * result.floors[result.best_floor]
    return f"{result.question}: {in_percent(result.accuracy)}, {outcome} {result.best_floor} ({floor:.1f})"


def format_ladder(results: Sequence[RungResult]) -> str:
    """Two tables: accuracy with floors, and accuracy by number of statements."""
    rows = [
        {
            "question": result.question,
            "choices": result.choices,
            "accuracy (%)": in_percent(result.accuracy),
            "generated": in_percent(result.generated),
            **{name: f"{100 * result.floors[name]:.1f}" if name in result.floors else "-" for name in _floors(results)},
            "above the best floor": in_percent(result.above),
            "reached": "yes" if result.is_reached else "no",
        }
        for result in results
    ]
    lengths = [
        {
            "question": result.question,
            **{
                f"{length}": f"{100 * own:.0f} ({100 * floor:.0f})" for length, (own, floor) in result.by_length.items()
            },
        }
        for result in results
    ]
    rungs = count_rungs(results)
    return "\n".join(
        [
            f"{rungs} of {len(results)} rungs reached, n = {results[0].n} tasks per question",
            "",
            tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True),
            "",
            "Accuracy by number of statements, best floor in parentheses:",
            "",
            tabulate(lengths, headers="keys", tablefmt="github", disable_numparse=True),
        ]
    )


def to_json(results: Sequence[RungResult], is_complete: bool = True) -> dict[str, Any]:
    """All figures as JSON values; the number of rungs only once every question was asked."""
    questions = [asdict(result) | {"reached": result.is_reached} for result in results]
    return ({"rungs": count_rungs(results)} if is_complete else {}) | {"questions": questions}


def from_json(content: Mapping[str, Any]) -> dict[str, RungResult]:
    """The results in a file of `to_json`, by question."""
    return {result.question: result for result in map(_RUNG.validate_python, content.get("questions", []))}


def _floors(results: Sequence[RungResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.floors))
