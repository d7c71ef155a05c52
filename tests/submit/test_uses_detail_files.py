"""Full detail of a submission: what was measured verifies, and every forged entry or array is found without the model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from altered_values import altered, leaves
from forged import SHIPPED, SMALL
from safetensors.numpy import save_file
from toy_steerable import ToySteerable

from benchmark.artifacts import DETAIL_EVIDENCE, USES_DETAIL_RECORD
from benchmark.causal.detail.detail_evidence import EDIT_NAMES
from benchmark.causal.detail.detail_verdict import detail_not_applicable
from benchmark.causal.detail.measure_detail import measure_detail
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.pairs import PairSettings
from benchmark.errors import SubmissionError
from benchmark.runner.measurement_record import UsesDetailRecord
from benchmark.runner.measurements.uses_detail import DETAIL_VERSION
from benchmark.runner.record import read_record
from benchmark.submit.folder import MEASUREMENT_FILES, screen_folder
from benchmark.submit.measurements import check_uses_detail
from benchmark.submit.measurements.check import check_measurements
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import read_submission
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=60)
RECORD = read_record(SHIPPED / SMALL / "record.json")
SUBMISSION = read_submission(SHIPPED / SMALL)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """So few pairs that the check takes a moment."""
    monkeypatch.setattr(check_uses_detail, "pair_settings", lambda suite: FEW)


@pytest.fixture(scope="module")
def contents() -> tuple[bytes, dict[str, np.ndarray]]:
    """The record and the evidence of a toy that reads its state, as if they were of the shipped model."""
    measurement = measure_detail(ToySteerable(LAPTOP, FEW), LAPTOP, FEW)
    assert measurement.evidence is not None
    record = UsesDetailRecord(
        version=DETAIL_VERSION, official=True, unofficial=[], model=RECORD.model, suite=RECORD.suite,
        evidence_sha256="0" * 64, provenance=RECORD.provenance, sites=list(measurement.sites), detail=measurement.result,
    )  # fmt: skip
    return record.to_json().encode(), measurement.evidence.to_arrays()


def write(folder: Path, record: bytes, arrays: dict[str, np.ndarray] | None) -> Path:
    """Write both files, with the digest of the evidence in the record."""
    content = json.loads(record)
    content["evidence_sha256"] = None
    (folder / DETAIL_EVIDENCE).unlink(missing_ok=True)
    if arrays is not None:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / DETAIL_EVIDENCE)
        content["evidence_sha256"] = hashlib.sha256((folder / DETAIL_EVIDENCE).read_bytes()).hexdigest()
    (folder / USES_DETAIL_RECORD).write_text(json.dumps(content))
    return folder


def copied(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}


@pytest.fixture
def folder(tmp_path, contents) -> Path:
    return write(tmp_path, contents[0], contents[1])


def check(folder: Path) -> VerificationReport:
    report = VerificationReport(SUBMISSION, RECORD, [])
    check_measurements(report, LAPTOP, folder)
    return report


def is_refused(folder: Path) -> bool:
    try:
        return bool(check(folder).mismatches)
    except SubmissionError:
        return True


def test_what_was_measured_verifies(folder):
    report = check(folder)
    assert report.mismatches == []
    assert "whole programs, executed" in report.checks[0]
    assert {USES_DETAIL_RECORD, DETAIL_EVIDENCE} <= MEASUREMENT_FILES


def test_every_entry_of_the_record_is_checked(folder):
    text = (folder / USES_DETAIL_RECORD).read_text()
    # Names of sites are checked by a rerun; of the origin only the source's state is checked.
    paths = [path for path in leaves(json.loads(text)) if path[0] not in ("sites", "provenance") and path[:2] != ("model", "device")]  # fmt: skip
    figures = [path for path in paths if path[0] == "detail"]
    assert len(figures) > 300
    accepted = []
    # Every entry outside the figures, and of those one of each kind.
    kinds = {tuple(part for part in path if isinstance(part, str)): path for path in figures}
    for path in [*(path for path in paths if path[0] != "detail"), *kinds.values()]:
        forged = json.loads(text)
        inner = forged
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = altered(inner[path[-1]])
        (folder / USES_DETAIL_RECORD).write_text(json.dumps(forged))
        if not is_refused(folder):
            accepted.append(path)
    assert accepted == []
    (folder / USES_DETAIL_RECORD).write_text(text)
    assert not is_refused(folder)


WORDS = (
    "unedited", "choose", "edits", "clamped", "doses", "trained", "programs", "moves_unedited", "moves_choose", "moves",
    "move_controls", "move_clamped",
)  # fmt: skip
FLAGS = ("choose_is_solved", "is_solved", "moves_are_solved")
NOT_IN_FIGURES = ("moves_choose", "choose")
"""Arrays that choose a site only, so that other words need not change a figure."""


@pytest.mark.parametrize("name", [name for name in (*WORDS, *FLAGS) if name not in NOT_IN_FIGURES])
def test_other_words_give_other_figures(folder, contents, name):
    arrays = copied(contents[1])
    array = arrays[name]
    if name in FLAGS:
        array[: len(array) // 2] ^= 1
    else:
        is_run = array != NOT_RUN
        array[is_run] = (array[is_run] + 1) % 5
    write(folder, contents[0], arrays)
    assert is_refused(folder)


@pytest.mark.parametrize("name", [*WORDS, *FLAGS])
@pytest.mark.parametrize("change", ["not a word", "not run", "dtype", "shape", "missing"])
def test_impossible_arrays_are_refused(folder, contents, name, change):
    arrays = copied(contents[1])
    if change == "not a word":
        arrays[name].flat[np.flatnonzero(arrays[name].ravel() != NOT_RUN)[0]] = 77
    elif change == "not run":
        if name in FLAGS:
            arrays[name] += 2
        else:
            arrays[name].flat[np.flatnonzero(arrays[name].ravel() != NOT_RUN)[0]] = NOT_RUN
    elif change == "dtype":
        arrays[name] = arrays[name].astype(np.int32)
    elif change == "shape":
        arrays[name] = arrays[name][..., :-1]
    else:
        del arrays[name]
    write(folder, contents[0], arrays)
    with pytest.raises(SubmissionError, match=r"causal-detail\.data") as error:
        check(folder)
    assert "\n" not in str(error.value)


def test_subspaces_cannot_be_left_out_without_a_reason(folder, contents):
    arrays = copied(contents[1])
    for name in ("trained", "edits", "clamped"):
        is_das = ["DAS" in edit for edit in EDIT_NAMES]
        if name == "trained":
            arrays[name][:] = NOT_RUN
        elif name == "edits":
            arrays[name][:, is_das] = NOT_RUN
        else:
            arrays[name][is_das] = NOT_RUN
    write(folder, contents[0], arrays)
    assert any("a reason" in mismatch.entry for mismatch in check(folder).mismatches)


def test_not_applicable_has_no_evidence(tmp_path, contents):
    content = json.loads(contents[0])
    record = UsesDetailRecord.model_validate(content | {"detail": detail_not_applicable("no states"), "sites": []})
    assert check(write(tmp_path, record.to_json().encode(), None)).mismatches == []
    for forged in ({"sites": ["block 0"]}, {"detail": content["detail"]}):
        bare = json.loads(record.to_json()) | forged
        assert check(write(tmp_path, json.dumps(bare).encode(), None)).mismatches


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("official", False, "not an official measurement"),
        ("version", 99, "expected 1, measure again"),
        ("sites", [], "expected 1 to 12"),
        ("sites", ["x" * 41, "block 1"], "expected 1 to 40 characters"),
        ("surprise", 1, "surprise"),
    ],
)
def test_unofficial_and_malformed_records_are_refused(folder, entry, value, says):
    content = json.loads((folder / USES_DETAIL_RECORD).read_text()) | {entry: value}
    (folder / USES_DETAIL_RECORD).write_text(json.dumps(content))
    with pytest.raises(SubmissionError, match=says) as error:
        check(folder)
    assert "\n" not in str(error.value)


def test_screening_accepts_the_files_up_to_their_limit(tmp_path, folder):
    copy = tmp_path / "2026-11-26_x"
    copy.mkdir()
    for name in (USES_DETAIL_RECORD, DETAIL_EVIDENCE):
        (copy / name).write_bytes((folder / name).read_bytes())
    assert {path.name for path in screen_folder(copy)} == {USES_DETAIL_RECORD, DETAIL_EVIDENCE}
    (copy / DETAIL_EVIDENCE).write_bytes(bytes(600_001))
    with pytest.raises(SubmissionError, match=r"causal-detail\.data: 600,001 bytes"):
        screen_folder(copy)
