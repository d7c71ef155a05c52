"""Workers on Ray, embedded or on a cluster. The only module that imports ray, and only when workers on Ray are requested.

Ray places actors and notices their deaths. The pool decides what follows a death, so all of Ray's own retries are off: an
item that kills its worker would otherwise be run repeatedly, out of order.
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

from benchmark.cluster.executor import (
    EVALUATION,
    NODE_LOST,
    OUT_OF_MEMORY,
    RAISED,
    STORAGE_FAILED,
    SUCCEEDED,
    WORKER_DIED,
    CallResult,
    WorkItem,
)
from benchmark.cluster.pool import describe_load
from benchmark.cluster.ray_actor import IMPORTS, RayActor, code_versions
from benchmark.environment import cgroup_memory_limit, count_oom_kills
from benchmark.errors import BenchmarkError, StorageError, UsageError
from benchmark.installation.paths import SOURCE_ROOT

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage reports
    "RAY_BACKEND_LOG_LEVEL": "error",  # a raylet's messages would mix with the driver's output
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # num_gpus=0 would hide the GPU from the driver's own products
    "RAY_DEDUP_LOGS": "0",  # deduplicated lines of one worker would appear under another's name
    "RAY_worker_register_timeout_seconds": "600",  # default 60: on a busy machine every new process would be killed and restarted
    "RAY_worker_niceness": "0",  # default 15: beside a busy process a worker would take minutes to start, and be replaced
    "TOKENIZERS_PARALLELISM": "false",  # its threads and Ray's forks do not mix
}
"""Set where the user has not set them: overrides of Ray's defaults. Threads are set in the actors, see `RayActor`."""
CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0: Ray takes 127.0.0.1 for this node and listens there only, its default on systems where it has no clusters."""
AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
OBJECT_STORE_BYTES = 200_000_000
"""Object store of an embedded Ray. Ray's default is 30% of memory; here it only carries `WorkItem.work` (settings, not weights)."""
SHARED_MEMORY = Path("/dev/shm")
MAX_SOCKET_PATH, RAY_SUFFIX_BYTES = 103, 85
"""Bytes that a socket path may have on every system, and bytes that Ray appends to the given folder for its sockets."""
MAX_RAY_STARTS = 6
"""Attempts to start an embedded Ray: its agents have 15 s and its node 30 s, which is too short on a busy machine."""
NODE_DEATH_PHRASES = ("node has died", "node was terminated", "node is dead", "never ran", "preempted")
"""Phrases in Ray's messages that attribute a worker's death to its node."""
POLL_SECONDS = 2.0
MIN_DISK_BYTES = 50_000_000
"""Free bytes in the folder of an embedded Ray below which a failed start is attributed to the disk."""
LOGGING_OPTIONS = {"log_to_driver": False, "logging_level": "ERROR"}


