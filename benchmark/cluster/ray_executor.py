"""Workers on Ray, embedded or on a cluster. The only module that imports ray, and only when asked.

Ray places actors and notices their deaths. What a death means for a piece of work is the pool's to say, so every one of
Ray's own retries is off: a piece that kills its worker would otherwise be run again and again, out of order.
"""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.cluster.executor import WORKER_DIED, SUCCEEDED, EVALUATION, NODE_LOST, OUT_OF_MEMORY, RAISED, STORAGE_FAILED, CallResult, WorkItem
from benchmark.cluster.pool import describe_load
from benchmark.cluster.ray_actor import IMPORTS, RayActor, code_versions
from benchmark.environment import SOURCE_ROOT, cgroup_memory_limit, count_oom_kills
from benchmark.errors import BenchmarkError, StorageError, UsageError

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no reports to anyone
    "RAY_BACKEND_LOG_LEVEL": "error",  # a raylet's chatter would mix with the driver's output
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # num_gpus=0 would hide the GPU from the driver's own products
    "RAY_DEDUP_LOGS": "0",  # held back lines of one worker would come out under another's name
    "RAY_worker_register_timeout_seconds": "600",  # 60: on a busy machine every new process would be killed and begun anew
    "TOKENIZERS_PARALLELISM": "false",  # its threads and Ray's forks do not mix
}
"""Set where the user has not set them: Ray's defaults that bite. Threads are set in the actors, see `ActorBody`."""
CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0: Ray takes 127.0.0.1 for this node and listens there only, its default on systems where it has no clusters."""
AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
OBJECT_STORE_BYTES = 200_000_000
"""Of an embedded Ray. Ray would take 30% of memory; here it only carries what workers hold (settings, not weights)."""
SHARED_MEMORY = Path("/dev/shm")
MAX_SOCKET_PATH, RAY_SUFFIX_BYTES = 103, 85
"""Bytes that a socket's path may have on every system, and that Ray's sockets take of them below the folder given."""
MAX_RAY_STARTS = 3
"""Times that an embedded Ray is started; it allows itself 30 s, which a busy machine may need more than."""
NODE_DEATH_PHRASES = ("node has died", "node was terminated", "node is dead", "never ran", "preempted")
"""Words of Ray's messages by which a death is the node's, not the work's."""
POLL_SECONDS = 2.0
MIN_DISK_BYTES = 50_000_000
"""Bytes free in the folder of an embedded Ray, below which its failure to start is the disk's."""
LOGGING_OPTIONS = {"log_to_driver": False, "logging_level": "ERROR"}


