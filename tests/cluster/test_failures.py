"""What goes wrong on a cluster, done for real: bad models, frozen and cut-off nodes, memory, storage, dead drivers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

pytest.importorskip("ray")
from quick_protocol import SMALL_SUITE
from ray.cluster_utils import Cluster
from test_cluster import STORE
from whole_runs import HELPERS, ROOT, Beside, below, call, committed, computes, only, same

from benchmark.runner.folder import RunFolder, lock_holder
from benchmark.runner.record import read_record
from benchmark.status import STOPPED, read_status
from benchmark.tasks.suite import SUITE_FOLDER

pytestmark = pytest.mark.slow
DRIVER = (
    "import sys; from quick_protocol import make_runs_quick, run_quickly; make_runs_quick(); sys.exit(run_quickly())"
)


def driver(*words: object, **environment: str) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    known = os.environ | {"PYTHONPATH": f"{HELPERS}:{ROOT}", "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-c", DRIVER, *map(str, words)]
    return subprocess.Popen(command, env=known, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(process: subprocess.Popen[str]) -> str:
    """What a driver that has to succeed said."""
    with process:
        try:
            _, said = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 0, said[-3000:]
    return said


def wait_for(what, over=lambda: False) -> None:
    """Until something is so; never by a clock, but not beyond what could bring it about."""
    while not what():
        assert not over(), "waited in vain"
        time.sleep(0.02)


def actors(*tops: int) -> list[int]:
    """Workers that evaluate now, among the processes below these."""
    return [process for top in tops for process in below(top) if computes(process)]


@pytest.fixture
def spoilt(tiny_folder, tmp_path):
    """A model that gives NaN wherever a prompt has a rare token: some tasks, not all."""
    folder = tmp_path / "spoilt"
    shutil.copytree(tiny_folder, folder)
    weights = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    weights["model.embed_tokens.weight"][vocabulary["v1"]] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_model_that_fails_on_some_tasks_is_not_published(spoilt, tmp_path, quick, capsys):
    out = tmp_path / "runs"
    assert call("--model", f"path:{spoilt}", "--suite", SMALL_SUITE, "--out", out, "--workers", 2) == 3
    found = read_status(only(out))
    assert found.state == STOPPED
    assert found.failed
    assert all("logits: NaN" in why or "hidden states: NaN" in why for why in found.failed.values())
    assert found.retries == {"invalid model": len(found.failed)}, "each was tried once more"
    assert sum(found.committed.values()) + len(found.failed) == sum(found.total.values()), "the rest went on"
    assert not (only(out) / "record.json").exists()


def test_a_worker_that_hangs_is_replaced(words, tmp_path, undisturbed, quick):
    frozen = []

    def freeze():
        frozen.append(actors(os.getpid())[0])
        os.kill(frozen[0], signal.SIGSTOP)

    with Beside(lambda: committed(tmp_path) >= 20 and bool(actors(os.getpid())), freeze):
        assert call(*words, "--out", tmp_path, "--workers", 2, "--deadline", 15) == 0
    assert frozen
    same(only(tmp_path), undisturbed)
    assert read_record(only(tmp_path) / "record.json").provenance.retries == {"deadline": 1}


def test_a_driver_killed_on_ray_goes_on_to_the_same_bytes(words, tmp_path, undisturbed, quick):
    for goal in (10, 30, 50):
        with driver(*words, "--out", tmp_path, "--workers", 2) as process:
            wait_for(lambda goal=goal: committed(tmp_path) >= goal, lambda process=process: process.poll() is not None)
            # Those below the driver have another parent once it is dead.
            orphans = below(process.pid)
            process.kill()
        root = only(tmp_path)
        assert lock_holder(root) is None
        wait_for(lambda orphans=orphans: not actors(*orphans))
    kept = {path.stem for path in (root / "shards").glob("*.json")}
    assert call(*words, "--out", tmp_path, "--workers", 2) == 0
    same(root, undisturbed)
    again = [e["piece"] for e in RunFolder(root).events() if e["event"] == "committed"]
    assert all(again.count(piece) <= 1 for piece in kept)


def test_a_full_object_store_does_not_matter(words, tmp_path, undisturbed, quick):
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False, "object_store_memory": STORE}
    )
    code = (
        "import sys, time, numpy as np, ray; ray.init(address=sys.argv[1], log_to_driver=False)\n"
        "held = []\n"
        "for _ in range(9): held.append(ray.get(ray.put(np.zeros(10_000_000, np.uint8))))\n"
        "print('full', flush=True); sys.stdin.read()"
    )
    try:
        with subprocess.Popen(
            [sys.executable, "-c", code, made.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as hog:
            assert "full" in hog.stdout.readline()
            assert call(*words, "--out", tmp_path, "--workers", 2, "--address", made.address) == 0
            hog.kill()
    finally:
        made.shutdown()
    same(only(tmp_path), undisturbed)


def test_calls_that_ray_loses_are_made_again(words, tmp_path, undisturbed, quick):
    chances = {"*": {"num_failures": 40, "req_failure_prob": 10, "resp_failure_prob": 10}}
    process = driver(
        *words, "--out", tmp_path, "--workers", 2, "--deadline", 15, RAY_testing_rpc_failure=json.dumps(chances)
    )
    finished(process)
    same(only(tmp_path), undisturbed)


def test_a_frozen_node_is_given_up(words, tmp_path, undisturbed, quick, monkeypatch):
    for name, value in (("initial_delay_ms", 1000), ("period_ms", 500), ("timeout_ms", 1000), ("failure_threshold", 4)):
        monkeypatch.setenv(f"RAY_health_check_{name}", str(value))
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    )
    nodes = [made.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    raylet = nodes[0].all_processes["raylet"][0].process
    stopped: list[int] = []

    def freeze():
        for process in below(raylet.pid):
            os.kill(process, signal.SIGSTOP)
            stopped.append(process)

    try:
        with Beside(lambda: committed(tmp_path) >= 20, freeze):
            assert call(*words, "--out", tmp_path, "--workers", 2, "--address", made.address) == 0
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        made.shutdown()
    assert stopped
    same(only(tmp_path), undisturbed)
    retries = read_record(only(tmp_path) / "record.json").provenance.retries
    assert sum(retries.values()) >= 1
    assert set(retries) <= {"node lost", "worker died"}


def memory_used() -> float:
    """Share of this machine's memory that is in use, as Ray's monitor counts it."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return 1 - free / total


