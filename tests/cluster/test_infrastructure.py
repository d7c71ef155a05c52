"""The machine below an embedded Ray: who may connect, where it listens and writes, memory limits, slow starts.

One Ray session serves all tests of this file but the slow ones; its TMPDIR has 107 characters, its home is empty.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray")
import ray
from whole_runs import HELPERS, ROOT, below, call, committed, computes, only, same

from benchmark import environment
from benchmark.cluster import pool as pool_module
from benchmark.cluster import ray_executor as cluster
from benchmark.cluster.executor import EVALUATION, INVALID_MODEL, OUT_OF_MEMORY, RAISED, WorkItem
from benchmark.cluster.local_executor import WorkerSession
from benchmark.cluster.pool import Pool
from benchmark.cluster.ray_executor import ResourceRequest, connect, private_auth_token, private_temp_dir
from benchmark.errors import ModelError, UsageError
from benchmark.models.checkpoint import available_memory
from benchmark.runner.record import read_record

LISTENING = "0A"


@dataclass(frozen=True)
class Eater:
    """Work that takes as many bytes as the call says; it keeps them while it goes on."""

    def prepare(self):
        def compute(size, batch_scale):
            return len([np.ones(10_000_000, np.uint8) for _ in range(0, size, 10_000_000)])

        return compute


@dataclass(frozen=True)
class AskPriority:
    """Work whose result is the niceness of the process that does it."""

    def prepare(self):
        return lambda payload, batch_scale: os.nice(0)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """An embedded Ray for two workers; gives its executor, its home, and the environment before it."""
    home = tmp_path_factory.mktemp("home")
    long = home / ("x" * (106 - len(str(home))))
    long.mkdir()
    assert len(str(long)) == 107
    # Workers get this module by value: they do not see the tests' folder.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("TMPDIR", str(long))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        for name in ("RAY_TMPDIR", "RAY_worker_niceness"):
            patch.delenv(name, raising=False)
        before = dict(os.environ)
        executor = connect(ResourceRequest(workers=2, cpus=1))
        yield executor, home, before
        executor.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def node():
    return ray._private.worker._global_node


def sockets(processes) -> set[str]:
    found = set()
    for process in processes:
        for path in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(OSError):
                link = str(path.readlink())
                if link.startswith("socket:["):
                    found.add(link[8:-1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_embedded_ray_listens_on_loopback_only(session):
    ours = sockets(below(os.getpid()))
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and words[9] in ours:
                addresses.append(words[1].split(":")[0])
    assert len(addresses) >= 3, "GCS, raylet and driver"
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert node().node_ip_address == "127.0.0.1"


CLIENT = """
import json, os, sys
from ray import _raylet
told = []
for token in json.loads(sys.argv[2]):
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ["RAY_AUTH_MODE"] = "token" if token else "disabled"
    if token:
        os.environ["RAY_AUTH_TOKEN"] = token
    _raylet.Config.initialize("")
    _raylet.AuthenticationTokenLoader.instance().reset_cache()
    try:
        client = _raylet.GcsClient(address=sys.argv[1])
        told.append(f"nodes {len(client.get_all_node_info(timeout=600))}")
    except Exception as problem:
        told.append(f"{type(problem).__name__}: {problem}")
