"""Repeat a random part of a submission's measurements with its weights, in a bounded process, and compare.

Of `represents.json`: one probe seed, see `repeat_represents`; of `uses-detail.json`: see `repeat_uses_detail`. Of `uses.json`: 64 pairs under every edit and control, 64 edits by zero, and the scores of 64 prefixes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark.causal import pieces
from benchmark.causal.evidence import NOT_RUN, CausalEvidence, has_edits
from benchmark.causal.merges import merge_pairs
from benchmark.causal.pairs import PairSet, derive_pairs, prefix_texts
from benchmark.causal.session import CausalSession
from benchmark.causal.shams import check_zero_edit
from benchmark.causal.verdict import NOT_APPLICABLE, choose_site, differing_values
from benchmark.errors import ModelError
from benchmark.isolation import run_bounded
from benchmark.models.checkpoint import available_memory
from benchmark.runner.measurement_record import UsesRecord
from benchmark.runner.measurements.uses import UNTRAINED_SEED, pair_settings
from benchmark.runner.measurements.word_scorers import load_steerable, load_word_scorer
from benchmark.runner.plan import Job
from benchmark.submit.measurements.check import read_evidence, read_submitted_measurement
from benchmark.submit.measurements.check_uses import MERGE_SCORES, UsesCheck, expected_runs
from benchmark.submit.measurements.repeat_represents import repeat_represents
from benchmark.submit.measurements.repeat_uses_detail import repeat_uses_detail
from benchmark.submit.report import VerificationReport
from benchmark.submit.rerun import (
    DEFAULT_LIMITS,
    MEMORY_FRACTION,
    START_SECONDS,
    ProcessLimits,
    RerunRequest,
    make_rerun_request,
    open_screened_checkpoint,
)
from benchmark.tasks.suite import load_suite

NUM_REPEATED = 64
REPEAT_SECONDS = 1800.0
"""Time limit in seconds, besides `START_SECONDS`."""


@dataclass(frozen=True)
class _Tolerance:
    """What may differ between two computations: the processor and the batch change the last digits.

    Attributes:
        words: largest share of the words of an array that differ; one word always may, since equal scores have no order.
        score: largest difference of a score in nats.
        mean_score: largest mean difference of scores in nats.
    """

    words: float
    score: float
    mean_score: float


FLOAT32 = _Tolerance(words=0.01, score=5e-3, mean_score=5e-3)
HALF = _Tolerance(words=0.2, score=2.0, mean_score=0.15)
"""Of types of 16 bits: other batches changed 2 to 8% of the words of SmolLM2-135M, and scores by 0.06 nats in the mean."""


@dataclass(frozen=True)
class RepeatRequest:
    """Arguments of the subprocess that repeats pairs.

    Attributes:
        request: the model and the suite.
        rows: pairs that are repeated, sorted.
        merge_rows: prefixes of `merges.merge_pairs` that are scored again.
        sites: site of each semantics; empty if no state was replaced.
        untrained_site: site of the untrained copy.
        is_measured: whether words were written for pairs; otherwise the record says that no state can be replaced.
    """

    request: RerunRequest
    rows: tuple[int, ...]
    merge_rows: tuple[int, ...]
    sites: tuple[int, ...] = ()
    untrained_site: int = 0
    is_measured: bool = True


@dataclass(frozen=True)
class RepeatedPairs:
    """What the subprocess computed.

    Attributes:
        words: arrays of the evidence over all pairs, `NOT_RUN` but for the repeated ones; empty without states.
        scores: float [rows, 6] of the prefixes; None if the model gives no probabilities of words.
        sites: names of the sites.
        reason: why no state can be replaced.
        sham: what an edit by zero changed.
    """

    words: dict[str, np.ndarray] = field(default_factory=dict)
    scores: np.ndarray | None = None
    sites: tuple[str, ...] = ()
    reason: str = ""
    sham: str = ""


def rerun_measurements(folder: Path, report: VerificationReport, limits: ProcessLimits = DEFAULT_LIMITS) -> None:
    """Repeat a part of the measurements of a submission; mismatches are added to `report`.

    Args:
        folder: folder of the submission.
        report: report of its verification.
        limits: time and memory limit of the subprocess.

    Raises:
        ModelError: the weights are not available, or cannot be loaded within the limits.
        SubmissionError: the record or a file of the model requests code.
    """
    repeat_represents(folder, report, limits)
    repeat_uses_detail(folder, report, limits)
    suite, check = load_suite(report.record.suite.name), UsesCheck()
    record = read_submitted_measurement(UsesRecord, folder)
    if record is None:
        return
    assert isinstance(record, UsesRecord)
    evidence = read_evidence(check, record, suite, folder)
    pairs = derive_pairs(suite, pair_settings(suite))
    request = choose_request(make_rerun_request(folder, report.submission, report.record, suite), pairs, evidence)
    seconds = limits.seconds if limits.seconds is not None else START_SECONDS + REPEAT_SECONDS
    memory = limits.memory if limits.memory is not None else int(MEMORY_FRACTION * available_memory())
    repeated = run_bounded(repeat_pairs, request, seconds=seconds, memory=memory, subject=report.submission.name)
    compare_repeated(report, record, evidence, pairs, request, repeated)


def choose_request(request: RerunRequest, pairs: PairSet, evidence: Mapping[str, np.ndarray]) -> RepeatRequest:
    """Choose the pairs, a third of each kind that was run, and the prefixes; the choice cannot be predicted."""
    generator = random.SystemRandom()

    def sample(rows: np.ndarray, count: int) -> list[int]:
        return generator.sample(rows.tolist(), min(count, len(rows)))

    strict = pairs.is_report & pairs.is_strict
    kinds = [np.flatnonzero(part) for part in (strict, ~pairs.is_report, pairs.is_report & ~pairs.is_strict)]
    counts = [NUM_REPEATED - 2 * (NUM_REPEATED // 3), NUM_REPEATED // 3, NUM_REPEATED // 3]
    rows = sorted(row for part, count in zip(kinds, counts, strict=True) for row in sample(part, count))
    num_scored = len(evidence[MERGE_SCORES]) if MERGE_SCORES in evidence else 0
    merge_rows = sorted(sample(np.arange(num_scored), NUM_REPEATED))
    if "choose" not in evidence:
        return RepeatRequest(request, tuple(rows), tuple(merge_rows), is_measured=False)
    if not has_edits(evidence):
        unedited = sorted(sample(np.flatnonzero(~pairs.is_report), NUM_REPEATED))
        return RepeatRequest(request, tuple(unedited), tuple(merge_rows))
    stored = CausalEvidence.from_arrays(dict(evidence))
    counted = stored.is_solved & differing_values(pairs)
    sites = [choose_site(words, pairs, counted[s])[0] for s, words in enumerate(stored.choose)]
    untrained, _ = choose_site(stored.untrained_choose, pairs, np.ones(len(pairs), bool))
    return RepeatRequest(request, tuple(rows), tuple(merge_rows), tuple(sites), untrained)


def repeat_pairs(request: RepeatRequest) -> RepeatedPairs:
    """Load the model, and repeat the pairs and scores of a request; called in a process of its own."""
    import torch

    order = request.request
    torch.set_num_threads(1)
    checkpoint = open_screened_checkpoint(order)
    job = Job(order.suite, checkpoint, order.dtype, order.device, 0)
    pairs = derive_pairs(order.suite, pair_settings(order.suite))
    scores = _repeat_scores(job, pairs, request)
    try:
        session = CausalSession(load_steerable(job), order.suite, pairs)
        rows = np.array(request.rows)
        choose, report = rows[~pairs.is_report[rows]], rows[pairs.is_report[rows]]
        words = pieces.empty_evidence(len(pairs), len(session.model.sites))
        _insert(words, choose, pieces.collect_unedited(session, choose))
        if request.is_measured and not request.sites:
            return RepeatedPairs(words, scores, tuple(session.model.sites))
        means = session.read_mean_states()
        if not request.is_measured:
            pieces.collect_choose(session, means, np.flatnonzero(~pairs.is_report)[:NUM_REPEATED])
            return RepeatedPairs(scores=scores)
    except ModelError as error:
        return RepeatedPairs(scores=scores, reason=str(error))
    strict, others = report[pairs.is_strict[report]], report[~pairs.is_strict[report]]
    for part, arrays in (
        (choose, pieces.collect_choose(session, means, choose)),
        (strict, pieces.collect_report(session, means, request.sites, strict)),
        (others, pieces.collect_report(session, means, request.sites, others)),
    ):
        _insert(words, part, arrays)
    prompts = [session.prompts[task] for task in pairs.task[rows]]
    sham = check_zero_edit(session.model, prompts, prefix_texts(pairs.prefix[rows]))
    untrained = CausalSession(load_steerable(job, UNTRAINED_SEED), order.suite, pairs)
    words |= pieces.collect_untrained(untrained, rows, request.untrained_site)
    return RepeatedPairs(words, scores, tuple(session.model.sites), sham=sham or "")


def _insert(words: dict[str, np.ndarray], rows: np.ndarray, part: Mapping[str, np.ndarray]) -> None:
    """Write the arrays of a piece into those over all pairs."""
    for name in words.keys() & part.keys():
        words[name][..., rows] = part[name]


def _repeat_scores(job: Job, pairs: PairSet, request: RepeatRequest) -> np.ndarray | None:
    merges, rows = merge_pairs(job.suite, pair_settings(job.suite)), np.array(request.merge_rows, np.int64)
    try:
        scorer = load_word_scorer(job)
        return pieces.score_prefixes(scorer, job.suite, pairs, merges.task[rows], merges.prefix[rows])
    except ModelError:
        return None


def compare_repeated(
    report: VerificationReport,
    record: UsesRecord,
    evidence: Mapping[str, np.ndarray],
    pairs: PairSet,
    request: RepeatRequest,
    repeated: RepeatedPairs,
) -> None:
    """Compare what was repeated with the evidence; mismatches are added to `report`."""
    tolerance = FLOAT32 if request.request.dtype == "float32" else HALF
    merge_rows = list(request.merge_rows)
    report.compare("rerun.uses: words have probabilities", MERGE_SCORES in evidence, repeated.scores is not None)
    if MERGE_SCORES in evidence and repeated.scores is not None and merge_rows:
        differences = np.abs(evidence[MERGE_SCORES][merge_rows] - repeated.scores)
        largest, mean = float(differences.max()), float(differences.mean())
        report.compare(f"rerun.uses.{MERGE_SCORES}: largest difference", 0.0, largest, tolerance.score)
        report.compare(f"rerun.uses.{MERGE_SCORES}: mean difference", 0.0, mean, tolerance.mean_score)
    if not request.is_measured:
        report.compare("rerun.uses.use.verdict", record.use.verdict, NOT_APPLICABLE)
        report.compare("rerun.uses: states can be replaced", False, not repeated.reason)
        report.checks.append(f"rerun of {record.FILE}: not applicable, with the weights")
        return
    report.compare("rerun.uses: states can be replaced", True, bool(repeated.words))
    if not repeated.words:
        return
    report.compare("rerun.uses.sites", list(record.sites), list(repeated.sites))
    if request.sites:
        report.compare("rerun.uses: an edit by zero", "changes nothing", repeated.sham or "changes nothing")
    rows = np.array(request.rows)
    num_words = 0
    for name, is_run in {**expected_runs(pairs, bool(request.sites)), "is_solved": None, "is_argmax": None}.items():
        used = rows if is_run is None else rows[is_run[rows]]
        claimed, computed = evidence[name][..., used].astype(int), repeated.words[name][..., used].astype(int)
        if claimed.shape != computed.shape:
            report.compare(f"rerun.uses.{name}: shape", claimed.shape, computed.shape)
            continue
        assert (computed != NOT_RUN).all()
        num_words += computed.size
        differing = int((claimed != computed).sum())
        if differing > max(1, int(tolerance.words * computed.size)):
            report.compare(f"rerun.uses.{name}", f"{computed.size} words", f"{differing} of them differ")
    report.checks.append(
        f"rerun of {record.FILE}: {num_words:,} words of {len(rows)} pairs{', edits by zero' if request.sites else ''}, and the scores "
        f"of {len(merge_rows)} prefixes, with the weights"
    )
