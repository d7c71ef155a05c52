"""The card of a measurement, as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from benchmark.causal.measurement import CausalMeasurement
from benchmark.causal.merges import MergeResult
from benchmark.causal.verdict import UseResult, UseScore
from benchmark.statistics import Estimate


def to_json(measurement: CausalMeasurement) -> dict[str, Any]:
    """The result as JSON values, without the evidence."""
    return {
        "suite": measurement.suite,
        "sites": list(measurement.sites),
        "use": asdict(measurement.use),
        "merges": None if measurement.merges is None else asdict(measurement.merges),
    }


def format_card(measurement: CausalMeasurement) -> str:
    """Verdict, table of edit and controls, merges, and the pairs that were dropped."""
    return format_result(measurement.sites, measurement.use, measurement.merges)


def format_result(sites: Sequence[str], use: UseResult, merges: MergeResult | None) -> str:
    """The card of a result; arguments as of `CausalMeasurement`."""
    lines = [f"verdict    {use.verdict}" + (f": {use.reason}" if use.reason else "")]
    if use.strict is not None and use.every is not None and use.site is not None:
        strict = use.strict
        lines += [
            f"use        {format_estimate(strict.use)}  (steered - largest control run on the model) / natural",
            f"margin     {format_estimate(strict.margin)}  steered - largest control ({strict.largest}); decides",
            f"natural    {format_estimate(use.natural)}  unedited next word",
            f"site       {sites[use.site]}; on choose pairs "
            + ", ".join(f"{name} {share:.2f}" for name, share in zip(sites, use.by_site, strict=True)),
            f"range      {use.clamped:.0%} of the effect remain with later activations in their natural range",
            f"solved     {use.solved:.1%} of the prefixes; the best of the six words is the argmax of the vocabulary in "
            f"{use.is_argmax:.1%}",
            "",
            format_scores(strict, use.every),
        ]
    if merges is not None:
        figure = "missing (other states are continued alike)" if merges.merges is None else (
            f"{format_estimate(merges.merges)}, floor {format_estimate(merges.floor)}"
        )  # fmt: skip
        lines += ["", f"merges     {figure}; agreement with the exact posterior {merges.agreement:.3f}"]
    if use.dropped:
        lines += ["", "not used   " + "\n           ".join(f"{n:,}: {reason}" for reason, n in use.dropped.items())]
    return "\n".join(lines)


def format_scores(strict: UseScore, all_pairs: UseScore) -> str:
    """A table: steered and controls, on strict and on all report pairs."""
    names = ["steered", *strict.controls]
    columns = [{"steered": score.steered, **score.controls} for score in (strict, all_pairs)]
    rows = [[name, *(format_estimate(column.get(name)) for column in columns)] for name in names]
    headers = [
        "target written",
        *(f"{n} ({s.pairs} pairs, {s.tasks} tasks)" for n, s in (("strict", strict), ("all", all_pairs))),
    ]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def format_estimate(estimate: Estimate | None) -> str:
    """Value and interval, such as `.862 [.825, .897]`; empty for None."""
    if estimate is None:
        return ""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def format_p(p: float) -> str:
    """Format a p value with two significant digits; a bound where it is too small for a float, since no test gives 0."""
    return f"{p:.2g}" if p >= 1e-300 else "<1e-300"
