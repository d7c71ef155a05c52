"""A rerun of full detail with the weights gives the words again, and finds each forged array."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from agreement import loaded
from forged import SHIPPED, SMALL

from benchmark.causal.detail import detail_pieces, detail_verdict
from benchmark.causal.detail.das import train_basis
from benchmark.causal.detail.detail_evidence import detail_rows
from benchmark.causal.detail.detail_verdict import detail_not_applicable
from benchmark.causal.detail.measure_detail import measure_detail
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.pairs import PairSettings
from benchmark.models.steering import open_steerable
from benchmark.runner.measurement_record import UsesDetailRecord
from benchmark.runner.measurements.uses_detail import DETAIL_VERSION
from benchmark.runner.record import read_record
from benchmark.submit.measurements import repeat_uses_detail
from benchmark.submit.report import VerificationReport
from benchmark.submit.rerun import make_rerun_request
from benchmark.submit.schema import read_submission
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=80)
RECORD = read_record(SHIPPED / SMALL / "record.json")
SUBMISSION = read_submission(SHIPPED / SMALL)


def allow_unsolved(patch: pytest.MonkeyPatch) -> None:
    """An untrained model is measured as if it solved everything, with few steps of training."""
    patch.setattr(detail_pieces, "train_basis", partial(train_basis, steps=5))
    for module in (detail_pieces, detail_verdict):
        patch.setattr(module, "MIN_SOLVED", -1)
    patch.setattr(
        detail_pieces.DetailCollector, "_solves", lambda self, prepared, task, prefix: np.ones(len(task), bool)
    )
    patch.setattr(repeat_uses_detail, "pair_settings", lambda suite: FEW)


@pytest.fixture(autouse=True)
def unsolved(monkeypatch):
    allow_unsolved(monkeypatch)


@pytest.fixture(scope="module")
def measured(tiny_folder) -> tuple[UsesDetailRecord, dict[str, np.ndarray]]:
    with pytest.MonkeyPatch.context() as patch:
        allow_unsolved(patch)
        measurement = measure_detail(open_steerable(loaded(tiny_folder)), LAPTOP, FEW)
    assert measurement.evidence is not None
    record = UsesDetailRecord(
        version=DETAIL_VERSION, official=True, unofficial=[], model=RECORD.model, suite=RECORD.suite,
        evidence_sha256=None, provenance=RECORD.provenance, sites=list(measurement.sites), detail=measurement.result,
    )  # fmt: skip
    return record, measurement.evidence.to_arrays()


def request_of(model: Path, arrays: dict[str, np.ndarray]) -> repeat_uses_detail.DetailRequest:
    order = replace(make_rerun_request(SHIPPED / SMALL, SUBMISSION, RECORD, LAPTOP), folder=str(model))
    return repeat_uses_detail.choose_parts(order, detail_rows(LAPTOP, FEW), arrays)


def compare(record, request, repeated) -> VerificationReport:
    report = VerificationReport(SUBMISSION, RECORD, [])
    repeat_uses_detail.compare_detail(report, record, request, repeated)
    return report


def test_a_rerun_gives_the_words_again_and_finds_each_forged_array(measured, tiny_folder):
    record, arrays = measured
    request = request_of(tiny_folder, arrays)
    assert len(request.parts["report"]) == repeat_uses_detail.NUM_REPEATED
    repeated = repeat_uses_detail.repeat_detail(request)
    report = compare(record, request, repeated)
    assert report.mismatches == []
    assert "search for subspaces" in report.checks[0]
    for name in set(arrays) - {"moves_choose"}:
        forged = {key: part.copy() for key, part in arrays.items()}
        part = forged[name]
        is_run = part != NOT_RUN
        part[is_run] = (part[is_run].astype(int) + 1) % (2 if part.dtype == np.uint8 else 5)
        if name == "trained":
            part[is_run] = detail_rows(LAPTOP, FEW).pairs.target[detail_rows(LAPTOP, FEW).choose][np.where(is_run)[-1]]
        entries = [
            mismatch.entry for mismatch in compare(record, replace(request, evidence=forged), repeated).mismatches
        ]
        expected = {"moves_are_solved": "solved", "moves_unedited": "unedited"}.get(name, name)
        assert entries, name
        assert all(expected in entry for entry in entries), (name, entries)
    wrong = record.model_copy(update={"sites": ["elsewhere", *record.sites[1:]]})
    assert [m.entry for m in compare(wrong, request, repeated).mismatches] == ["rerun.uses-detail.sites"]


def test_a_rerun_finds_that_it_can_be_measured_after_all(measured, tiny_folder):
    request = request_of(tiny_folder, {})
    claimed = measured[0].model_copy(update={"detail": detail_not_applicable("no states"), "sites": []})
    entries = [m.entry for m in compare(claimed, request, repeat_uses_detail.repeat_detail(request)).mismatches]
    assert entries == ["rerun.uses-detail: it can be measured"]


def test_a_rerun_finds_that_subspaces_can_be_trained_after_all(measured, tiny_folder):
    record, arrays = measured
    request = request_of(tiny_folder, arrays)
    without = {name: part.copy() for name, part in arrays.items()}
    without["trained"][:] = NOT_RUN
    repeated = repeat_uses_detail.RepeatedDetail(
        {"subspace": {"trained": arrays["trained"][:, :, record.detail.site]}}, tuple(record.sites)
    )
    entries = [m.entry for m in compare(record, replace(request, evidence=without), repeated).mismatches]
    assert entries == ["rerun.uses-detail: subspaces can be trained"]