print(json.dumps(told))
"""


def test_who_has_not_the_token_is_refused(session, tmp_path):
    token = os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_MODE"] == "token", "also where the user's environment switched it off"
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    tried = ["", "0" * 64, token]
    command = [sys.executable, "-c", CLIENT, node().gcs_address, json.dumps(tried)]
    done = subprocess.run(command, env=known | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    without, wrong, right = json.loads(done.stdout.splitlines()[-1])
    assert "Unauthenticated" in without or "Authentication" in without, without
    assert "Unauthenticated" in wrong or "Authentication" in wrong, wrong
    assert right == "nodes 1"


def test_the_token_is_in_no_file_and_the_files_are_private(session):
    _, home, _ = session
    token = os.environ["RAY_AUTH_TOKEN"].encode()
    assert len(token) == 64
    folder = Path(node().get_temp_dir_path())
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.parent.parent == Path("/tmp"), "the user's TMPDIR is too long for sockets"
    assert not (home / ".ray").exists()
    files = [path for top in (folder, home) for path in top.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if token in path.read_bytes()]


def test_a_worker_has_the_priority_of_the_run(session, patient_pool):
    executor, _, _ = session
    done = []
    pool = Pool(executor, 1)
    try:
        pool.drain([WorkItem("a", EVALUATION, "priority", AskPriority(), None, done.append)])
    finally:
        pool.close()
    assert done == [os.nice(0)]


def test_a_worker_with_slow_imports_is_started_once(session, monkeypatch):
    executor, _, _ = session
    monkeypatch.setattr(cluster, "IMPORTS", ("numpy", "benchmark.runner.jobs", "this_is_slow"))
    monkeypatch.setattr(cluster, "RayActor", SlowActor)
    resends, hired, events, done = [], [], [], []
    plain_start_worker, plain_continue = executor.start_worker, executor.continue_start

    def start_worker(kind):
        hired.append(kind)
        return plain_start_worker(kind)

    def continue_start(handle, resend=False):
        # Placed: from now on a word is due every two seconds, and none comes while the module is imported.
        monkeypatch.setattr(pool_module, "START_DEADLINE", 2.0)
        resends.append(resend)
        return plain_continue(handle, resend)

    monkeypatch.setattr(executor, "start_worker", start_worker)
    monkeypatch.setattr(executor, "continue_start", continue_start)
    pool = Pool(executor, 1)
    try:
        with pool.reporting(lambda event, **details: events.append(event), lambda line: None):
            pool.drain([WorkItem("a", EVALUATION, "eater", Eater(), 10_000_000, done.append)])
    finally:
        pool.close()
    assert done == [1]
    assert hired == [EVALUATION]
    assert events == []
    assert True in resends


class SlowActor(cluster.RayActor):
    """One of its modules takes 6 s to import."""

    def start(self, expected, resend=False):
        if not resend and self.is_placed and self.imports == ["this_is_slow"]:
            time.sleep(6)
            self.imports.clear()
        return super().start(expected, resend)


def groups_writable() -> Path | None:
    """This process's own memory control group, where groups can be made below it."""
    for folder in environment._cgroup_folders():
        if os.access(folder, os.W_OK) and os.geteuid() == 0:
            return folder
    return None


def test_a_worker_that_the_kernel_kills_for_memory_is_out_of_memory(session, monkeypatch):
    executor, _, _ = session
    # The imports that this work needs; the other libraries take seconds to import.
    monkeypatch.setattr(cluster, "IMPORTS", ("numpy", "benchmark.runner.jobs"))
    group = groups_writable()
    if group is None:
        pytest.skip("no memory control group can be made here")
    inner = group / f"karel-test-{os.getpid()}"
    try:
        inner.mkdir()
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    told, done = [], []
    pool = Pool(executor, 1)
    # As it is where the driver is in the group too, which would spoil this process.
    monkeypatch.setattr(environment, "_cgroup_folders", lambda: [inner])
    monkeypatch.setattr(executor, "num_oom_kills", environment.count_oom_kills())

    def confine(processes):
        for process in processes:
            (inner / "cgroup.procs").write_text(str(process))
        limit = 140_000_000
        name, swap = ("memory.max", "memory.swap.max") if (inner / "memory.max").exists() else (
            "memory.limit_in_bytes", "memory.memsw.limit_in_bytes",
        )  # fmt: skip
        (inner / name).write_text(str(limit))
        with suppress(OSError):
            (inner / swap).write_text(str(limit))

    try:
        pool.drain([WorkItem("warm", EVALUATION, "eater", Eater(), 0, done.append)])
        confine([ray.get(pool.workers[0].handle.__ray_call__.remote(lambda actor: os.getpid()))])
        pool.drain(
            [WorkItem("a", EVALUATION, "eater", Eater(), 400_000_000, done.append, lambda *said: told.append(said))]
        )
    finally:
        pool.close()
        until = time.monotonic() + 30
        while inner.exists() and time.monotonic() < until:
            with suppress(OSError):
                inner.rmdir()
            time.sleep(0.05)
    assert done == [0, 40]
    ((cause, why),) = told
    assert cause == OUT_OF_MEMORY
    assert why == "the kernel killed the worker for memory: the control group's limit is 0.1 GB"
    assert len(told) == 1, "the next worker has no limit"


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (MemoryError(), OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), OUT_OF_MEMORY),
        (RuntimeError("std::bad_alloc"), OUT_OF_MEMORY),
        (ModelError("no such weights"), INVALID_MODEL),
        (RuntimeError("shape mismatch"), RAISED),
        (OSError(errno.EIO, "Input/output error"), RAISED),
    ],
)
def test_short_memory_is_known_in_every_guise(problem, outcome):
    assert WorkerSession().run("x", Raiser(problem), None, 1.0).status == outcome
    wrapped = ModelError("cannot load")
    wrapped.__cause__ = problem
    assert WorkerSession().run("x", Raiser(wrapped), None, 1.0).status == (
        OUT_OF_MEMORY if outcome == OUT_OF_MEMORY else INVALID_MODEL
    )


@dataclass(frozen=True)
class Raiser:
    problem: Exception

    def prepare(self):
        raise self.problem


