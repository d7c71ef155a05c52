"""Repeat a random part of `causal-detail.data` with the weights, in the bounded process of a rerun.

Repeated are pairs under every edit of full detail that is computed without training, displacement pairs, whole programs, and
the search for subspaces at the site of the verdict. A trained subspace depends on the last digits of every step, so its
share of right words is compared, not its words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark.artifacts import USES_DETAIL_RECORD
from benchmark.causal.detail.detail_evidence import DAS, EDIT_NAMES, DetailRows, detail_rows, detail_sites
from benchmark.causal.detail.detail_pieces import (
    CHOOSE,
    MEANS,
    MOVE_CHOOSE,
    MOVE_REPORT,
    PROGRAM,
    REPORT,
    SUBSPACE,
    Arrays,
    DetailCollector,
    DetailPiece,
    piece_name,
    plan_detail,
)
from benchmark.causal.detail.detail_verdict import chosen_site
from benchmark.causal.detail.displacement import mean_codes
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.session import CausalSession
from benchmark.causal.verdict import NOT_APPLICABLE
from benchmark.errors import ModelError
from benchmark.isolation import run_bounded
from benchmark.models.checkpoint import available_memory
from benchmark.runner.measurement_record import UsesDetailRecord
from benchmark.runner.measurements.uses import pair_settings
from benchmark.runner.measurements.word_scorers import load_steerable
from benchmark.runner.plan import Job
from benchmark.submit.measurements.check import read_evidence, read_submitted_measurement
from benchmark.submit.measurements.check_uses_detail import UsesDetailCheck
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

NUM_REPEATED, NUM_PROGRAMS = 32, 12
REPEAT_SECONDS = 1800.0
"""Time limit in seconds, besides `START_SECONDS`."""
MAX_DIFFERING = 0.01
"""Largest share of the words of an array that may differ, and always one: equal scores may be ordered otherwise elsewhere."""
MAX_PROGRAMS_DIFFERING = 2
"""Largest number of whole programs that may differ: after one other word the rest differs."""
SHARE_TOLERANCE = 0.1
"""Largest difference of the share of right words of a trained subspace."""


@dataclass(frozen=True)
class DetailRequest:
    """Arguments of the subprocess.

    Attributes:
        rerun: the model and the suite.
        evidence: the stored arrays, from which sites follow; empty if the record says that nothing can be measured.
        parts: the positions that are repeated, by kind of piece.
    """

    rerun: RerunRequest
    evidence: Mapping[str, np.ndarray]
    parts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class RepeatedDetail:
    """What the subprocess computed.

    Attributes:
        arrays: arrays by kind of piece.
        sites: names of the sites.
        reason: why the model cannot be measured.
        no_subspaces: why no subspace was trained.
    """

    arrays: dict[str, Arrays] = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    reason: str = ""
    no_subspaces: str = ""


def repeat_uses_detail(folder: Path, report: VerificationReport, limits: ProcessLimits = DEFAULT_LIMITS) -> None:
    """Repeat a part of full detail; mismatches are added to `report`. Does nothing for a folder without it.

    Raises:
        ModelError: the weights are not available, or cannot be loaded within the limits.
        SubmissionError: a file is not as expected.
    """
    record = read_submitted_measurement(UsesDetailRecord, folder)
    if record is None:
        return
    assert isinstance(record, UsesDetailRecord)
    suite = load_suite(report.record.suite.name)
    evidence = read_evidence(UsesDetailCheck(), record, suite, folder)
    rerun = make_rerun_request(folder, report.submission, report.record, suite)
    request = choose_parts(rerun, detail_rows(suite, pair_settings(suite)), evidence)
    seconds = limits.seconds if limits.seconds is not None else START_SECONDS + REPEAT_SECONDS
    memory = limits.memory if limits.memory is not None else int(MEMORY_FRACTION * available_memory())
    repeated = run_bounded(repeat_detail, request, seconds=seconds, memory=memory, subject=report.submission.name)
    compare_detail(report, record, request, repeated)


def choose_parts(rerun: RerunRequest, rows: DetailRows, evidence: Mapping[str, np.ndarray]) -> DetailRequest:
    """Choose what is repeated; the choice cannot be predicted."""
    generator = random.SystemRandom()
    counts = {CHOOSE: len(rows.choose), REPORT: len(rows.report), MOVE_REPORT: len(rows.move_report)}
    parts = {kind: _sample(generator, count, NUM_REPEATED) for kind, count in counts.items()}
    parts[PROGRAM] = _sample(generator, len(rows.programs), NUM_PROGRAMS)
    return DetailRequest(rerun, dict(evidence), parts)


def _sample(generator: random.Random, count: int, size: int) -> tuple[int, ...]:
    return tuple(sorted(generator.sample(range(count), min(size, count))))


def repeat_detail(request: DetailRequest) -> RepeatedDetail:
    """Load the model and repeat the parts of a request; called in a process of its own."""
    import torch

    torch.set_num_threads(1)
    order, evidence = request.rerun, request.evidence
    checkpoint = open_screened_checkpoint(order)
    job = Job(order.suite, checkpoint, order.dtype, order.device, 0)
    settings = pair_settings(order.suite)
    rows = detail_rows(order.suite, settings)
    stored: dict[str, Arrays] = {}

    def read(name: str) -> Arrays:
        if name not in stored:
            raise ModelError(f"{name} is not repeated")
        return stored[name]

    try:
        session = CausalSession(load_steerable(job), order.suite, rows.pairs)
        collector = DetailCollector(session, rows, mean_codes(order.suite, settings), read)
        stored[piece_name(MEANS)] = collector.compute(DetailPiece(MEANS, 0, np.zeros(0, np.int64)))
        if not evidence:
            for piece in plan_detail(rows)[1]:
                stored[piece.name] = collector.compute(piece)
            collector.compute(DetailPiece(REPORT, 0, np.array(request.parts[REPORT])))
            return RepeatedDetail()
    except ModelError as error:
        return RepeatedDetail(reason=str(error))
    stored |= {piece.name: stored_piece(evidence, rows, piece) for piece in plan_detail(rows)[1]}
    names = tuple(session.model.sites[site] for site in detail_sites(len(session.model.sites)))
    if len(names) != len(evidence["choose"]):
        return RepeatedDetail(sites=names)
    arrays = {
        kind: collector.compute(DetailPiece(kind, 0, np.array(at, np.int64)))
        for kind, at in request.parts.items()
        if at
    }
    reason = ""
    try:
        site = chosen_site(evidence["choose"], evidence["choose_is_solved"].astype(bool), rows)
        arrays[SUBSPACE] = collector.compute(DetailPiece(SUBSPACE, site, np.zeros(0, np.int64)))
    except ModelError as error:
        reason = str(error)
    return RepeatedDetail(arrays, names, no_subspaces=reason)


def stored_piece(evidence: Mapping[str, np.ndarray], rows: DetailRows, piece: DetailPiece) -> Arrays:
    """The arrays of a choose piece as the evidence has them."""
    if piece.kind == CHOOSE:
        return {name: evidence[name][..., piece.at] for name in ("choose", "choose_is_solved")}
    at = rows.move_choose[piece.at]
    return {
        "solved": evidence["moves_are_solved"][at], "unedited": evidence["moves_unedited"][at],
        "moves_choose": evidence["moves_choose"][:, piece.at],
    }  # fmt: skip


def compare_detail(
    report: VerificationReport, record: UsesDetailRecord, request: DetailRequest, repeated: RepeatedDetail
) -> None:
    """Compare what was repeated with the evidence; mismatches are added to `report`."""
    evidence = request.evidence
    if not evidence:
        report.compare("rerun.uses-detail.detail.verdict", record.detail.verdict, NOT_APPLICABLE)
        report.compare("rerun.uses-detail: it can be measured", False, not repeated.reason)
        report.checks.append(f"rerun of {USES_DETAIL_RECORD}: not applicable, with the weights")
        return
    report.compare("rerun.uses-detail: it can be measured", True, not repeated.reason)
    report.compare("rerun.uses-detail.sites", list(record.sites), list(repeated.sites))
    if repeated.reason or len(repeated.sites) != len(evidence["choose"]):
        return
    rows = detail_rows(request.rerun.suite, pair_settings(request.rerun.suite))
    num_words = 0
    for kind, at in request.parts.items():
        for name, computed in repeated.arrays.get(kind, {}).items():
            claimed = claimed_words(evidence, rows, kind, name, np.array(at, np.int64))
            if name in ("edits", "clamped"):
                # Without a trained subspace its words are not repeated.
                is_das = np.array([edit in DAS for edit in EDIT_NAMES])
                claimed, computed = (
                    part[:, ~is_das] if name == "edits" else part[~is_das] for part in (claimed, computed)
                )
            num_words += computed.size
            differs = claimed.astype(int) != computed.astype(int)
            count = int(differs.any(-1).sum() if kind == PROGRAM else differs.sum())
            allowed = MAX_PROGRAMS_DIFFERING if kind == PROGRAM else max(1, int(MAX_DIFFERING * computed.size))
            if count > allowed:
                report.compare(f"rerun.uses-detail.{name}", f"{computed.size} words", f"{count} of them differ")
    _compare_subspaces(report, record, evidence, rows, repeated)
    report.checks.append(
        f"rerun of {USES_DETAIL_RECORD}: {num_words:,} words, and the search for subspaces at one site, with the weights"
    )


def claimed_words(
    evidence: Mapping[str, np.ndarray], rows: DetailRows, kind: str, name: str, at: np.ndarray
) -> np.ndarray:
    """The stored entries of an array of a piece at some positions."""
    if kind == PROGRAM:
        return evidence[name][:, at]
    if kind in (MOVE_CHOOSE, MOVE_REPORT) and name in ("solved", "unedited"):
        return evidence[{"solved": "moves_are_solved", "unedited": "moves_unedited"}[name]][rows.move_report[at]]
    return evidence[name][..., at]


def _compare_subspaces(
    report: VerificationReport,
    record: UsesDetailRecord,
    evidence: Mapping[str, np.ndarray],
    rows: DetailRows,
    repeated: RepeatedDetail,
) -> None:
    """Compare the shares of right words of the subspaces at the site of the verdict, on the pairs that they were trained on."""
    site = record.detail.site
    assert site is not None
    claimed = evidence["trained"][:, :, site]
    is_claimed, is_trained = bool((claimed != NOT_RUN).any()), SUBSPACE in repeated.arrays
    report.compare("rerun.uses-detail: subspaces can be trained", is_claimed, is_trained)
    if not (is_claimed and is_trained):
        return
    target = rows.pairs.target[rows.choose]
    computed = repeated.arrays[SUBSPACE]["trained"]
    is_run = computed[0, 0] != NOT_RUN
    shares = [(words[..., is_run] == target[is_run]).mean(-1) for words in (claimed, computed)]
    largest = float(np.abs(shares[0] - shares[1]).max())
    entry = f"rerun.uses-detail.trained: shares differ by at most {SHARE_TOLERANCE}"
    report.compare(entry, True, largest <= SHARE_TOLERANCE)
