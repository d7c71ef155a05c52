"""Check `uses-detail.json` by `causal-detail.data`: pairs and targets are derived again, every figure is computed from the words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmark.artifacts import DETAIL_EVIDENCE, USES_DETAIL_RECORD
from benchmark.causal.detail.detail_evidence import (
    MAX_SITES,
    DetailEvidence,
    DetailRows,
    detail_rows,
    empty_detail,
)
from benchmark.causal.detail.detail_runs import expected_detail_runs
from benchmark.causal.detail.detail_verdict import detail_not_applicable, judge_detail
from benchmark.causal.detail.displacement import mean_codes
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.targets import END
from benchmark.causal.verdict import NOT_APPLICABLE
from benchmark.errors import SubmissionError
from benchmark.files import sanitize
from benchmark.runner.measurement_record import UsesDetailRecord
from benchmark.runner.measurements.uses import pair_settings
from benchmark.runner.measurements.uses_detail import DETAIL_VERSION, MAX_SITE_NAME
from benchmark.submit.report import VerificationReport
from benchmark.tasks.suite import Suite

TOLERANCE = 1e-6
"""Absolute tolerance of a recomputed figure: the order of a floating-point sum depends on the processor."""
MAX_REASON = 1000
DTYPES = {np.dtype(np.int8): "I8", np.dtype(np.uint8): "U8"}


class UsesDetailCheck:
    """See `check.MeasurementCheck`."""

    record_type = UsesDetailRecord
    version = DETAIL_VERSION

    def expected_arrays(
        self, record: UsesDetailRecord, suite: Suite, names: set[str]
    ) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `MeasurementCheck.expected_arrays`."""
        if not 1 <= len(record.sites) <= MAX_SITES:
            raise SubmissionError(f"{USES_DETAIL_RECORD}: {len(record.sites)} sites; expected 1 to {MAX_SITES}")
        arrays = empty_detail(detail_rows(suite, pair_settings(suite)), len(record.sites))
        return {name: (DTYPES[array.dtype], array.shape) for name, array in arrays.items()}

    def check(
        self, report: VerificationReport, record: UsesDetailRecord, suite: Suite, evidence: Mapping[str, np.ndarray]
    ) -> None:
        """See `MeasurementCheck.check`."""
        for site in record.sites:
            if not 0 < len(site) <= MAX_SITE_NAME:
                raise SubmissionError(
                    f"{USES_DETAIL_RECORD}: site {sanitize(site)}; expected 1 to {MAX_SITE_NAME} characters"
                )
        for text in (record.detail.reason, record.detail.no_subspaces):
            if len(text) > MAX_REASON:
                raise SubmissionError(
                    f"{USES_DETAIL_RECORD}: a reason of {len(text):,} characters; at most {MAX_REASON:,}"
                )
        if not evidence:
            report.compare("uses-detail.sites", record.sites, [])
            report.compare("uses-detail.detail.verdict", record.detail.verdict, NOT_APPLICABLE)
            # The reason is what happened to the model, which only a rerun can tell.
            report.compare("uses-detail.detail", record.detail, detail_not_applicable(record.detail.reason))
            report.checks.append(f"{USES_DETAIL_RECORD}: not applicable")
            return
        settings = pair_settings(suite)
        rows = detail_rows(suite, settings)
        check_detail_words(evidence, rows, mean_codes(suite, settings))
        no_subspaces = record.detail.no_subspaces if (evidence["trained"] == NOT_RUN).all() else ""
        has_reason = bool(no_subspaces) or (evidence["trained"] != NOT_RUN).any()
        report.compare("uses-detail: a reason, or trained subspaces", True, bool(has_reason))
        result = judge_detail(DetailEvidence.from_arrays(dict(evidence)), rows, suite, no_subspaces)
        report.compare("uses-detail.detail", record.detail, result, TOLERANCE)
        report.checks.append(
            f"{USES_DETAIL_RECORD}: pairs and targets, derived again; whole programs, executed; every figure and interval, "
            f"from {DETAIL_EVIDENCE}"
        )


def check_detail_words(evidence: Mapping[str, np.ndarray], rows: DetailRows, codes: np.ndarray) -> None:
    """Check that each array has a word exactly where its edit was made.

    Raises:
        SubmissionError: it has not.
    """
    for name in ("choose_is_solved", "is_solved", "moves_are_solved"):
        if evidence[name].max(initial=0) > 1:
            raise SubmissionError(f"{DETAIL_EVIDENCE}: {name} has entries other than 0 and 1")
    for name, is_run in expected_detail_runs(rows, codes, evidence).items():
        words = evidence[name]
        if words.min(initial=0) < NOT_RUN or words.max(initial=0) > END:
            raise SubmissionError(
                f"{DETAIL_EVIDENCE}: {name} has entries that are no words; expected {NOT_RUN} to {END}"
            )
        if not ((words != NOT_RUN) == is_run).all():
            raise SubmissionError(
                f"{DETAIL_EVIDENCE}: {name} has words of other pairs than those on which it is run; measure again"
            )
