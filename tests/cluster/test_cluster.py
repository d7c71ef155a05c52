"""Ray for real: the same bytes for any number of workers and nodes, whatever dies meanwhile."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")
from quick_protocol import QUICK
from ray.cluster_utils import Cluster
from shared_ray import AFTER, BEFORE, DEATHS, SharedExecutor
from whole_runs import at_commit, call, only, same

import benchmark.sweep
from benchmark.cluster.executor import EVALUATION, FIT
from benchmark.cluster.ray_executor import Node, ResourceRequest, insufficient_resources_message
from benchmark.runner.record import read_record

STORE = 100_000_000
PATIENT = ("--deadline", "86400", "--wait", "86400")
"""Nothing is given up for taking long, however busy the machine is."""


@pytest.fixture(scope="module")
def cluster(session_ray):
    """A head and another node, of one CPU each on this machine; the last test removes the other one."""
    session_ray.stop()
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE},
    )
    yield made, made.add_node(num_cpus=1, object_store_memory=STORE)
    made.shutdown()


@pytest.mark.usefixtures("quick", "shared_workers")
@pytest.mark.parametrize("workers", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 3))])
def test_any_number_of_workers_gives_the_same_bytes(words, tmp_path, undisturbed, workers):
    assert call(*words, "--out", tmp_path, "--workers", workers, *PATIENT) == 0
    check_undisturbed(tmp_path, undisturbed, workers)


def check_undisturbed(out: Path, undisturbed: Path, workers: int) -> None:
    same(only(out), undisturbed)
    assert only(out).name == undisturbed.name
    provenance = read_record(only(out) / "record.json").provenance
    assert (provenance.workers, provenance.retries) == (workers, {})
    assert len(provenance.processors) == 1


@pytest.mark.usefixtures("quick", "shared_workers")
def test_workers_stay_between_evaluation_and_fits(words, tmp_path, monkeypatch):
    started, served = [], []
    start_worker, submit = SharedExecutor.start_worker, SharedExecutor.submit

    def counted_start(self, kind):
        handle, call = start_worker(self, kind)
        started.append(handle._actor_id)
        return handle, call

    def counted_submit(self, handle, item, batch_scale):
        served.append((handle._actor_id, item.kind))
        return submit(self, handle, item, batch_scale)

    monkeypatch.setattr(SharedExecutor, "start_worker", counted_start)
    monkeypatch.setattr(SharedExecutor, "submit", counted_submit)
    assert call(*words, "--output-dir", tmp_path, "--workers", 2, *PATIENT) == 0
    kinds = [kind for _, kind in served]
    assert kinds.index(FIT) > kinds.index(EVALUATION)
    assert len(started) == 2
    assert {worker for worker, _ in served} <= set(started)  # on a busy machine one may do all


@pytest.mark.usefixtures("quick", "shared_workers")
def test_workers_killed_in_mid_shard_change_nothing(words, tmp_path, undisturbed):
    deaths = {"test-000007": BEFORE, "random-1-blind-000035": AFTER}
    (tmp_path / DEATHS).mkdir()
    for shard, moment in deaths.items():
        (tmp_path / DEATHS / shard).write_text(moment)
    assert call(*words, "--out", tmp_path / "runs", "--workers", 2, *PATIENT) == 0
    assert not list((tmp_path / DEATHS).iterdir())
    same(only(tmp_path / "runs"), undisturbed)
    assert read_record(only(tmp_path / "runs") / "record.json").provenance.retries == {"worker died": len(deaths)}


@pytest.mark.usefixtures("shared_workers")
def test_a_sweep_is_one_queue_that_goes_on(words, tmp_path, tiny_folder, quick, capsys):
    other = tmp_path / "models" / "other"
    shutil.copytree(tiny_folder, other)
    (other / "generation_config.json").write_text("{}")
    listed = tmp_path / "models.yaml"
    listed.write_text(
        f"suites: [{words[3]}]\nmodels:\n  - path:{tiny_folder}\n  - model: path:{other}\n  - path:nowhere\n"
    )
    options = ["--models", str(listed), "--out", str(tmp_path / "runs"), "--json"]
    assert benchmark.sweep.main([*options, "--workers", "2", *PATIENT], QUICK) == 3
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert [each["state"] for each in rows] == ["done", "done", "failed"]
    assert "path:nowhere: no folder" in captured.err
    assert rows[0]["valid %"] == rows[1]["valid %"]
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    before = [(folder / "record.json").read_bytes() for folder in folders]
    shutil.copytree(tiny_folder, tmp_path / "nowhere")
    listed.write_text(listed.read_text().replace("path:nowhere", f"path:{tmp_path / 'nowhere'}"))
    assert benchmark.sweep.main(options, QUICK) == 0
    assert [(folder / "record.json").read_bytes() for folder in folders] == before
    probes = {(folder / "probes.data").read_bytes() for folder in (tmp_path / "runs").iterdir()}
    assert len(probes) == 1, "the same weights under three names"


@pytest.mark.usefixtures("quick", "own_ray")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_that_the_run_starts_give_the_same_bytes(words, tmp_path, undisturbed, workers):
    assert call(*words, "--out", tmp_path, "--workers", workers, *PATIENT) == 0
    check_undisturbed(tmp_path, undisturbed, workers)


def test_what_can_never_be_met_is_said_and_not_waited_for(words, tmp_path, cluster, capsys, monkeypatch):
    made, _ = cluster
    slept: list[float] = []
    monkeypatch.setattr(
        "benchmark.cluster.ray_executor.time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append)
    )
    asked = {"--gpus-per-worker": "a worker requests 1 CPUs, 64 GPUs", "--cpus-per-worker": "a worker requests 64 CPUs"}
    for option, says in asked.items():
        assert call(*words, "--out", tmp_path, "--workers", 2, "--address", made.address, option, 64) == 2
        message = " ".join(capsys.readouterr().err.split())
        assert says in message
        assert "no node has them" in message
    assert not slept


@pytest.mark.usefixtures("quick", "patient_pool")
def test_nodes_of_which_one_is_removed_give_the_same_bytes(words, tmp_path, undisturbed, cluster, monkeypatch):
    made, node = cluster
    at_commit(monkeypatch, 20, lambda: made.remove_node(node, allow_graceful=False))
    assert call(*words, "--out", tmp_path, "--workers", 2, "--address", made.address, *PATIENT) == 0
    assert len(made.list_all_nodes()) == 1
    same(only(tmp_path), undisturbed)
    retries = read_record(only(tmp_path) / "record.json").provenance.retries
    assert set(retries) <= {"node lost", "worker died"}
    assert sum(retries.values()) <= 2


def test_no_cluster_there_is_said_in_a_line(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ray.init", refuse)
    assert call(*words, "--out", tmp_path, "--workers", 2, "--address", "127.0.0.1:1") == 2
    assert "--address 127.0.0.1:1: no Ray cluster there" in capsys.readouterr().err


def refuse(**_):
    raise ConnectionError("nobody listens")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--workers", "some"], "expected a whole number, at least 0 and at most 1024, or auto"),
        (["--address", "auto"], "needs --workers"),
        (["--workers", "1", "--gpus-per-worker", "1.5"], "a fraction of one GPU, or a whole number"),
        (["--workers", "1", "--deadline", "0"], "--deadline 0: expected a number, at least 1"),
        (["--out", "/tmp/ray/session_x/runtime_resources/working_dir_files/y"], "which Ray deletes"),
    ],
)
def test_options_that_cannot_be_are_refused(words, tmp_path, capsys, options, says):
    assert call(*words, "--out", tmp_path, *options) == 2
    assert says in capsys.readouterr().err


def test_room_on_a_node_is_the_scarcest_share():
    node = Node("a", cpus=16, gpus=2, memory=64e9)
    assert node.num_workers(ResourceRequest()) == 16
    assert node.num_workers(ResourceRequest(gpus=0.5)) == 4
    assert node.num_workers(ResourceRequest(gpus=2, cpus=4)) == 1
    assert node.num_workers(ResourceRequest(memory=20_000_000_000)) == 3
    assert node.num_workers(ResourceRequest(gpus=3)) == 0
    message = insufficient_resources_message(ResourceRequest(gpus=3, memory=2_000_000_000), [node])
    assert "3 GPUs and 2.0 GB of memory" in message
    assert "a: 16 CPUs, 2 GPUs, 64.0 GB" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("models: [path:a, {suites: [smoke]}]", "'model'"),
        ("models: [{model: path:a, extra: 1}]", "unknown entry 'extra'"),
        ("- path:a", "expected a list `models`"),
        ("models: [a]", "expected path:FOLDER"),
        ("models: []", "nothing to evaluate"),
    ],
)
def test_a_list_of_models_that_cannot_be_read_is_refused(tmp_path, capsys, content, says):
    listed = tmp_path / "models.yaml"
    listed.write_text(content)
    assert benchmark.sweep.main(["--models", str(listed)]) == 2
    assert says in capsys.readouterr().err
