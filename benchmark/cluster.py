"""Workers on Ray, embedded or on a cluster. The only module that imports ray, and only when asked.

Ray places actors and notices their deaths. What a death means for a piece of work is the pool's to say, so every one of
Ray's own retries is off: a piece that kills its worker would otherwise be run again and again, out of order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import UsageError
from benchmark.pool import CRASHED, DONE, INVALID, LOST, MEMORY, RAISED, STORAGE, Answer, Piece
from benchmark.record import gpu, processor, source_digest, versions
from benchmark.work import EVALUATION, Desk

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no reports to anyone
    "RAY_BACKEND_LOG_LEVEL": "error",  # a raylet's chatter would mix with the driver's output
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # num_gpus=0 would hide the GPU from the driver's own products
    "RAY_DEDUP_LOGS": "0",  # held back lines of one worker would come out under another's name
    "TOKENIZERS_PARALLELISM": "false",  # its threads and Ray's forks do not mix
}
"""Set where the user has not set them: Ray's defaults that bite. Threads are set in the actors, see `_Actor`."""
OBJECT_STORE_BYTES = 200_000_000
"""Of an embedded Ray. Ray would take 30% of memory; here it only carries what workers hold (settings, not weights)."""
SAME_EVERYWHERE = ("torch", "numpy", "numba", "transformers", "tokenizers", "safetensors")
"""Packages whose version must be the driver's on every node, since results may depend on them."""
NODE_GONE = ("node has died", "node was terminated", "node is dead", "never ran", "preempted")
"""Words of Ray's messages by which a death is the node's, not the work's."""
POLL = 2.0


