"""The class of every Ray actor: cheap to import, and it reports the progress of its start.

An actor process can take minutes to import torch where a machine is busy. So this module imports nothing heavy, and
`start` does one part of the start per call: the driver is notified that the process runs before it imports anything, then after
each package, so that it can distinguish a slow start from a hanging one.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmark.cluster.executor import INVALID_MODEL, STARTING, SUCCEEDED, CallResult

if TYPE_CHECKING:
    from benchmark.cluster.local_executor import WorkerSession

IMPORTS = ("numpy", "torch", "numba", "transformers", "benchmark.runner.jobs")
"""Modules that a worker imports before it is ready, one per start call."""
PINNED_PACKAGES = ("torch", "numpy", "numba", "transformers", "tokenizers", "safetensors")
"""Packages whose version must equal the driver's on every node, since results may depend on them."""


class RayActor:
    """One Ray actor. Each kind of worker is a subclass, whose name Ray's tools display.

    Args:
        threads: number of torch threads.
        imports: modules to import, in order.
    """

    def __init__(self, threads: int, imports: tuple[str, ...] = IMPORTS) -> None:
        self.threads, self.imports = threads, list(imports)
        self.is_placed = False
        self.session: WorkerSession | None = None

    def start(self, expected: dict[str, Any], resend: bool = False) -> CallResult:
        """Do the next part of the start.

        Args:
            expected: the driver's digest of the source and versions of packages.
            resend: whether to return the last result again, since it may be lost; nothing new is imported.

        Returns:
            `STARTING` with the next part; `SUCCEEDED` with the node's processor, and its GPU if it was given one, when the
            worker is ready; `INVALID_MODEL` if the node has other code or packages than the driver.
        """
        if self.is_placed and self.imports and not resend:
            import_module(self.imports[0])
            # Only after the import, so that a failed import fails again on the next call.
            self.imports.pop(0)
        self.is_placed = True
        if self.imports:
            return CallResult(STARTING, f"importing {self.imports[0]}")
        if self.session is None:
            mismatches = _version_mismatches(expected)
            if mismatches:
                node = os.uname().nodename
                return CallResult(
                    INVALID_MODEL,
                    message=f"node {node} has {'; '.join(mismatches)}; results would not be the same everywhere",
                )
            self._open_session()
        return CallResult(SUCCEEDED, _node_hardware())

    def _open_session(self) -> None:
        import torch

        from benchmark.cluster.local_executor import WorkerSession

        # Ray sets OMP_NUM_THREADS in workers by its own count; workers use the number of threads that they were assigned.
        torch.set_num_threads(self.threads)
        self.session = WorkerSession()

    def compute(self, affinity_key: Hashable, work: Any, payload: Any, batch_scale: float) -> CallResult:
        """See `WorkerSession.run`."""
        assert self.session is not None
        return self.session.run(affinity_key, work, payload, batch_scale)


def code_versions() -> dict[str, Any]:
    """Digest of the source and package versions that must be equal on every node."""
    from benchmark.environment import package_versions, source_digest

    return {"source": source_digest(("",)), **package_versions(PINNED_PACKAGES)}


def _version_mismatches(expected: dict[str, Any]) -> list[str]:
    actual = code_versions()
    return [f"{name} {actual[name]}, not {expected[name]}" for name in expected if actual[name] != expected[name]]


def _node_hardware() -> str:
    import ray

    from benchmark.environment import gpu_name, processor_name

    return f"{processor_name()}, {gpu_name('cuda')}" if ray.get_gpu_ids() else processor_name()