def test_a_worker_out_of_memory_goes_on_with_half_the_batch(tmp_path, quick, wide_folder):
    suite = tmp_path / "large_batches.yaml"
    entry = yaml.safe_load((SUITE_FOLDER / "smoke.yaml").read_text()) | {"batch": 40, "shard": 40, "sha256": ""}
    suite.write_text(yaml.safe_dump(entry | {"probe": {**entry["probe"], "programs": 40}}))
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    limit = memory_used() + WIDE_ROOM / total
    words = ["--model", f"path:{wide_folder}", "--suite", suite, "--out", tmp_path / "runs", "--workers", 1]
    memory = {"RAY_memory_usage_threshold": f"{limit:.4f}", "RAY_memory_monitor_refresh_ms": "20"}
    finished(driver(*words, **memory))
    root = only(tmp_path / "runs")
    record = read_record(root / "record.json")
    assert record.provenance.retries["out of memory"] >= 1
    assert "a batch was halved where memory was short" in record.unofficial
    assert any(entry["event"] == "half the batch" for entry in RunFolder(root).events())


WIDE_ROOM = 2_400_000_000
"""Bytes beyond what is in use before the wide model's worker starts: enough for half a batch, too little for one."""


@pytest.fixture
def apart():
    """A head here, and a node in a network namespace of its own; gives the head's address and the link between them."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the ip command")
    name, link = f"karel{os.getpid()}", f"k{os.getpid() % 100000}"
    inside = ["ip", "netns", "exec", name]
    health = {
        f"RAY_health_check_{key}": str(value)
        for key, value in {
            "initial_delay_ms": 1000,
            "period_ms": 500,
            "timeout_ms": 1000,
            "failure_threshold": 6,
        }.items()
    }
    known = os.environ | health | {"OMP_NUM_THREADS": "1"}

    def do(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, env=known)

    start = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", f"--object-store-memory={STORE}"]
    do("ip", "netns", "add", name)
    try:
        do("ip", "link", "add", link, "type", "veth", "peer", "name", f"{link}n")
        do("ip", "link", "set", f"{link}n", "netns", name)
        do("ip", "addr", "add", "10.98.7.1/24", "dev", link)
        do("ip", "link", "set", link, "up")
        do(*inside, "ip", "addr", "add", "10.98.7.2/24", "dev", f"{link}n")
        do(*inside, "ip", "link", "set", f"{link}n", "up")
        do(*inside, "ip", "link", "set", "lo", "up")
        do(*start, "--head", "--node-ip-address=10.98.7.1", "--port=6399", "--include-dashboard=false")
        do(*inside, *start, "--address=10.98.7.1:6399", "--node-ip-address=10.98.7.2")
        yield "10.98.7.1:6399", link
    finally:
        subprocess.run([start[0], "stop", "--force"], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_a_network_partition_costs_time_only(words, tmp_path, undisturbed, quick, apart):
    address, link = apart
    cut: list[bool] = []

    def part():
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        cut.append(True)
        time.sleep(12)
        subprocess.run(["ip", "link", "set", link, "up"], check=True)

    with Beside(lambda: committed(tmp_path) >= 20, part):
        assert call(*words, "--out", tmp_path, "--workers", 2, "--address", address) == 0
    assert cut
    same(only(tmp_path), undisturbed)
    retries = read_record(only(tmp_path) / "record.json").provenance.retries
    assert sum(retries.values()) >= 1


def test_a_submitted_job_runs_where_its_code_is_sent(words, tmp_path, undisturbed, quick):
    pytest.importorskip("aiohttp", reason="ray job submit needs pip install -e '.[cluster]'")
    ray = str(Path(sys.executable).with_name("ray"))
    known = os.environ | {"OMP_NUM_THREADS": "1"}

    def do(*command: str) -> str:
        done = subprocess.run([ray, *command], capture_output=True, text=True, env=known, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        return done.stdout

    do("start", "--head", "--num-cpus=3", "--port=6398", "--dashboard-port=8299", f"--object-store-memory={STORE}")
    try:
        environment = {
            "working_dir": str(ROOT), "excludes": ["/submissions", "/runs", "/.git"],
            "env_vars": {"PYTHONPATH": "tests/helpers", "OMP_NUM_THREADS": "1"},
        }  # fmt: skip
        options = ["--address", "http://127.0.0.1:8299", "--runtime-env-json", json.dumps(environment), "--"]
        run = [sys.executable, "-c", DRIVER, *words, "--workers", "2", "--address", "auto", "--out", str(tmp_path)]
        do("job", "submit", *options, *run)
    finally:
        subprocess.run([ray, "stop", "--force"], capture_output=True, check=False)
    same(only(tmp_path), undisturbed)


def test_a_driver_outside_the_cluster_gives_the_same_bytes(words, tmp_path, undisturbed, quick):
    ray = str(Path(sys.executable).with_name("ray"))
    start = [ray, "start", "--head", "--num-cpus=3", "--port=6397", "--ray-client-server-port=10001"]
    start += ["--include-dashboard=false", f"--object-store-memory={STORE}"]
    subprocess.run(start, check=True, capture_output=True)
    try:
        finished(driver(*words, "--out", tmp_path, "--workers", 2, "--address", "ray://127.0.0.1:10001"))
    finally:
        subprocess.run([ray, "stop", "--force"], capture_output=True, check=False)
    same(only(tmp_path), undisturbed)
