"""Check `uses.json` by `causal.data`: pairs and targets are derived again, and every figure is computed from the words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmark.artifacts import CAUSAL_EVIDENCE, USES_RECORD
from benchmark.causal.evidence import NOT_RUN, CausalEvidence, has_edits
from benchmark.causal.merges import merge_pairs, score_merges
from benchmark.causal.pairs import PAIRS_VERSION, PairSet, derive_pairs
from benchmark.causal.pieces import empty_evidence
from benchmark.causal.targets import END, NEXT_WORDS
from benchmark.causal.verdict import NOT_APPLICABLE, judge, not_applicable, solves_too_few
from benchmark.errors import SubmissionError
from benchmark.files import sanitize
from benchmark.runner.measurement_record import UsesRecord
from benchmark.runner.measurements.uses import pair_settings
from benchmark.submit.report import VerificationReport
from benchmark.tasks.suite import Suite

MERGE_SCORES = "merge_scores"
MAX_SITES, MAX_SITE_NAME = 1000, 40
TOLERANCE = 1e-6
"""Absolute tolerance of a recomputed figure: the order of a floating-point sum depends on the processor."""
DTYPES = {np.dtype(np.int8): "I8", np.dtype(np.uint8): "U8"}


class UsesCheck:
    """See `check.MeasurementCheck`."""

    record_type = UsesRecord
    version = PAIRS_VERSION

    def expected_arrays(
        self, record: UsesRecord, suite: Suite, names: set[str]
    ) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `MeasurementCheck.expected_arrays`: scores for merges, and all words if any state could be replaced."""
        settings = pair_settings(suite)
        expected: dict[str, tuple[str, tuple[int, ...]]] = {
            MERGE_SCORES: ("F32", (len(merge_pairs(suite, settings).task), len(NEXT_WORDS)))
        }
        if names != {MERGE_SCORES}:
            if not 1 <= len(record.sites) <= MAX_SITES:
                raise SubmissionError(f"{USES_RECORD}: {len(record.sites)} sites; expected 1 to {MAX_SITES:,}")
            arrays = empty_evidence(len(derive_pairs(suite, settings)), len(record.sites))
            expected |= {name: (DTYPES[array.dtype], array.shape) for name, array in arrays.items()}
        return expected

    def check(
        self, report: VerificationReport, record: UsesRecord, suite: Suite, evidence: Mapping[str, np.ndarray]
    ) -> None:
        """See `MeasurementCheck.check`."""
        for site in record.sites:
            if not 0 < len(site) <= MAX_SITE_NAME:
                raise SubmissionError(f"{USES_RECORD}: site {sanitize(site)}; expected 1 to {MAX_SITE_NAME} characters")
        settings = pair_settings(suite)
        pairs, merges = derive_pairs(suite, settings), None
        if MERGE_SCORES in evidence:
            check_scores(evidence[MERGE_SCORES])
            merges = score_merges(merge_pairs(suite, settings), evidence[MERGE_SCORES])
        report.compare("uses.merges", record.merges, merges, TOLERANCE)
        if "unedited" in evidence:
            check_words(evidence, pairs)
            use = judge(CausalEvidence.from_arrays(dict(evidence)), pairs)
            report.checks.append(
                f"{USES_RECORD}: pairs and targets, derived again; verdict, and every figure and interval, from {CAUSAL_EVIDENCE}"
            )
        else:
            report.compare("uses.sites", record.sites, [])
            report.compare("uses.use.verdict", record.use.verdict, NOT_APPLICABLE)
            # The reason is what happened to the model, which only a rerun can tell.
            use = not_applicable(record.use.reason)
            report.checks.append(f"{USES_RECORD}: not applicable, with merges from {CAUSAL_EVIDENCE} if there are any")
        report.compare("uses.use", record.use, use, TOLERANCE)


def check_scores(scores: np.ndarray) -> None:
    """Raise `SubmissionError` if scores of words are no log-probabilities."""
    if not np.isfinite(scores).all() or scores.max(initial=0) > TOLERANCE:
        raise SubmissionError(f"{CAUSAL_EVIDENCE}: {MERGE_SCORES} has entries that are no log-probabilities")


def expected_runs(pairs: PairSet, with_edits: bool = True) -> dict[str, np.ndarray]:
    """bool [P] by array of words: the pairs on which it was run."""
    report, strict = pairs.is_report & with_edits, pairs.is_report & pairs.is_strict & with_edits
    choose = ~pairs.is_report & with_edits
    return {
        "unedited": ~pairs.is_report | report, "choose": choose, "steered": report, "random": strict,
        "other_value": report & (pairs.other_turns() > 0), "wrong_position": strict, "clamped": strict,
        "untrained_choose": choose, "untrained": strict,
    }  # fmt: skip


def check_words(evidence: Mapping[str, np.ndarray], pairs: PairSet) -> None:
    """Check that each array has a word exactly where it was run, and edits unless the model solves far too few tasks.

    Raises:
        SubmissionError: it has not.
    """
    for name in ("is_solved", "is_argmax"):
        if evidence[name].max(initial=0) > 1:
            raise SubmissionError(f"{CAUSAL_EVIDENCE}: {name} has entries other than 0 and 1")
    with_edits = has_edits(evidence) or not solves_too_few(evidence["is_solved"], pairs)
    if not with_edits and (evidence["is_solved"] | evidence["is_argmax"])[pairs.is_report].any():
        raise SubmissionError(f"{CAUSAL_EVIDENCE}: is_solved has entries of pairs that were not run")
    for name, is_run in expected_runs(pairs, with_edits).items():
        words = evidence[name]
        if words.min(initial=0) < NOT_RUN or words.max(initial=0) > END:
            raise SubmissionError(
                f"{CAUSAL_EVIDENCE}: {name} has entries that are no words; expected {NOT_RUN} to {END}"
            )
        if not ((words != NOT_RUN) == is_run).all():
            raise SubmissionError(f"{CAUSAL_EVIDENCE}: {name} has words of other pairs than those on which it is run")