@dataclass(frozen=True)
class ResourceRequest:
    """What a run asks of a cluster.

    Attributes:
        workers: at a time; 0 takes what is there.
        address: of a cluster to join; None starts one here, embedded in this process.
        cpus, gpus: of an evaluation worker. Others take one CPU.
        memory: bytes that an evaluation worker needs, 0 unknown.
        wait: seconds to wait for nodes that an autoscaler may bring.
    """

    workers: int = 0
    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    memory: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class Node:
    """What a node has in all."""

    name: str
    cpus: float
    gpus: float
    memory: float

    def holds(self, demand: ResourceRequest) -> int:
        """How many evaluation workers fit on it."""
        shares = [self.cpus // demand.cpus]
        if demand.gpus:
            shares.append((self.gpus + 1e-6) // demand.gpus)
        if demand.memory and self.memory:
            shares.append(self.memory // demand.memory)
        return int(min(shares))


def connect(demand: ResourceRequest) -> RayExecutor:
    """Start Ray, or join a cluster, and see that it can do what is asked.

    Raises:
        UsageError: no cluster at the address, or no node that can hold a worker.
        BenchmarkError: Ray does not start here.
        StorageError: there is no room for Ray's own files.
    """
    os.environ.update({k: v for k, v in RAY_ENVIRONMENT.items() if k not in os.environ})
    import ray

    stack = ExitStack()
    try:
        if demand.address:
            stack.callback(ray.shutdown)
            _connect(ray, demand.address)
        else:
            folder = stack.enter_context(private_temp_dir())
            stack.enter_context(private_auth_token())
            stack.enter_context(_loopback_only(ray))
            stack.callback(ray.shutdown)
            _start_embedded(ray, max(demand.workers * demand.cpus, os.cpu_count() or 1), folder)
        room = _wait_for_capacity(ray, demand)
    except BaseException:
        stack.close()
        raise
    return RayExecutor(ray, demand, demand.workers or room, room, stack.close)


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, runtime_env=_runtime_env(), **LOGGING_OPTIONS)
    except Exception as problem:
        if isinstance(problem, ray.exceptions.AuthenticationError):
            raise UsageError(
                f"--address {address}: the cluster's token is not this one ({_one_line(problem)[:150]}); set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN as the cluster has them, see docs/cluster.md"
            ) from problem
        if not isinstance(problem, (ConnectionError, ValueError, RuntimeError, ImportError)):
            raise
        raise UsageError(
            f"--address {address}: no Ray cluster there ({_one_line(problem)[:150]}); see docs/cluster.md"
        ) from problem


def _start_embedded(ray: Any, cpus: int, folder: Path) -> None:
    """Start Ray in this process, for as many workers as are asked, with its files in the folder."""
    options: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    if sys.platform == "linux" and free_shared_memory() < OBJECT_STORE_BYTES:
        # Ray would warn of it, or fail where there is none at all; here only settings go through it.
        options["_plasma_directory"] = str(folder)
    for attempt in range(1, MAX_RAY_STARTS + 1):
        try:
            # A bare init would join whatever cluster it finds on the machine.
            ray.init(address="local", _temp_dir=str(folder), **options, **LOGGING_OPTIONS)
        except Exception as problem:
            ray.shutdown()
            free = shutil.disk_usage(folder).free
            if free < MIN_DISK_BYTES:
                raise StorageError(
                    f"{folder.parent.parent}: {free / 1e6:.0f} MB free, and Ray needs {MIN_DISK_BYTES / 1e6:.0f} MB for its own files; "
                    "free some, or set RAY_TMPDIR to a short path with room"
                ) from problem
            if attempt == MAX_RAY_STARTS:
                raise BenchmarkError(
                    f"Ray did not start on this machine in {attempt} attempts ({_one_line(problem)[:150]}); {describe_load()}; run the same "
                    "command again when it is less busy, or with --workers 0"
                ) from problem
        else:
            return


def free_shared_memory() -> int:
    """Bytes free in /dev/shm, 0 where there is none."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0


@contextmanager
def private_temp_dir() -> Iterator[Path]:
    """A folder for the files and sockets of one embedded Ray, which others cannot enter; removed afterwards.

    It lies in RAY_TMPDIR or the system's folder for temporary files where sockets below have a path short enough.

    Raises:
        UsageError: there is no such place.
    """
    tried = []
    for place in dict.fromkeys(filter(None, (os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp"))):
        if len(os.fsencode(place)) > MAX_SOCKET_PATH - RAY_SUFFIX_BYTES:
            tried.append(f"{place}: {len(os.fsencode(place))} bytes, at most {MAX_SOCKET_PATH - RAY_SUFFIX_BYTES} fit")
            continue
        try:
            outer = Path(tempfile.mkdtemp(prefix="karel-", dir=place))
        except OSError as problem:
            tried.append(f"{place}: {problem.strerror}")
            continue
        try:
            # Ray opens the folder that it is given to everybody, so it gets one inside.
            inner = outer / "r"
            inner.mkdir()
            yield inner
        finally:
            shutil.rmtree(outer, ignore_errors=True)
        return
    raise UsageError(
        f"no folder for Ray's sockets ({'; '.join(tried)}); set RAY_TMPDIR to a short path that can be written to"
    )


@contextmanager
def private_auth_token() -> Iterator[str]:
    """Within, every Ray that this process and its children start demands a random token, which only they have.

    It is in the environment alone; no file holds it. Tests that start clusters themselves do so within.
    """
    before = {name: os.environ.get(name) for name in AUTH_VARIABLES}
    token = secrets.token_hex(32)
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    _reset_ray_auth()
    try:
        yield token
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _reset_ray_auth()


def _reset_ray_auth() -> None:
    """Ray reads mode and token once a process; where it has done so, it is to look again."""
    if "ray" in sys.modules:
        with suppress(ImportError, AttributeError):
            raylet: Any = importlib.import_module("ray._raylet")
            raylet.Config.initialize("")
            raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _loopback_only(ray: Any) -> Iterator[None]:
    """Within, a Ray that is started listens on 127.0.0.1 only."""
    before = os.environ.get(CLUSTER_VARIABLE)
    os.environ[CLUSTER_VARIABLE] = "0"
    # The module reads the variable when it is imported, which may have been before.
    constants = ray._private.ray_constants
    clusters = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters
        os.environ.pop(CLUSTER_VARIABLE)
        if before is not None:
            os.environ[CLUSTER_VARIABLE] = before


def _runtime_env() -> dict[str, Any]:
    """A runtime environment that brings the driver's own code to every node; a submitted job has it already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    packages = [str(SOURCE_ROOT / "benchmark"), str(SOURCE_ROOT / "karel_env")]
    return {"py_modules": packages, "excludes": ["**/__pycache__"]}


def _wait_for_capacity(ray: Any, demand: ResourceRequest) -> int:
    """How many evaluation workers fit on the nodes that are there, once at least one does."""
    until = time.monotonic() + demand.wait
    while True:
        nodes = [
            Node(node["NodeManagerHostname"], *(node["Resources"].get(key, 0.0) for key in ("CPU", "GPU", "memory")))
            for node in ray.nodes() if node["Alive"]
        ]  # fmt: skip
        room = sum(node.holds(demand) for node in nodes)
        if room:
            return room
        if time.monotonic() >= until:
            raise UsageError(insufficient_resources_message(demand, nodes))
        time.sleep(POLL_SECONDS)


def insufficient_resources_message(demand: ResourceRequest, nodes: Sequence[Node]) -> str:
    """Why no worker fits, in words."""
    memory = f" and {demand.memory / 1e9:.1f} GB of memory" if demand.memory else ""
    there = "; ".join(f"{n.name}: {n.cpus:g} CPUs, {n.gpus:g} GPUs, {n.memory / 1e9:.1f} GB" for n in nodes)
    return (
        f"a worker asks {demand.cpus} CPUs, {demand.gpus:g} GPUs{memory} on one node, and no node has them ({there}); ask less "
        "(--cpus-per-worker, --gpus-per-worker, --dtype), or --wait SECONDS for nodes that an autoscaler brings"
    )


@dataclass(eq=False)
class RayExecutor:
    """See `pool.Crew`.

    Attributes:
        ray: the module.
        demand: what an evaluation worker asks.
        workers: at a time.
        room: how many fit on the nodes that were there at the start.
        close: leaves the cluster, or ends the embedded one.
        processors: of the workers so far.
    """

    ray: Any
    demand: ResourceRequest
    workers: int
    room: int
    close: Callable[[], None]
    processors: set[str] = field(default_factory=set)
    sent: dict[Hashable, Any] = field(default_factory=dict)
    starts: set[Any] = field(default_factory=set)
    kills: int = field(default_factory=count_oom_kills)
    expected: dict[str, Any] = field(default_factory=code_versions)

    def start_worker(self, kind: str) -> tuple[Any, Any]:
        """See `Crew`."""
        evaluates = kind == EVALUATION
        cpus, gpus = (self.demand.cpus, self.demand.gpus) if evaluates else (1, 0)
        body = type(f"{kind.capitalize()}Actor", (RayActor,), {})
        # A worker that dies is replaced by the pool, which knows what it was computing.
        remote = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(body)
        actor = remote.remote(cpus, IMPORTS)
        return actor, self.continue_start(actor)

    def continue_start(self, handle: Any, resend: bool = False) -> Any:
        """See `Crew`."""
        call = handle.start.remote(self.expected, again)
        self.starts.add(call)
        return call

    def submit(self, handle: Any, item: WorkItem, batch_scale: float) -> Any:
        """See `Crew`."""
        if item.affinity_key not in self.sent:
            self.sent[item.affinity_key] = self.ray.put(item.work)
        return handle.compute.remote(item.affinity_key, self.sent[item.affinity_key], item.payload, share)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `Crew`."""
        done, _ = self.ray.wait(list(calls), num_returns=1, timeout=seconds)
        if done:
            # All of them, or the first worker in the list would be served first for ever.
            done, _ = self.ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return list(done)

    def result(self, call: Any) -> CallResult:
        """See `Crew`."""
        errors = self.ray.exceptions
        try:
            answer: CallResult = self.ray.get(call)
        except errors.OutOfMemoryError as problem:
            return CallResult(OUT_OF_MEMORY, message=_one_line(problem))
        except errors.RayTaskError as problem:
            return CallResult(RAISED, message=str(problem.cause))
        except errors.OutOfDiskError as problem:
            return CallResult(STORAGE_FAILED, message=_one_line(problem))
        except (errors.ActorDiedError, errors.WorkerCrashedError) as problem:
            return self._death(problem)
        except errors.RayError as problem:
            return CallResult(NODE_LOST, message=_one_line(problem))
        if call in self.starts:
            self.starts.discard(call)
            if answer.status == SUCCEEDED:
                self.processors.add(str(answer.value))
        return answer

    def _death(self, problem: Exception) -> CallResult:
        """Whether a worker died with its node, was killed by the kernel for memory, or by what it computed."""
        if any(words in str(problem).lower() for words in NODE_DEATH_PHRASES):
            return CallResult(NODE_LOST, message=_one_line(problem))
        before, self.kills = self.kills, count_oom_kills()
        if not self.demand.address and self.kills > before:
            limit = cgroup_memory_limit()
            whose = f"the control group's limit is {limit / 1e9:.1f} GB" if limit else "the machine had none left"
            return CallResult(OUT_OF_MEMORY, message=f"the kernel killed the worker for memory: {whose}")
        return CallResult(WORKER_DIED, message=_one_line(problem))

    def stop_worker(self, handle: Any) -> None:
        """See `Crew`."""
        self.ray.kill(handle, no_restart=True)

    def capacity_message(self) -> str:
        """See `Crew`."""
        has, free = self.ray.cluster_resources(), self.ray.available_resources()
        return (
            f"a worker asks {self.demand.cpus} CPUs and {self.demand.gpus:g} GPUs; the cluster has {has.get('CPU', 0):g} and "
            f"{has.get('GPU', 0):g}, free are {free.get('CPU', 0):g} and {free.get('GPU', 0):g}"
        )

    def shutdown(self) -> None:
        """Leave the cluster, or stop the embedded one."""
        self.close()


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:400]
