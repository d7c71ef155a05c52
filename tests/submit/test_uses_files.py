"""Forged `uses.json` and `causal.data`: every entry is checked by the other file, by the suite, or by a rerun."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered_values import altered, leaves
from forged import SHIPPED, SMALL
from safetensors.numpy import save_file

from benchmark.artifacts import CAUSAL_EVIDENCE, MAX_BYTES, USES_RECORD
from benchmark.calibrate.planners import PLANNER, Planner, PlannerWorld
from benchmark.causal import pieces
from benchmark.causal.evidence import CausalEvidence, has_edits
from benchmark.causal.measurement import measure_use
from benchmark.causal.merges import merge_pairs, score_merges
from benchmark.causal.pairs import PairSettings, derive_pairs
from benchmark.causal.verdict import not_applicable
from benchmark.errors import SubmissionError
from benchmark.runner.measurement_record import UsesRecord
from benchmark.runner.record import read_record
from benchmark.submit.folder import MEASUREMENT_FILES, files_digest, screen_folder
from benchmark.submit.measurements import check_uses, repeat
from benchmark.submit.measurements.check import check_measurements
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import read_submission
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=80)
RECORD = read_record(SHIPPED / SMALL / "record.json")
SUBMISSION = read_submission(SHIPPED / SMALL)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """So few pairs that the check takes a moment."""
    for module in (check_uses, repeat):
        monkeypatch.setattr(module, "pair_settings", lambda suite: FEW)


@pytest.fixture(scope="module")
def contents() -> tuple[bytes, dict[str, np.ndarray]]:
    """The record and the evidence of a planner that reads its state, as if they were of the shipped model."""
    measurement = measure_use(Planner(PlannerWorld(LAPTOP, FEW), PLANNER, 0), LAPTOP, settings=FEW)
    assert measurement.evidence is not None
    # A planner has no untrained copy; one that writes the same word everywhere takes its place.
    pairs = derive_pairs(LAPTOP, FEW)
    runs = check_uses.expected_runs(pairs)
    arrays = measurement.evidence.to_arrays()
    for name in ("untrained", "untrained_choose"):
        arrays[name][..., runs[name]] = 0
    # Its scores are known up to a constant per prefix.
    scores = arrays["merge_scores"].astype(np.float64)
    arrays["merge_scores"] = (scores - np.logaddexp.reduce(scores, 1, keepdims=True)).astype(np.float32)
    evidence = type(measurement.evidence).from_arrays(arrays)
    record = UsesRecord(
        version=check_uses.PAIRS_VERSION, official=True, unofficial=[], model=RECORD.model, suite=RECORD.suite,
        evidence_sha256="0" * 64, provenance=RECORD.provenance, sites=list(measurement.sites),
        use=check_uses.judge(evidence, pairs), merges=score_merges(merge_pairs(LAPTOP, FEW), arrays["merge_scores"]),
    )  # fmt: skip
    return record.to_json().encode(), arrays


def write(folder: Path, record: bytes, arrays: dict[str, np.ndarray] | None) -> Path:
    """Write both files, with the digest of the evidence in the record."""
    content = json.loads(record)
    content["evidence_sha256"] = None
    if arrays is not None:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / CAUSAL_EVIDENCE)
        content["evidence_sha256"] = hashlib.sha256((folder / CAUSAL_EVIDENCE).read_bytes()).hexdigest()
    (folder / USES_RECORD).write_text(json.dumps(content))
    return folder


@pytest.fixture
def folder(tmp_path, contents) -> Path:
    record, arrays = contents
    return write(tmp_path, record, {name: array.copy() for name, array in arrays.items()})


def check(folder: Path) -> VerificationReport:
    report = VerificationReport(SUBMISSION, RECORD, [])
    check_measurements(report, LAPTOP, folder)
    return report


def is_refused(folder: Path) -> bool:
    try:
        return bool(check(folder).mismatches)
    except SubmissionError:
        return True


def test_what_a_measurement_wrote_verifies(folder):
    report = check(folder)
    assert report.mismatches == []
    assert "derived again" in report.checks[0]
    assert json.loads((folder / USES_RECORD).read_text())["use"]["verdict"] == "USES"


def test_a_submission_without_measurements_verifies(tmp_path):
    report = check(tmp_path)
    assert (report.mismatches, report.checks) == ([], [])


def test_every_entry_of_the_record_is_checked(folder):
    content = json.loads((folder / USES_RECORD).read_text())
    # Names of sites are checked by a rerun, the device may differ; of the origin only the source's state is checked.
    paths = [
        path for path in leaves(content)
        if path[0] not in ("sites", "provenance") and path != ("model", "device")
    ]  # fmt: skip
    assert len(paths) > 100
    accepted = []
    for path in [*paths, ("provenance", "dirty")]:
        forged = json.loads((folder / USES_RECORD).read_text())
        inner = forged
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = altered(inner[path[-1]])
        (folder / USES_RECORD).write_text(json.dumps(forged))
        if not is_refused(folder):
            accepted.append(path)
        (folder / USES_RECORD).write_text(json.dumps(content))
    assert accepted == []
    assert not is_refused(folder)


def test_every_array_is_bound_to_the_record(folder, contents):
    for name, array in contents[1].items():
        arrays = {key: part.copy() for key, part in contents[1].items()}
        arrays[name].flat[0] += 1
        save_file(arrays, folder / CAUSAL_EVIDENCE)
        with pytest.raises(SubmissionError, match=r"its SHA-256 is not that of uses\.json"):
            check(folder)
        assert array.size


FIGURE_ARRAYS = (
    "is_solved", "unedited", "is_argmax", "steered", "random", "other_value", "wrong_position", "clamped", "untrained",
    "merge_scores",
)  # fmt: skip


@pytest.mark.parametrize("name", FIGURE_ARRAYS)
def test_words_that_a_figure_uses_give_another_figure(folder, contents, name):
    record, original = contents
    arrays = {key: part.copy() for key, part in original.items()}
    array = arrays[name]
    if name == "merge_scores":
        array[: len(array) // 2] = array[: len(array) // 2, ::-1]
    elif array.dtype == np.uint8:
        array[: len(array) // 2] ^= 1
    elif name in ("random", "other_value", "wrong_position", "untrained"):
        array[:] = np.where(array == check_uses.NOT_RUN, array, derive_pairs(LAPTOP, FEW).target)
    else:
        is_run = array != check_uses.NOT_RUN
        array[is_run] = (array[is_run] + 1) % 6
    write(folder, record, arrays)
    assert check(folder).mismatches


@pytest.mark.parametrize(
    "name", [name for name in FIGURE_ARRAYS if name not in ("merge_scores",)] + ["choose", "untrained_choose"]
)
@pytest.mark.parametrize("change", ["not a word", "not run", "dtype", "shape", "missing"])
def test_impossible_arrays_are_refused(folder, contents, name, change):
    record, original = contents
    arrays = {key: part.copy() for key, part in original.items()}
    if change == "not a word":
        arrays[name].flat[np.flatnonzero(arrays[name].ravel() != check_uses.NOT_RUN)[0]] = 77
    elif change == "not run":
        arrays[name] = arrays[name][..., ::-1].copy() if arrays[name].dtype != np.uint8 else arrays[name] + 2
        if name == "unedited":
            arrays[name][0] = check_uses.NOT_RUN
    elif change == "dtype":
        arrays[name] = arrays[name].astype(np.int32)
    elif change == "shape":
        arrays[name] = arrays[name][..., :-1]
    else:
        del arrays[name]
    write(folder, record, arrays)
    with pytest.raises(SubmissionError, match=r"causal\.data") as error:
        check(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
def test_scores_that_are_no_log_probabilities_are_refused(folder, contents, value):
    arrays = {key: part.copy() for key, part in contents[1].items()}
    arrays["merge_scores"][0, 0] = value
    write(folder, contents[0], arrays)
    with pytest.raises(SubmissionError, match="no log-probabilities"):
        check(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / CAUSAL_EVIDENCE).unlink(), "causal.data: not there"),
        (lambda folder: (folder / USES_RECORD).unlink(), "there without uses.json"),
        (lambda folder: edit(folder, "evidence_sha256", None), "though the record has no digest"),
        (lambda folder: edit(folder, "official", False), "not an official measurement"),
        (lambda folder: edit(folder, "unofficial", ["--limit 8"]), "not an official measurement"),
        (lambda folder: edit(folder, "version", 99), "expected 1, measure again"),
        (lambda folder: edit(folder, "sites", []), "expected 1 to 1,000"),
        (lambda folder: edit(folder, "surprise", 1), "surprise"),
        (lambda folder: edit(folder, "merges", {"merges": 1e300}), "merges"),
    ],
)
def test_half_a_measurement_and_unofficial_ones_are_refused(folder, change: Callable[[Path], None], says):
    change(folder)
    with pytest.raises(SubmissionError, match=says) as error:
        check(folder)
    assert "\n" not in str(error.value)


def edit(folder: Path, name: str, value: Any) -> None:
    content = json.loads((folder / USES_RECORD).read_text())
    content[name] = value
    (folder / USES_RECORD).write_text(json.dumps(content))


def test_not_applicable_without_evidence_and_with_merges_only(tmp_path, contents):
    content = json.loads(contents[0])
    use = json.loads(UsesRecord.model_validate(content | {"use": not_applicable("no states")}).to_json())["use"]
    bare = content | {"use": use, "sites": [], "merges": None}
    assert check(write(tmp_path, json.dumps(bare).encode(), None)).mismatches == []
    scores = {"merge_scores": contents[1]["merge_scores"]}
    assert check(write(tmp_path, json.dumps(bare | {"merges": content["merges"]}).encode(), scores)).mismatches == []
    for forged in (bare | {"merges": content["merges"]}, bare | {"use": content["use"]}, bare | {"sites": ["block 0"]}):
        (tmp_path / CAUSAL_EVIDENCE).unlink(missing_ok=True)
        assert check(write(tmp_path, json.dumps(forged).encode(), None)).mismatches


def test_screening_accepts_the_files_up_to_their_limits(tmp_path, folder):
    copy = tmp_path / "2026-11-26_x"
    copy.mkdir()
    for name in (USES_RECORD, CAUSAL_EVIDENCE):
        (copy / name).write_bytes((folder / name).read_bytes())
    assert {path.name for path in screen_folder(copy)} == {USES_RECORD, CAUSAL_EVIDENCE}
    (copy / CAUSAL_EVIDENCE).write_bytes(bytes(MAX_BYTES[CAUSAL_EVIDENCE] + 1))
    with pytest.raises(SubmissionError, match=r"causal\.data: 2,000,001 bytes"):
        screen_folder(copy)


def test_the_digest_of_a_folder_counts_measurements_unless_left_out(tmp_path, folder):
    (tmp_path / "x.json").write_text("{}")
    digests = [files_digest(tmp_path), files_digest(tmp_path, MEASUREMENT_FILES)]
    (folder / USES_RECORD).write_text("{}")
    assert digests[0] != files_digest(tmp_path)
    assert digests[1] == files_digest(tmp_path, MEASUREMENT_FILES)


def test_edits_may_be_missing_of_a_model_that_solves_too_few_tasks_alone(folder, contents):
    """The planner solves its tasks, so its evidence needs edits; with fewer solved it does not, and its verdict is N/A."""
    record, arrays = contents
    pairs = derive_pairs(LAPTOP, FEW)
    runs = check_uses.expected_runs(pairs, with_edits=False)
    unedited = {
        name: np.where(runs[name], part, check_uses.NOT_RUN).astype(part.dtype) if name in runs else part
        for name, part in arrays.items()
    }
    with pytest.raises(SubmissionError, match=r"has (words|entries) of"):
        check(write(folder, record, unedited))
    unedited["is_argmax"] = np.where(pairs.is_report, 0, arrays["is_argmax"]).astype(np.uint8)
    unsolved = unedited | {"is_solved": np.zeros_like(arrays["is_solved"])}
    report = check(write(folder, record, unsolved))
    assert {mismatch.entry.split(".")[0] for mismatch in report.mismatches} == {"uses"}
    content = json.loads(record)
    use = check_uses.judge(CausalEvidence.from_arrays(unsolved), pairs)
    assert use.verdict == "N/A"
    content["use"] = json.loads(UsesRecord.model_validate(content | {"use": use}).to_json())["use"]
    assert check(write(folder, json.dumps(content).encode(), unsolved)).mismatches == []
    half = {name: part.copy() for name, part in arrays.items()} | {"is_solved": unsolved["is_solved"]}
    half["steered"][..., :] = check_uses.NOT_RUN
    with pytest.raises(SubmissionError, match="steered has words of other pairs"):
        check(write(folder, json.dumps(content).encode(), half))


# A rerun


@pytest.fixture(scope="module", params=[False, True], ids=["unedited", "edited"])
def measured(tiny_folder, request) -> tuple[UsesRecord, dict[str, np.ndarray]]:
    """An untrained model, measured on few pairs: it solves too few tasks, and is edited as if it did not."""
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.huggingface import HuggingFaceModel
    from benchmark.models.interface import ModelSpec
    from benchmark.models.steering import open_steerable

    checkpoint = open_checkpoint(ModelSpec("path", str(tiny_folder)))
    models = [open_steerable(HuggingFaceModel(checkpoint, "float32", "cpu", random_seed=seed)) for seed in (None, 0)]
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setattr(pieces, "is_edited", lambda pairs, read: True)
        measurement = measure_use(models[0], LAPTOP, models[1], FEW)
    assert has_edits(measurement.evidence.to_arrays()) == request.param
    record = UsesRecord(
        version=1, official=True, unofficial=[], model=RECORD.model, suite=RECORD.suite, evidence_sha256=None,
        provenance=RECORD.provenance, sites=list(measurement.sites), use=measurement.use, merges=measurement.merges,
    )  # fmt: skip
    return record, measurement.evidence.to_arrays()


def request_of(model: Path, arrays: dict[str, np.ndarray]) -> repeat.RepeatRequest:
    from benchmark.submit.rerun import make_rerun_request

    order = make_rerun_request(SHIPPED / SMALL, SUBMISSION, RECORD, LAPTOP)
    order = replace(order, folder=str(model))
    return repeat.choose_request(order, derive_pairs(LAPTOP, FEW), arrays)


def compare(record, arrays, request, repeated) -> VerificationReport:
    report = VerificationReport(SUBMISSION, RECORD, [])
    repeat.compare_repeated(report, record, arrays, derive_pairs(LAPTOP, FEW), request, repeated)
    return report


def test_a_rerun_gives_the_words_again_and_finds_each_forged_array(measured, tiny_folder):
    record, arrays = measured
    request = request_of(tiny_folder, arrays)
    assert len(request.rows) == repeat.NUM_REPEATED
    repeated = repeat.repeat_pairs(request)
    report = compare(record, arrays, request, repeated)
    assert report.mismatches == []
    assert "64 pairs" in report.checks[0]
    assert ("edits by zero" in report.checks[0]) == has_edits(arrays)
    for name in [name for name, part in arrays.items() if (part != check_uses.NOT_RUN).any()]:
        forged = {key: part.copy() for key, part in arrays.items()}
        part = forged[name]
        if part.dtype == np.float32:
            part -= 0.1
        else:
            is_run = part != check_uses.NOT_RUN
            part[is_run] = (part[is_run].astype(int) + 1) % (2 if part.dtype == np.uint8 else 6)
        entries = [mismatch.entry for mismatch in compare(record, forged, request, repeated).mismatches]
        assert entries, name
        assert all(name in entry for entry in entries)
    wrong = record.model_copy(update={"sites": ["elsewhere", *record.sites[1:]]})
    assert [m.entry for m in compare(wrong, arrays, request, repeated).mismatches] == ["rerun.uses.sites"]


def test_half_precision_may_differ_by_more(measured, tiny_folder):
    """Scores and words as two orders of summation give them in 16 bits pass, others do not."""
    record, arrays = measured
    request = request_of(tiny_folder, arrays)
    repeated = repeat.repeat_pairs(request)
    half = replace(request, request=replace(request.request, dtype="bfloat16"))
    noisy = arrays | {"merge_scores": arrays["merge_scores"] - np.float32(0.1)}
    changed = np.array(request.rows)[::8]
    noisy["unedited"] = arrays["unedited"].copy()
    noisy["unedited"][changed] = (noisy["unedited"][changed] + 1) % 6
    assert compare(record, noisy, half, repeated).mismatches == []
    entries = {mismatch.entry.split(":")[0] for mismatch in compare(record, noisy, request, repeated).mismatches}
    assert entries == {"rerun.uses.unedited", "rerun.uses.merge_scores"}
    forged = noisy | {"merge_scores": arrays["merge_scores"] - np.float32(0.3)}
    entries = [mismatch.entry for mismatch in compare(record, forged, half, repeated).mismatches]
    assert entries == ["rerun.uses.merge_scores: mean difference"]


def test_a_rerun_finds_that_states_can_be_replaced_after_all(measured, tiny_folder):
    record, arrays = measured
    scores = {"merge_scores": arrays["merge_scores"]}
    request = request_of(tiny_folder, scores)
    repeated = repeat.repeat_pairs(request)
    claimed = record.model_copy(update={"use": not_applicable("no states")})
    entries = [mismatch.entry for mismatch in compare(claimed, scores, request, repeated).mismatches]
    assert entries == ["rerun.uses: states can be replaced"]