@dataclass(frozen=True)
class Demand:
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

    def holds(self, demand: Demand) -> int:
        """How many evaluation workers fit on it."""
        shares = [self.cpus // demand.cpus]
        if demand.gpus:
            shares.append((self.gpus + 1e-6) // demand.gpus)
        if demand.memory and self.memory:
            shares.append(self.memory // demand.memory)
        return int(min(shares))


def join(demand: Demand) -> RayCrew:
    """Start Ray, or join a cluster, and see that it can do what is asked.

    Raises:
        UsageError: no cluster at the address, or no node that can hold a worker.
    """
    os.environ.update({k: v for k, v in RAY_ENVIRONMENT.items() if k not in os.environ})
    import ray

    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    cores = os.cpu_count() or 1
    try:
        if demand.address:
            ray.init(address=demand.address, runtime_env=_code(), **quiet)
        else:
            asked = max(demand.workers * demand.cpus, cores)
            # A bare init would join whatever cluster it finds on the machine.
            ray.init(
                address="local",
                num_cpus=asked,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise UsageError(
            f"--address {demand.address}: no Ray cluster there ({' '.join(str(problem).split())[:150]}); "
            "see docs/cluster.md"
        ) from problem
    try:
        room = _room(ray, demand)
    except UsageError:
        ray.shutdown()
        raise
    return RayCrew(ray, demand, demand.workers or room, room)


def _code() -> dict[str, Any]:
    """A runtime environment that brings the driver's own code to every node; a submitted job has it already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    packages = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "karel_env")]
    return {"py_modules": packages, "excludes": ["**/__pycache__"]}


def _room(ray: Any, demand: Demand) -> int:
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
            raise UsageError(too_much(demand, nodes))
        time.sleep(POLL)


def too_much(demand: Demand, nodes: Sequence[Node]) -> str:
    """Why no worker fits, in words."""
    memory = f" and {demand.memory / 1e9:.1f} GB of memory" if demand.memory else ""
    there = "; ".join(f"{n.name}: {n.cpus:g} CPUs, {n.gpus:g} GPUs, {n.memory / 1e9:.1f} GB" for n in nodes)
    return (
        f"a worker asks {demand.cpus} CPUs, {demand.gpus:g} GPUs{memory} on one node, and no node has them ({there}); ask less "
        "(--cpus-per-worker, --gpus-per-worker, --dtype), or --wait SECONDS for nodes that an autoscaler brings"
    )


class _Actor:
    """The body of every actor; a kind has an actor class of its own name, so that Ray's tools tell them apart."""

    def __init__(self, threads: int) -> None:
        import torch

        # Ray sets OMP_NUM_THREADS in workers by its own count; a model-bound worker is to use what it was given.
        torch.set_num_threads(threads)
        self.desk = Desk()

    def hello(self, expected: dict[str, Any]) -> Answer:
        """Ready, if this node has the driver's code and packages; its processor, and the GPU that it was given."""
        import ray

        here = _versions()
        other = [f"{name} {here[name]}, not {expected[name]}" for name in expected if here[name] != expected[name]]
        if other:
            node = os.uname().nodename
            return Answer(INVALID, why=f"node {node} has {'; '.join(other)}; results would not be the same everywhere")
        return Answer(DONE, f"{processor()}, {gpu('cuda')}" if ray.get_gpu_ids() else processor())

    def compute(self, held: Hashable, work: Any, call: Any, share: float) -> Answer:
        """See `Desk.answer`."""
        return self.desk.answer(held, work, call, share)


def _versions() -> dict[str, Any]:
    return {"source": source_digest(), **versions(SAME_EVERYWHERE)}


@dataclass(eq=False)
class RayCrew:
    """See `pool.Crew`.

    Attributes:
        ray: the module.
        demand: what an evaluation worker asks.
        workers: at a time.
        room: how many fit on the nodes that were there at the start.
        processors: of the workers so far.
    """

    ray: Any
    demand: Demand
    workers: int
    room: int
    processors: set[str] = field(default_factory=set)
    sent: dict[Hashable, Any] = field(default_factory=dict)
    hellos: set[Any] = field(default_factory=set)

    def hire(self, kind: str) -> tuple[Any, Any]:
        """See `Crew`."""
        evaluates = kind == EVALUATION
        cpus, gpus = (self.demand.cpus, self.demand.gpus) if evaluates else (1, 0)
        body = type(f"{kind.capitalize()}Actor", (_Actor,), {})
        # A worker that dies is replaced by the pool, which knows what it was computing.
        actor = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(body).remote(cpus)
        call = actor.hello.remote(_versions())
        self.hellos.add(call)
        return actor, call

    def call(self, handle: Any, piece: Piece, share: float) -> Any:
        """See `Crew`."""
        if piece.held not in self.sent:
            self.sent[piece.held] = self.ray.put(piece.work)
        return handle.compute.remote(piece.held, self.sent[piece.held], piece.call, share)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `Crew`."""
        done, _ = self.ray.wait(list(calls), num_returns=1, timeout=seconds)
        if done:
            # All of them, or the first worker in the list would be served first for ever.
            done, _ = self.ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return list(done)

    def answer(self, call: Any) -> Answer:
        """See `Crew`."""
        errors = self.ray.exceptions
        try:
            answer: Answer = self.ray.get(call)
        except errors.OutOfMemoryError as problem:
            return Answer(MEMORY, why=_first(problem))
        except errors.RayTaskError as problem:
            return Answer(RAISED, why=str(problem.cause))
        except errors.OutOfDiskError as problem:
            return Answer(STORAGE, why=_first(problem))
        except (errors.ActorDiedError, errors.WorkerCrashedError) as problem:
            said = str(problem)
            return Answer(LOST if any(words in said.lower() for words in NODE_GONE) else CRASHED, why=_first(problem))
        except errors.RayError as problem:
            return Answer(LOST, why=_first(problem))
        if call in self.hellos:
            self.hellos.discard(call)
            self.processors.add(str(answer.value))
        return answer

    def dismiss(self, handle: Any) -> None:
        """See `Crew`."""
        self.ray.kill(handle, no_restart=True)

    def shortage(self) -> str:
        """See `Crew`."""
        has, free = self.ray.cluster_resources(), self.ray.available_resources()
        return (
            f"a worker asks {self.demand.cpus} CPUs and {self.demand.gpus:g} GPUs; the cluster has {has.get('CPU', 0):g} and "
            f"{has.get('GPU', 0):g}, free are {free.get('CPU', 0):g} and {free.get('GPU', 0):g}"
        )

    def leave(self) -> None:
        """Leave the cluster, or stop the embedded one."""
        self.ray.shutdown()


def _first(problem: Exception) -> str:
    return " ".join(str(problem).split())[:400]
