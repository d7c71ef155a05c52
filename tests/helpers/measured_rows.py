"""Records of *Represents* and *Uses* for copies of shipped rows, from a few pairs whose words are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save

from benchmark.artifacts import CAUSAL_EVIDENCE, REPRESENTS_RECORD, ROTATION_EVIDENCE, USES_RECORD
from benchmark.board import steering_player
from benchmark.causal.evidence import NOT_RUN, CausalEvidence
from benchmark.causal.merges import merge_pairs, score_merges
from benchmark.causal.pairs import CHOOSE, PairSet, PairSettings, derive_pairs
from benchmark.causal.verdict import judge, not_applicable
from benchmark.probing.version4.rotation_verdict import PositionResult, RotationResult
from benchmark.runner.measurement_record import RepresentsRecord, UsesRecord
from benchmark.runner.record import read_record
from benchmark.statistics import Estimate
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=25)
SITES = ["block 0", "block 1"]
NO_STATES = "the model has no states that can be replaced; expected a network of transformers"
DELTA = Estimate(0.324, 0.307, 0.34, 2500)


@contextmanager
def few_pairs() -> Iterator[None]:
    """Players are built with the pairs of `FEW`."""
    with patch.object(steering_player, "PAIR_SETTINGS", FEW):
        yield


@cache
def planned() -> tuple[PairSet, CausalEvidence]:
    """Pairs, and the words of a model that always plans from the edited state, at block 1; it fails every seventh pair."""
    pairs = derive_pairs(LAPTOP, FEW)
    report, is_choose = pairs.is_report, pairs.split[pairs.task] == CHOOSE
    base, target = pairs.base_word.astype(np.int8), pairs.target.astype(np.int8)
    success = np.arange(len(pairs)) % 7 > 0
    written = np.where(success, target, base).astype(np.int8)
    untouched = np.where(report, base, NOT_RUN).astype(np.int8)
    steered = np.stack([np.where(report, written, NOT_RUN), *[untouched] * 4]).astype(np.int8)
    choose = np.full((5, 2, len(pairs)), NOT_RUN, np.int8)
    choose[:, 0, is_choose], choose[:, 1, is_choose] = base[is_choose], target[is_choose]
    strict = np.where(report & pairs.is_strict, base, NOT_RUN).astype(np.int8)
    merges = merge_pairs(LAPTOP, FEW)
    return pairs, CausalEvidence(
        is_solved=np.arange(len(pairs)) % 11 > 0, unedited=base, is_argmax=np.ones(len(pairs), bool), choose=choose,
        steered=steered, random=np.stack([strict] * 2), other_value=untouched, wrong_position=strict,
        clamped=steered[0], untrained_choose=choose[0] * 0, untrained=strict,
        merge_scores=np.log(merges.posterior + 0.02).astype(np.float32),
    )  # fmt: skip


def rotation_result(verdict: str = "REPRESENTS", reason: str = "") -> RotationResult:
    """A result whose figures differ, so that a figure in the wrong cell is seen."""
    small = Estimate(0.024, -0.014, 0.035, 2500)
    return RotationResult(
        verdict, reason, Estimate(0.99, 0.98, 1.0, 2500), 0.658, Estimate(0.332, 0.32, 0.344, 2500),
        {"token-history": -0.006, "record-places": 0.0012, "record-counts": -0.0034, "record-sums": 0.0091, "random-init": -0.0033},
        DELTA, DELTA, {"rotation": DELTA, "forward": small, "sideways": small}, 0.349, Estimate(0.34, 0.316, 0.364, 2500),
        Estimate(0.111, 0.102, 0.12, 2500), small, {"lr": 0.99}, -0.004, {"mp": 0.01}, 0.0,
        0.992, [PositionResult(i, 1 - 0.01 * i, 0.1, 1 - 0.1 * i, 500) for i in range(6)], 3634, 0.991, 0.701,
    )  # fmt: skip


def write_represents(folder: Path, **changes: object) -> None:
    """Write `represents.json` and its evidence; `changes` replace entries of the file."""
    evidence = b"evidence"
    (folder / ROTATION_EVIDENCE).write_bytes(evidence)
    _write(
        folder, RepresentsRecord, REPRESENTS_RECORD, evidence, {"version": 4, "rotation": rotation_result()}, changes
    )


def write_uses(folder: Path, **changes: object) -> None:
    """Write `uses.json` and its evidence; `changes` replace entries of the file."""
    pairs, evidence = planned()
    content = save(evidence.to_arrays())
    (folder / CAUSAL_EVIDENCE).write_bytes(content)
    merges = score_merges(merge_pairs(LAPTOP, FEW), evidence.merge_scores)
    entries = {"version": 1, "sites": SITES, "use": judge(evidence, pairs), "merges": merges}
    _write(folder, UsesRecord, USES_RECORD, content, entries, changes)


def write_not_applicable(folder: Path, reason: str = NO_STATES) -> None:
    """Write `uses.json` of a model that cannot be measured."""
    entries = {"version": 1, "sites": [], "use": not_applicable(reason), "merges": None}
    _write(folder, UsesRecord, USES_RECORD, None, entries, {})


def _write(
    folder: Path, kind: type, name: str, evidence: bytes | None, entries: dict[str, object], changes: dict[str, object]
) -> None:
    record = read_record(folder / "record.json")
    digest = None if evidence is None else hashlib.sha256(evidence).hexdigest()
    measured = kind(
        official=True, unofficial=[], model=record.model, suite=record.suite, track=record.track, evidence_sha256=digest,
        provenance=record.provenance, **entries,
    )  # fmt: skip
    (folder / name).write_text(json.dumps(json.loads(measured.to_json()) | changes))
