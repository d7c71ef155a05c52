"""Check `reach.json` by `reach.data`: the model's programs are labelled again, and every figure is computed from the sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.artifacts import REACH_EVIDENCE, REACH_RECORD, SAMPLES
from benchmark.errors import SubmissionError
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.probing.written.ahead import AHEAD_OFFSETS, AHEAD_SOURCES
from benchmark.probing.written.content import GROUPS, MAX_UNITS, OFFSETS, UnitRows, content_sources, too_few_programs
from benchmark.probing.written.content_labels import WrittenPrograms, label_content
from benchmark.probing.written.figures import AHEAD_ITEM, ReachFigures, conclude_reach, content_item
from benchmark.runner.measurement_record import ReachRecord
from benchmark.runner.measurements.reach import VERSION, parse_written
from benchmark.submit.report import VerificationReport
from benchmark.tasks.stage import GENERATED
from benchmark.tasks.suite import Suite

TOLERANCE = 1e-6
"""Absolute tolerance of a recomputed figure: the order of a floating-point sum depends on the processor."""
SUM_TOLERANCE = 1e-4
"""Relative tolerance between float32 sums of the same losses."""
MAX_LOSS = 60.0 * 2 + 5
"""Largest cross-entropy of a row in nats: logits are clamped to 60 in magnitude."""


@dataclass(frozen=True)
class ReachCheck:
    """See `check.MeasurementCheck`.

    Attributes:
        protocol: settings of the probes.
    """

    protocol: Protocol = STANDARD

    record_type = ReachRecord
    version = VERSION

    def expected_arrays(
        self, record: ReachRecord, suite: Suite, names: set[str]
    ) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `MeasurementCheck.expected_arrays`; the number of units follows from the claimed number of programs."""
        units = min(MAX_UNITS, max(1, record.written.distinct))
        seeds = len(self.protocol.seeds)
        expected: dict[str, tuple[str, tuple[int, ...]]] = {}
        for offset in OFFSETS:
            name, sources = content_item(offset), len(content_sources(offset))
            expected[f"{name}.by_unit"] = ("U32", (sources, len(GROUPS), units))
            expected[f"{name}.by_seed"] = ("U32", (sources, len(GROUPS), seeds))
        shape = (len(AHEAD_OFFSETS), len(AHEAD_SOURCES))
        expected[f"{AHEAD_ITEM}.by_unit"] = ("F32", (*shape, units))
        expected[f"{AHEAD_ITEM}.by_seed"] = ("F32", (*shape, seeds))
        return expected

    def check(
        self, report: VerificationReport, record: ReachRecord, suite: Suite, evidence: Mapping[str, np.ndarray]
    ) -> None:
        """See `MeasurementCheck.check`."""
        if report.lacks(SAMPLES, f"every figure of {REACH_RECORD}"):
            return
        texts = [row.text for row in report.samples if row.stage == GENERATED]
        if not texts:
            raise SubmissionError(
                f"{REACH_RECORD}: {SAMPLES} has no programs for the probe tasks, from which its figures are checked; leave it "
                "out, or measure the row again without --without protocol-3"
            )
        written = parse_written(texts, suite)
        if not evidence:
            expected = too_few_programs(written, self.protocol)
            if not expected:
                raise SubmissionError(f"{REACH_RECORD}: without {REACH_EVIDENCE}; measure again")
            report.compare("reach", record.written, conclude_reach(written, self.protocol, {}, expected), TOLERANCE)
            report.checks.append(f"{REACH_RECORD}: too few programs, counted again")
            return
        if written is None or written.num_distinct != record.written.distinct:
            count = 0 if written is None else written.num_distinct
            raise SubmissionError(
                f"{REACH_RECORD}: {record.written.distinct:,} distinct programs; the samples have {count:,}, measure again"
            )
        check_sums(evidence, written, self.protocol)
        recomputed = conclude_reach(written, self.protocol, evidence)
        report.compare("reach", _by_name(record.written), _by_name(recomputed), TOLERANCE)
        report.checks.append(
            f"{REACH_RECORD}: the model's {len(written.programs):,} programs, labelled again; every figure and interval, from "
            f"{REACH_EVIDENCE}"
        )


def _by_name(figures: ReachFigures) -> dict[str, Any]:
    """The figures with mappings in place of lists, whose entries are compared within the tolerance."""
    content = {f"{part.offset} {part.source} {part.depth} {part.frame}": part for part in figures.content}
    return {**vars(figures), "content": content, "ahead": {str(part.offset): part for part in figures.ahead}}


def check_sums(evidence: Mapping[str, np.ndarray], written: WrittenPrograms, protocol: Protocol) -> None:
    """Raise `SubmissionError` if an array has impossible values.

    Args:
        evidence: arrays of the dtypes and shapes of `ReachCheck.expected_arrays`.
        written: the programs that the model wrote.
        protocol: settings of the probes.
    """
    labels = label_content(written, protocol, OFFSETS)
    for offset in OFFSETS:
        rows = UnitRows.at_offset(labels, written, offset, protocol)
        name = content_item(offset)
        by_unit, by_seed = (evidence[f"{name}.{part}"].astype(np.int64) for part in ("by_unit", "by_seed"))
        if (by_unit > rows.sizes).any() or (by_seed > rows.seed_sizes).any():
            raise SubmissionError(f"{REACH_EVIDENCE}: {name} has more correct rows than there are rows")
        if (by_unit.sum(-1) != by_seed.sum(-1)).any():
            raise SubmissionError(f"{REACH_EVIDENCE}: sums of {name} by unit and by seed have other totals")
        if offset not in AHEAD_OFFSETS:
            continue
        o = AHEAD_OFFSETS.index(offset)
        losses, of_seeds = (evidence[f"{AHEAD_ITEM}.{part}"][o].astype(np.float64) for part in ("by_unit", "by_seed"))
        for array, sizes in ((losses, rows.sizes), (of_seeds, rows.seed_sizes)):
            if not np.isfinite(array).all() or (array < 0).any() or (array > MAX_LOSS * sizes).any():
                raise SubmissionError(f"{REACH_EVIDENCE}: {AHEAD_ITEM} has entries that are no cross-entropy")
        if not np.allclose(losses.sum(-1), of_seeds.sum(-1), rtol=SUM_TOLERANCE, atol=SUM_TOLERANCE):
            raise SubmissionError(f"{REACH_EVIDENCE}: sums of {AHEAD_ITEM} by unit and by seed have other totals")
