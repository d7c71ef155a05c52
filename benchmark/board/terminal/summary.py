"""The four columns of a row in words, for a terminal: solves, represents, uses, merges."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.causal.report import format_estimate
from benchmark.runner.measurement_record import MeasurementRecord, PreviewRecord, RepresentsRecord, UsesRecord
from benchmark.runner.record import Record
from benchmark.tasks.scoring import describe_accuracy

NOT_MEASURED = "not measured"


def format_summary(record: Record, measured: Mapping[str, MeasurementRecord]) -> str:
    """One line per question: the figure or verdict, and what it rests on.

    Args:
        record: the record of a run.
        measured: the records of its measurements.
    """
    represents, uses, merges = NOT_MEASURED, NOT_MEASURED, NOT_MEASURED
    for result in measured.values():
        if isinstance(result, RepresentsRecord | PreviewRecord):
            represents = _represents(result)
        elif isinstance(result, UsesRecord):
            uses, merges = _uses(result), _merges(result)
    lines = {"solves": describe_accuracy(record.accuracy), "represents": represents, "uses": uses, "merges": merges}
    return "\n".join(f"{name:<11} {text}" for name, text in lines.items())


def _represents(result: RepresentsRecord | PreviewRecord) -> str:
    rotation = result.rotation
    seeds = f"; {result.seeds} of {result.planned_seeds} probe seeds" if isinstance(result, PreviewRecord) else ""
    reason = f": {rotation.reason}" if rotation.reason else ""
    return f"{rotation.verdict}{reason} (delta {format_estimate(rotation.delta)}{seeds})"


def _uses(result: UsesRecord) -> str:
    use = result.use
    if use.strict is None:
        return f"{use.verdict}: {use.reason}"
    reason = f": {use.reason}" if use.reason else ""
    steered, largest = use.strict.steered.value, use.strict.controls[use.strict.largest].value
    return f"{use.verdict}{reason} (edits write the right word in {steered:.1%} of pairs, the largest control in {largest:.1%})"


def _merges(result: UsesRecord) -> str:
    if result.merges is None:
        return "N/A: the model gives no probabilities of words"
    figure = result.merges.merges
    return "missing (other states are continued alike)" if figure is None else format_estimate(figure)