def test_memory_beyond_a_limit_of_the_process_is_out_of_memory():
    code = (
        "import resource, sys\nfrom benchmark.models.checkpoint import available_memory\nbefore = available_memory()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)\n"
        "left = available_memory()\nprint(before > 400_000_000, 100_000_000 < left <= 300_000_000)\n"
        "import numpy as np\n"
        "try: np.ones(left + 50_000_000, np.uint8)\nexcept MemoryError: print('MemoryError')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "MemoryError"]


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_is_read(tmp_path, monkeypatch, version):
    """The tightest of the own group and those above; caches that can be reclaimed do not count as used."""
    monkeypatch.setattr(environment, "CGROUPS", tmp_path)
    monkeypatch.setattr(environment, "PROC_SELF", tmp_path)
    limit, used, cache, kills = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control") if version == 1
        else ("memory.max", "memory.current", "inactive_file", "memory.events")
    )  # fmt: skip
    root = tmp_path / "memory" if version == 1 else tmp_path
    own = root / "a" / "b"
    own.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("7:cpu:/x\n4:memory:/a/b\n" if version == 1 else "0::/a/b\n")
    (tmp_path / "cgroup.controllers").write_text("memory\n")

    def write(folder, **values):
        for name, value in values.items():
            (folder / {"limit": limit, "used": used, "kills": kills}[name]).write_text(f"{value}\n")

    none = "9223372036854771712" if version == 1 else "max"
    write(own, limit=none, used=100)
    assert environment.available_limit() is None
    assert environment.cgroup_memory_limit() is None
    write(own, limit=1000, used=700, kills="low 0\noom_kill 3")
    (own / "memory.stat").write_text(f"cache 5\n{cache} 200\n")
    assert environment.available_limit() == 500
    write(root / "a", limit=900, used=800, kills="oom_kill 4")
    assert environment.available_limit() == 100
    assert environment.cgroup_memory_limit() == 900
    assert environment.count_oom_kills() == 4
    assert available_memory() == 100
    write(root / "a", limit=100, used=800)
    assert environment.available_limit() == 0
    (tmp_path / "cgroup").write_text("4:memory:/seen/outside/only\n" if version == 1 else "0::/seen/outside/only\n")
    assert environment.available_limit() is None
    write(root, limit=50, used=20)
    assert environment.available_limit() == 30, "a container's own group is the root that it sees"


def test_a_token_is_new_each_time_and_goes_with_its_context(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/somewhere")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    tokens = set()
    for _ in range(2):
        with private_auth_token() as token:
            assert os.environ["RAY_AUTH_TOKEN"] == token
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert "RAY_AUTH_TOKEN_PATH" not in os.environ
            tokens.add(token)
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/somewhere"
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert len(tokens) == 2


def test_a_private_folder_is_short_closed_and_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("y" * 100)))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    old = os.umask(0)
    try:
        with private_temp_dir() as folder:
            longest = folder / "session_2026-11-27_08-31-44_103124_1234567" / "sockets" / "plasma_store"
            assert len(os.fsencode(longest)) <= cluster.MAX_SOCKET_PATH
            assert folder.parent.stat().st_mode & 0o777 == 0o700
            (folder / "x").write_text("x")
    finally:
        os.umask(old)
    assert not folder.parent.exists()


def test_no_place_for_sockets_is_said_in_a_line(monkeypatch):
    monkeypatch.setattr(cluster.tempfile, "mkdtemp", partial(refuse, OSError(errno.EROFS, "Read-only file system")))
    monkeypatch.setenv("RAY_TMPDIR", "/" + "z" * 60)
    with pytest.raises(UsageError) as caught:
        connect(ResourceRequest(workers=1))
    message = str(caught.value)
    assert "61 bytes, at most 18 fit" in message
    assert "/tmp: Read-only file system" in message
    assert "set RAY_TMPDIR" in message
    assert "\n" not in message


def refuse(problem, *_, **__):
    raise problem


def test_a_ray_that_does_not_start_is_the_machines_fault(monkeypatch):
    tried = []

    def fail(**options):
        tried.append(options)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(cluster.BenchmarkError) as caught:
        cluster._start_embedded(ray, 2, Path("/tmp"))
    assert len(tried) == cluster.MAX_RAY_STARTS == 6
    message = str(caught.value)
    assert "Ray did not start on this machine in 6 attempts (The current node timed out" in message
    assert "load is" in message
    assert "--address" not in message