@dataclass(frozen=True)
class ResourceRequest:
    """Resources that a run requests from a cluster.

    Attributes:
        workers: maximum number of workers at a time; 0 for as many as fit.
        address: address of a cluster to join; None starts one embedded in this process.
        cpus, gpus: resources per evaluation worker; other workers take one CPU.
        memory: bytes per evaluation worker, 0 if unknown.
        wait: seconds to wait for nodes that an autoscaler adds.
    """

    workers: int = 0
    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    memory: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class Node:
    """Total resources of a node."""

    name: str
    cpus: float
    gpus: float
    memory: float

    def num_workers(self, demand: ResourceRequest) -> int:
        """Number of evaluation workers that fit on the node."""
        limits = [self.cpus // demand.cpus]
        if demand.gpus:
            limits.append((self.gpus + 1e-6) // demand.gpus)
        if demand.memory and self.memory:
            limits.append(self.memory // demand.memory)
        return int(min(limits))


def connect(demand: ResourceRequest) -> RayExecutor:
    """Start Ray, or join a cluster, and check that the requested workers fit.

    Raises:
        UsageError: no cluster at the address, or no node that can hold a worker.
        BenchmarkError: Ray does not start here.
        StorageError: the disk is full for Ray's own files.
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
        capacity = _wait_for_capacity(ray, demand)
    except BaseException:
        stack.close()
        raise
    return RayExecutor(ray, demand, demand.workers or capacity, capacity, stack.close)


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, runtime_env=_runtime_env(), **LOGGING_OPTIONS)
    except Exception as error:
        if isinstance(error, ray.exceptions.AuthenticationError):
            raise UsageError(
                f"--address {address}: the cluster has another token ({_one_line(error)[:150]}); set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN as the cluster has them, see docs/cluster.md"
            ) from error
        if not isinstance(error, (ConnectionError, ValueError, RuntimeError, ImportError)):
            raise
        raise UsageError(
            f"--address {address}: no Ray cluster there ({_one_line(error)[:150]}); see docs/cluster.md"
        ) from error


def _start_embedded(ray: Any, cpus: int, folder: Path) -> None:
    """Start Ray in this process with its files in the folder."""
    options: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    if sys.platform == "linux" and free_shared_memory() < OBJECT_STORE_BYTES:
        # Ray would warn, or fail without /dev/shm; only settings go through the store.
        options["_plasma_directory"] = str(folder)
    for attempt in range(1, MAX_RAY_STARTS + 1):
        try:
            # init() without an address would join any cluster that it finds on the machine.
            ray.init(address="local", _temp_dir=str(folder), **options, **LOGGING_OPTIONS)
        except Exception as error:
            ray.shutdown()
            free = shutil.disk_usage(folder).free
            if free < MIN_DISK_BYTES:
                raise StorageError(
                    f"{folder.parent.parent}: {free / 1e6:.0f} MB free, and Ray needs {MIN_DISK_BYTES / 1e6:.0f} MB for its own files; "
                    "free some, or set RAY_TMPDIR to a short path with free space"
                ) from error
            if attempt == MAX_RAY_STARTS:
                raise BenchmarkError(
                    f"Ray did not start on this machine in {attempt} attempts ({_one_line(error)[:150]}); {describe_load()}; run the same "
                    "command again when it is less busy, or with --workers 0"
                ) from error
        else:
            return


def free_shared_memory() -> int:
    """Free bytes in /dev/shm, 0 where it does not exist."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0


@contextmanager
def private_temp_dir() -> Iterator[Path]:
    """Make a folder for the files and sockets of one embedded Ray that other users cannot enter; removed afterwards.

    It is made in RAY_TMPDIR or the system's folder for temporary files, whichever first has a path short enough for sockets.

    Raises:
        UsageError: no such folder can be made.
    """
    rejections = []
    for parent in dict.fromkeys(filter(None, (os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp"))):
        if len(os.fsencode(parent)) > MAX_SOCKET_PATH - RAY_SUFFIX_BYTES:
            rejections.append(
                f"{parent}: {len(os.fsencode(parent))} bytes, at most {MAX_SOCKET_PATH - RAY_SUFFIX_BYTES} fit"
            )
            continue
        try:
            outer = Path(tempfile.mkdtemp(prefix="karel-", dir=parent))
        except OSError as error:
            rejections.append(f"{parent}: {error.strerror}")
            continue
        try:
            # Ray makes the given folder accessible to every user, so it gets an inner one.
            inner = outer / "r"
            inner.mkdir()
            yield inner
        finally:
            shutil.rmtree(outer, ignore_errors=True)
        return
    raise UsageError(
        f"no folder for Ray's sockets ({'; '.join(rejections)}); set RAY_TMPDIR to a short path that can be written to"
    )


@contextmanager
def private_auth_token() -> Iterator[str]:
    """Require a random token of every client of a Ray that this process or a child starts while the context lasts.

    The token is in the environment only, never in a file. Tests that start clusters themselves use this context too.
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
    """Make Ray read mode and token again, which it reads once per process."""
    if "ray" in sys.modules:
        with suppress(ImportError, AttributeError):
            raylet: Any = importlib.import_module("ray._raylet")
            raylet.Config.initialize("")
            raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _loopback_only(ray: Any) -> Iterator[None]:
    """Make a Ray that is started while the context lasts listen on 127.0.0.1 only."""
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
    """Runtime environment that ships the driver's code to every node; a submitted job has it already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    packages = [str(SOURCE_ROOT / "benchmark"), str(SOURCE_ROOT / "karel_env")]
    return {"py_modules": packages, "excludes": ["**/__pycache__", "**/shipped"]}


def _wait_for_capacity(ray: Any, demand: ResourceRequest) -> int:
    """Wait until at least one evaluation worker fits; returns how many fit on the present nodes.

    Raises:
        UsageError: none fits within `wait` seconds.
    """
    deadline = time.monotonic() + demand.wait
    while True:
        nodes = [
            Node(node["NodeManagerHostname"], *(node["Resources"].get(key, 0.0) for key in ("CPU", "GPU", "memory")))
            for node in ray.nodes() if node["Alive"]
        ]  # fmt: skip
        capacity = sum(node.num_workers(demand) for node in nodes)
        if capacity:
            return capacity
        if time.monotonic() >= deadline:
            raise UsageError(insufficient_resources_message(demand, nodes))
        time.sleep(POLL_SECONDS)


def insufficient_resources_message(demand: ResourceRequest, nodes: Sequence[Node]) -> str:
    """Error message: requested resources per worker, and resources per node."""
    memory = f" and {demand.memory / 1e9:.1f} GB of memory" if demand.memory else ""
    node_resources = "; ".join(f"{n.name}: {n.cpus:g} CPUs, {n.gpus:g} GPUs, {n.memory / 1e9:.1f} GB" for n in nodes)
    return (
        f"a worker requests {demand.cpus} CPUs, {demand.gpus:g} GPUs{memory} on one node, and no node has them ({node_resources}); request less "
        "(--cpus-per-worker, --gpus-per-worker, --dtype), or --wait SECONDS for nodes that an autoscaler adds"
    )


@dataclass(eq=False)
class RayExecutor:
    """Runs work items in Ray actors; see `Executor`.

    Attributes:
        ray: the imported module.
        demand: requested resources.
        workers: maximum number of workers at a time.
        capacity: number of workers that fit on the nodes present at the start.
        close: disconnects from the cluster, or ends the embedded one.
        processors: processors of the workers so far.
    """

    ray: Any
    demand: ResourceRequest
    workers: int
    capacity: int
    close: Callable[[], None]
    processors: set[str] = field(default_factory=set)
    work_refs: dict[Hashable, Any] = field(default_factory=dict)
    start_calls: set[Any] = field(default_factory=set)
    num_oom_kills: int = field(default_factory=count_oom_kills)
    expected_versions: dict[str, Any] = field(default_factory=code_versions)

    @property
    def serves_all_kinds(self) -> bool:
        """Whether evaluation workers have the resources of all others: one CPU, and no GPU that a fit would occupy."""
        return self.demand.cpus == 1 and not self.demand.gpus

    def start_worker(self, kind: str) -> tuple[Any, Any]:
        """See `Executor`."""
        is_evaluation = kind == EVALUATION
        cpus, gpus = (self.demand.cpus, self.demand.gpus) if is_evaluation else (1, 0)
        actor_class = type(f"{kind.capitalize()}Actor", (RayActor,), {})
        # A worker that dies is replaced by the pool, which knows what it was computing.
        remote = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(actor_class)
        actor = remote.remote(cpus, IMPORTS)
        return actor, self.continue_start(actor)

    def continue_start(self, handle: Any, resend: bool = False) -> Any:
        """See `Executor`."""
        call = handle.start.remote(self.expected_versions, resend)
        self.start_calls.add(call)
        return call

    def submit(self, handle: Any, item: WorkItem, batch_scale: float) -> Any:
        """See `Executor`."""
        if item.affinity_key not in self.work_refs:
            self.work_refs[item.affinity_key] = self.ray.put(item.work)
        return handle.compute.remote(item.affinity_key, self.work_refs[item.affinity_key], item.payload, batch_scale)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `Executor`."""
        ended, _ = self.ray.wait(list(calls), num_returns=1, timeout=seconds)
        if ended:
            # All that have ended, or the first worker in the list would always be served first.
            ended, _ = self.ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return list(ended)

    def result(self, call: Any) -> CallResult:
        """See `Executor`."""
        errors = self.ray.exceptions
        try:
            result: CallResult = self.ray.get(call)
        except errors.OutOfMemoryError as error:
            return CallResult(OUT_OF_MEMORY, message=_one_line(error))
        except errors.RayTaskError as error:
            return CallResult(RAISED, message=str(error.cause))
        except errors.OutOfDiskError as error:
            return CallResult(STORAGE_FAILED, message=_one_line(error))
        except (errors.ActorDiedError, errors.WorkerCrashedError) as error:
            return self._classify_death(error)
        except errors.RayError as error:
            return CallResult(NODE_LOST, message=_one_line(error))
        if call in self.start_calls:
            self.start_calls.discard(call)
            if result.status == SUCCEEDED:
                self.processors.add(str(result.value))
        return result

    def _classify_death(self, error: Exception) -> CallResult:
        """Classify a worker's death: with its node, killed by the kernel for memory, or by the item it computed."""
        if any(phrase in str(error).lower() for phrase in NODE_DEATH_PHRASES):
            return CallResult(NODE_LOST, message=_one_line(error))
        before, self.num_oom_kills = self.num_oom_kills, count_oom_kills()
        if not self.demand.address and self.num_oom_kills > before:
            limit = cgroup_memory_limit()
            limit_text = f"the control group's limit is {limit / 1e9:.1f} GB" if limit else "the machine had none left"
            return CallResult(OUT_OF_MEMORY, message=f"the kernel killed the worker for memory: {limit_text}")
        return CallResult(WORKER_DIED, message=_one_line(error))

    def stop_worker(self, handle: Any) -> None:
        """See `Executor`."""
        self.ray.kill(handle, no_restart=True)

    def capacity_message(self) -> str:
        """See `Executor`."""
        total, free = self.ray.cluster_resources(), self.ray.available_resources()
        return (
            f"a worker requests {self.demand.cpus} CPUs and {self.demand.gpus:g} GPUs; the cluster has {total.get('CPU', 0):g} and "
            f"{total.get('GPU', 0):g}, of which {free.get('CPU', 0):g} and {free.get('GPU', 0):g} are free"
        )

    def shutdown(self) -> None:
        """Disconnect from the cluster, or stop the embedded one."""
        self.close()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
