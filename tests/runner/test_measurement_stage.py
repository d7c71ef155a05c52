"""Measurements of a run: the same bytes for any workers and after any stop, damage computed again, N/A with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from quick_protocol import QUICK
from safetensors.numpy import load_file, save_file
from silent_progress import Silent
from whole_runs import HELPERS, at_commit, call, only

from benchmark.causal import pieces, verdict
from benchmark.causal.evidence import NOT_RUN
from benchmark.cluster.deadlines import Deadlines
from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.pool import Pool
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import LoadOptions, ModelSpec
from benchmark.runner.folder import RunFolder
from benchmark.runner.measurement_record import UsesRecord, read_measurement
from benchmark.runner.measurements import stage
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.registry import MEASUREMENTS
from benchmark.runner.measurements.stage import is_measured, measure_only, read_measured
from benchmark.runner.preflight import estimate_resources
from benchmark.runner.run import Run, RunConfig
from benchmark.runner.stages import Backend
from benchmark.runner.store import ResultStore

PAIR_SUITE = str(HELPERS / "pair_suite.yaml")
"""As the small suite, with programs long enough that there are strict pairs."""
ALL_MEASUREMENTS = Run.measurements
USES = MEASUREMENTS["uses"]
FILES = ("uses.json", "causal.data")
IS_EDITED = pieces.is_edited


def only_uses(run: Run) -> list[Measurement]:
    """The measurement of use, if it fits the run; the others have tests of their own."""
    return [measurement for measurement in ALL_MEASUREMENTS(run) if measurement.name == "uses"]


def edit_every_model(patch: pytest.MonkeyPatch) -> None:
    """Have all items computed, also of models that solve too few tasks to be edited."""
    patch.setattr(pieces, "is_edited", lambda pairs, read: bool(pieces.read_unedited(pairs, read)))


@pytest.fixture(autouse=True)
def measured(quick, monkeypatch):
    """Runs make their measurements, which quick runs leave out."""
    monkeypatch.setattr(Run, "measurements", only_uses)
    edit_every_model(monkeypatch)


def prepare(model: Path | str, out: Path, suite: str = PAIR_SUITE) -> Run:
    spec = ModelSpec.parse(model if isinstance(model, str) else f"path:{model}")
    return Run(RunConfig(suite, out=out, protocol=QUICK), open_checkpoint(spec))


def backend() -> Backend:
    return Backend(Pool(LocalExecutor(), 1), 0, 1, set())


def measure_alone(model: Path | str, out: Path) -> Path:
    run = prepare(model, out)
    measure_only(run, backend(), Silent())
    return run.root()


@pytest.fixture(scope="module")
def alone(tiny_folder, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "measurements", only_uses)
        edit_every_model(patch)
        return measure_alone(tiny_folder, tmp_path_factory.mktemp("alone"))


def same_result(first: Path, second: Path) -> None:
    assert (first / "causal.data").read_bytes() == (second / "causal.data").read_bytes()
    records = [read_measurement(UsesRecord, folder) for folder in (first, second)]
    assert None not in records
    assert records[0].model_copy(update={"provenance": records[1].provenance}) == records[1]


def test_a_run_measures_by_default_and_prints_the_card(tiny_folder, tmp_path, alone, capsys):
    assert call("--model", f"path:{tiny_folder}", "--suite", PAIR_SUITE, "--out", tmp_path) == 0
    root = only(tmp_path)
    same_result(root, alone)
    assert not (root / "shards").exists()
    output = capsys.readouterr().out
    assert "verdict    N/A: the model solves 0%" in output
    assert "agreement with the exact posterior" in output


def test_a_run_tells_the_estimated_time_of_its_items_to_the_pool(tiny_folder, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(Deadlines, "expect", lambda self, key, seconds: told.update({key.split()[-1]: seconds}))
    assert call("--model", f"path:{tiny_folder}", "--suite", PAIR_SUITE, "--out", tmp_path) == 0
    assert {"0", "uses"} <= set(told), "programs and states that need no texts, and the measurement"
    run = prepare(tiny_folder, tmp_path)
    estimate = estimate_resources(run.job, run.protocol, run.measurements())
    num_items = sum(map(len, USES.phases(run.job)))
    assert told["uses"] == pytest.approx(estimate.measurement_seconds["uses"] / num_items, rel=9)
    assert told["0"] == pytest.approx(estimate.shard_seconds, rel=9)
    assert min(told.values()) > 0


def test_what_a_run_leaves_out(words, tmp_path, capsys):
    assert call(*words, "--out", tmp_path / "a", "--accuracy-only") == 0
    assert call(*words, "--out", tmp_path / "b", "--without", "uses", "--json") == 0
    for name in "ab":
        assert not any((only(tmp_path / name) / file).exists() for file in FILES)
    assert "uses" not in json.loads(capsys.readouterr().out.splitlines()[-1])
    # The same command without the option adds what is missing.
    record = (only(tmp_path / "b") / "record.json").read_bytes()
    assert call(*words, "--out", tmp_path / "b", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["uses"]["use"]["verdict"] == "N/A"
    assert (only(tmp_path / "b") / "record.json").read_bytes() == record


def test_a_model_that_solves_too_few_tasks_is_not_edited(tiny_folder, tmp_path, alone, monkeypatch):
    """Its record has the reason of a run with all edits, and its evidence what it wrote unedited on choose pairs."""
    items: list[str] = []
    real = ResultStore.commit
    monkeypatch.setattr(
        ResultStore, "commit", lambda store, staged: (items.append(staged.name), real(store, staged))[1]
    )
    monkeypatch.setattr(pieces, "is_edited", IS_EDITED)
    # So few tasks as here would not decide.
    monkeypatch.setattr(verdict, "STANDARD_ERRORS", 0.1)
    root = measure_alone(tiny_folder, tmp_path)
    assert {item.split("-")[1] for item in items} == {"merges", "unedited"}
    records = [read_measurement(UsesRecord, folder) for folder in (root, alone)]
    assert [(record.use.verdict, record.use.reason, len(record.sites)) for record in records] == [
        ("N/A", "the model solves 0% of the tasks from the prefix; expected at least 30%", 2)
    ] * 2
    assert records[0].merges == records[1].merges
    first, full = (load_file(folder / "causal.data") for folder in (root, alone))
    is_run = first["unedited"] != NOT_RUN
    assert 0 < is_run.sum() < len(is_run)
    for name in ("unedited", "is_argmax"):
        assert np.array_equal(first[name][is_run], full[name][is_run])
    edits = first.keys() - {"unedited", "is_solved", "is_argmax", "merge_scores"}
    assert all((first[name] == NOT_RUN).all() and (full[name] != NOT_RUN).any() for name in edits)


@pytest.mark.parametrize("count", [1, 3])
def test_a_stopped_measurement_goes_on_to_the_same_bytes(tiny_folder, tmp_path, alone, monkeypatch, count):
    run, progress = prepare(tiny_folder, tmp_path), Silent()

    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_commit(patch, count, stop)
        with pytest.raises(KeyboardInterrupt):
            measure_only(run, backend(), progress)
    committed = {path.stem for path in (run.root() / "shards").glob("uses-*.json")}
    assert len(committed) == count
    computed: list[str] = []
    real = ResultStore.commit
    monkeypatch.setattr(
        ResultStore, "commit", lambda store, staged: (computed.append(staged.name), real(store, staged))[1]
    )
    measure_only(run, backend(), progress)
    assert not committed & set(computed)
    same_result(run.root(), alone)


def test_a_damaged_item_is_computed_again(tiny_folder, tmp_path, alone, monkeypatch):
    run, progress = prepare(tiny_folder, tmp_path), Silent()

    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_commit(patch, 2, stop)
        with pytest.raises(KeyboardInterrupt):
            measure_only(run, backend(), progress)
    path = run.root() / "shards" / "uses-merges-000000.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    measure_only(run, backend(), progress)
    assert any("uses-merges-000000: stored files are damaged" in line for line in progress.lines)
    same_result(run.root(), alone)


@pytest.mark.parametrize("file", FILES)
def test_an_altered_file_is_measured_again(tiny_folder, tmp_path, alone, file):
    run = prepare(tiny_folder, tmp_path)
    shutil.copytree(measure_alone(tiny_folder, tmp_path / "first"), run.root())
    assert is_measured(run.root(), USES)
    path = run.root() / file
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"??")
    assert not is_measured(run.root(), USES)
    measure_only(run, backend(), Silent())
    same_result(run.root(), alone)


def test_weights_that_give_no_numbers_are_recorded_as_not_applicable(tiny_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = np.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    run = prepare(broken, tmp_path / "runs")
    measure_only(run, backend(), Silent())
    record = read_measured(run)["uses"]
    assert record.use.verdict == "N/A"
    assert "NaN" in record.use.reason
    assert record.merges is None
    assert record.evidence_sha256 is None
    assert not (run.root() / "causal.data").exists()


@pytest.mark.parametrize(("name", "has_merges"), [("random", True), ("n-gram", True), ("search", False)])
def test_baselines_are_not_applicable_and_merge_where_they_have_probabilities(tmp_path, name, has_merges):
    run = prepare(f"baseline:{name}", tmp_path)
    measure_only(run, backend(), Silent())
    record = read_measured(run)["uses"]
    assert (record.use.verdict, record.sites) == ("N/A", [])
    assert "no states" in record.use.reason
    assert (record.merges is not None, (run.root() / "causal.data").exists()) == (has_merges, has_merges)
    if has_merges:
        assert sorted(load_file(run.root() / "causal.data")) == ["merge_scores"]


CUSTOM = """
from pathlib import Path
from agreement import loaded
from benchmark.models.steering import open_steerable