def test_a_full_disk_is_told_from_a_slow_machine(monkeypatch):
    monkeypatch.setattr(ray, "init", partial(refuse, OSError(errno.ENOSPC, "No space left on device")))
    monkeypatch.setattr(cluster.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(cluster.StorageError, match=r"0 MB free, and Ray needs 50 MB.*RAY_TMPDIR"):
        cluster._start_embedded(ray, 2, Path("/tmp/a/r"))


@pytest.mark.parametrize("free", [0, 1_000_000, None])
def test_small_shared_memory_is_not_asked_of_ray(monkeypatch, free):
    asked = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options))
    monkeypatch.setattr(cluster, "SHARED_MEMORY", Path("/nowhere/at/all"))
    if free is not None:
        monkeypatch.setattr(cluster, "free_shared_memory", lambda: free)
    cluster._start_embedded(ray, 2, Path("/tmp/a/r"))
    assert asked[0].get("_plasma_directory") == ("/tmp/a/r" if sys.platform == "linux" else None)


# What follows is a whole run each.


class KillLoop(threading.Thread):
    """Kills every worker that computes, as soon as `spared` more pieces are committed since the last death."""

    def __init__(self, out: Path, spared: int) -> None:
        super().__init__(daemon=True)
        self.out, self.spared, self.killed, self.ended = out, spared, 0, threading.Event()

    def run(self) -> None:
        due = 0
        while not self.ended.wait(0.01):
            if committed(self.out) >= due:
                for process in filter(computes, below(os.getpid())):
                    with suppress(ProcessLookupError):
                        os.kill(process, 9)
                    self.killed, due = self.killed + 1, committed(self.out) + self.spared


@pytest.mark.slow
def test_workers_killed_all_along_change_nothing(words, tmp_path, undisturbed, quick):
    loop = KillLoop(tmp_path, 12)
    loop.start()
    code = call(*words, "--out", tmp_path, "--workers", 2)
    loop.ended.set()
    assert code == 0
    assert loop.killed >= 10
    same(only(tmp_path), undisturbed)
    retries = read_record(only(tmp_path) / "record.json").provenance.retries
    assert set(retries) == {"worker died"}


@pytest.mark.slow
def test_workers_that_are_killed_at_once_end_the_run_with_the_reason(words, tmp_path, quick, monkeypatch, capsys):
    # A tiny shard may be done before it is seen; a piece in work is what this is about.
    monkeypatch.setattr(cluster, "RayActor", DyingBody)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        assert call(*words, "--out", tmp_path, "--workers", 2) == 1
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    message = " ".join(capsys.readouterr().err.split())
    assert "workers died 32 times in a row and no work item was completed in between" in message
    assert "run the same command again" in message
    assert call(*words, "--out", tmp_path) == 0, "and then it goes on"


class DyingBody(cluster.RayActor):
    """Is killed by the first piece that it computes."""

    def compute(self, affinity_key, work, payload, batch_scale):
        os.kill(os.getpid(), 9)


DRIVER = (
    "import sys; from quick_protocol import make_runs_quick, run_quickly; make_runs_quick(); sys.exit(run_quickly())"
)


def in_namespace(setup: str, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A driver in a mount namespace of its own, after some shell commands there."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("unshare"):
        pytest.skip("mount namespaces need root and the unshare command")
    known = os.environ | {"PYTHONPATH": f"{HELPERS}:{ROOT}", "OMP_NUM_THREADS": "1"} | environment
    command = [
        "unshare",
        "-m",
        "sh",
        "-c",
        f'{setup} && exec "$@"',
        "sh",
        sys.executable,
        "-c",
        DRIVER,
        *map(str, words),
    ]
    return subprocess.run(command, env=known, text=True, capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("there", ["small", "none"])
def test_no_shared_memory_changes_nothing(words, tmp_path, undisturbed, quick, there):
    small, bare = "mount -t tmpfs -o size=1M tmpfs /dev/shm", tmp_path / "dev"
    bare.mkdir()
    none = (
        f"mount -t tmpfs tmpfs {bare} && cp -a /dev/null /dev/zero /dev/random /dev/urandom /dev/full {bare} && "
        f"ln -s /proc/self/fd {bare}/fd && mount --move {bare} /dev"
    )
    out = tmp_path / "runs"
    done = in_namespace(small if there == "small" else none, *words, "--out", out, "--workers", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    same(only(out), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["200k", "full"])
def test_rays_own_disk_full_is_said_or_does_not_matter(words, tmp_path, undisturbed, quick, size):
    out, place = tmp_path / "runs", Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    setup = f"mount -t tmpfs -o size=200k tmpfs {place}"
    if size == "full":
        setup += f" && {{ dd if=/dev/zero of={place}/x bs=1k count=400 2>/dev/null || true; }}"
    try:
        done = in_namespace(setup, *words, "--out", out, "--workers", 2, RAY_TMPDIR=str(place))
    finally:
        place.rmdir()
    if size == "full":
        assert done.returncode == 1
        assert f"error: {place}: 0 MB free, and Ray needs 50 MB" in " ".join(done.stderr.split())
    else:
        assert done.returncode == 0, done.stderr[-3000:]
        same(only(out), undisturbed)
