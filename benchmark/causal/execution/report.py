"""The result of an execution measurement, as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter
from tabulate import tabulate

from benchmark.causal.execution.measurement import ExecutionMeasurement
from benchmark.causal.execution.verdict import ExecutionResult
from benchmark.causal.report import format_estimate

_RESULT = TypeAdapter(ExecutionResult)


def to_json(measurement: ExecutionMeasurement) -> dict[str, Any]:
    """The result as JSON values, without the evidence."""
    return {"sites": list(measurement.sites), **asdict(measurement.result)}


def from_json(content: Mapping[str, Any]) -> ExecutionMeasurement:
    """The result in JSON values of `to_json`, without the evidence."""
    return ExecutionMeasurement(tuple(content["sites"]), _RESULT.validate_python(content), None)


def format_execution(measurement: ExecutionMeasurement) -> str:
    """Verdict, scores, and a table of edit and controls."""
    result = measurement.result
    lines = [f"verdict    {result.verdict}" + (f": {result.reason}" if result.reason else "")]
    if result.natural is not None:
        lines.append(
            f"natural    {format_estimate(result.natural)}  unedited headings that are right, {result.natural.n} tasks"
        )
    score = result.score
    if score is not None and result.site is not None and result.clamped is not None:
        lines += [
            f"use        {format_estimate(score.use)}  (steered - largest control run on the model) / natural",
            f"margin     {format_estimate(score.margin)}  steered - largest control ({score.largest}); decides",
            f"site       {measurement.sites[result.site]}",
            f"range      {result.clamped:.0%} of the effect remain with later activations in their natural range",
            "",
            tabulate(
                [
                    [name, format_estimate(value)]
                    for name, value in {"steered": score.steered, **score.controls}.items()
                ],
                headers=["right heading of the edited state", f"{score.pairs} edits, {score.tasks} tasks"],
                tablefmt="github",
                disable_numparse=True,
            ),
        ]
    return "\n".join(lines)