class Own:
    def __init__(self):
        self.network = loaded(Path({folder!r}))
    def generate(self, prompts, max_new_words):
        return self.network.generate(prompts, max_new_words)
    def log_likelihoods(self, prompts, programs):
        return self.network.log_likelihoods(prompts, programs)

class Editable(Own):
    def steerable(self):
        return open_steerable(self.network)

class Broken(Own):
    def steerable(self):
        return 3

def own(random_seed=None):
    return Own()

def editable(random_seed=None):
    return Editable()

def broken(random_seed=None):
    return Broken()
"""


@pytest.mark.parametrize(
    ("factory", "reason"),
    [("own", "has no method steerable"), ("editable", "the model solves 0%"), ("broken", "without batch_rows")],
)
def test_a_custom_class_is_measured_through_one_optional_method(
    tiny_folder, tmp_path, monkeypatch, alone, factory, reason
):
    (tmp_path / "own_editable.py").write_text(CUSTOM.format(folder=str(tiny_folder)))
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = ModelSpec.parse(f"py:own_editable:{factory}")
    checkpoint = open_checkpoint(spec, LoadOptions(own_code=True))
    run = Run(RunConfig(PAIR_SUITE, out=tmp_path / "runs", protocol=QUICK), checkpoint)
    measure_only(run, backend(), Silent())
    record, network = read_measured(run)["uses"], read_measurement(UsesRecord, alone)
    assert reason in record.use.reason
    assert network is not None
    if factory != "broken":
        assert record.merges.same == pytest.approx(network.merges.same, abs=1e-4)
    if factory == "editable":
        assert record.sites == network.sites


def test_a_suite_without_strict_pairs_is_not_applicable(words, tmp_path, capsys):
    assert call(*words, "--out", tmp_path) == 0
    assert "verdict    N/A: no strict pair can be derived" in capsys.readouterr().out


def test_suites_with_control_flow_have_no_record(tiny_folder, tmp_path):
    assert prepare(tiny_folder, tmp_path, "control").measurements() == []


def test_items_of_other_settings_are_computed_again(tiny_folder, tmp_path):
    job = prepare(tiny_folder, tmp_path).job
    from benchmark.causal.pairs import PairSettings
    from benchmark.runner.measurements.uses import UsesMeasurement

    digests = {
        stage.settings_digest(measurement, job) for measurement in (USES, UsesMeasurement(PairSettings(tasks=31)))
    }
    assert len(digests) == 2


def test_two_workers_that_share_the_items_give_the_same_bytes(tiny_folder, tmp_path, alone):
    run, progress = prepare(tiny_folder, tmp_path), Silent()
    folder = RunFolder(run.root())
    work = stage.MeasurementWork(USES, run.job, folder.store.root)
    workers = [work.prepare(), work.prepare()]
    for phase in USES.phases(run.job):
        for number, item in enumerate(reversed(phase)):
            for staged in workers[number % 2](item, 1.0):
                folder.store.commit(staged)
    measure_only(run, backend(), progress)
    same_result(run.root(), alone)
