"""The figures of `relative` as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from benchmark.causal.report import format_p
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_verdict import represents_conditions
from benchmark.relative.measure import RelativeResult
from benchmark.statistics import Estimate


def to_json(result: RelativeResult) -> dict[str, Any]:
    """All figures as JSON values."""
    return asdict(result)


def format_estimate(estimate: Estimate | None) -> str:
    """A figure with its interval."""
    return "none" if estimate is None else f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def format_relative(result: RelativeResult, protocol: RotationProtocol) -> str:
    """The figures as tables."""
    rotation = result.rotation
    lines = [
        f"{result.programs:,} programs, {result.words:,} action words: {result.executed:,} executed, {result.labelled:,} with a "
        f"label under every semantics; {rotation.unseen_rows:,} rows with an unseen text",
        "",
        f"rotation by the rule of protocol 4 (reported, decides nothing): {rotation.verdict}"
        f"{': ' if rotation.reason else ''}{rotation.reason}",
        f"skill      {format_estimate(rotation.skill)}",
        *(
            f"{condition.name:<10} {format_estimate(condition.estimate)}, bound {condition.bound}"
            for condition in represents_conditions(rotation, protocol)
        ),
        "gaps       " + ", ".join(f"{name} {gap:+.3f}" for name, gap in rotation.control_gaps.items()),
        "",
    ]
    rows = [
        {
            "feature": figure.feature, "skill": format_estimate(figure.skill), "gap": f"{figure.gap:+.3f}",
            "largest control": max(figure.control_gaps, key=lambda name: figure.control_gaps[name]),
            "delta": format_estimate(figure.delta), "p, Holm": format_p(figure.p_holm),
        }
        for figure in result.displacement
    ]  # fmt: skip
    lines.append(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    if result.conditions is not None:
        conditions = result.conditions
        lines += [
            "",
            f"values of conditions, {conditions.rows:,} words: skill {format_estimate(conditions.skill)}, delta "
            f"{format_estimate(conditions.delta)}",
        ]
    return "\n".join(lines)
