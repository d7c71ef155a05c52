"""The body of every Ray actor: light to arrive, and it says how far its start is.

An actor process can take minutes to import torch where a machine is busy. So this module imports nothing heavy, and
`start` does one part of the start per call: the driver hears that the process runs before it imports anything, then after
each package, and can tell a slow start from one that stands still.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmark.cluster.executor import SUCCEEDED, INVALID_MODEL, STARTING, CallResult

if TYPE_CHECKING:
    from benchmark.cluster.local_executor import WorkerSession

IMPORTS = ("numpy", "torch", "numba", "transformers", "benchmark.runner.jobs")
"""What a worker imports before it is ready, one a call, the slow ones apart."""
PINNED_PACKAGES = ("torch", "numpy", "numba", "transformers", "tokenizers", "safetensors")
"""Packages whose version must be the driver's on every node, since results may depend on them."""


class RayActor:
    """What an actor does; a kind of worker has an actor class of its own name, so that Ray's tools tell them apart.

    Args:
        threads: of torch.
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
            again: whether the last answer is to be given again, since it may be lost; it waits behind what is being done.

        Returns:
            `STARTING` with what is to come; `DONE` with the node's processor, and its GPU if it was given one, when the
            worker is ready; `INVALID` if the node has other code or packages than the driver.
        """
        if self.is_placed and self.imports and not again:
            import_module(self.imports[0])
            # Only now, so that an import that failed fails again when it is asked for again.
            self.imports.pop(0)
        self.is_placed = True
        if self.imports:
            return CallResult(STARTING, f"importing {self.imports[0]}")
        if self.session is None:
            other = _version_mismatches(expected)
            if other:
                node = os.uname().nodename
                return CallResult(
                    INVALID_MODEL, message=f"node {node} has {'; '.join(other)}; results would not be the same everywhere"
                )
            self._open_session()
        return CallResult(SUCCEEDED, _node_hardware())

    def _open_session(self) -> None:
        import torch

        from benchmark.cluster.local_executor import WorkerSession

        # Ray sets OMP_NUM_THREADS in workers by its own count; a model-bound worker is to use what it was given.
        torch.set_num_threads(self.threads)
        self.session = WorkerSession()

    def compute(self, held: Hashable, work: Any, call: Any, batch_scale: float) -> CallResult:
        """See `WorkerSession.run`."""
        assert self.session is not None
        return self.session.run(held, work, call, share)


def code_versions() -> dict[str, Any]:
    """The digest of the source, and versions of the packages that must be the same on every node."""
    from benchmark.environment import source_digest, package_versions

    return {"source": source_digest(("",)), **package_versions(PINNED_PACKAGES)}


def _version_mismatches(expected: dict[str, Any]) -> list[str]:
    actual = code_versions()
    return [f"{name} {actual[name]}, not {expected[name]}" for name in expected if actual[name] != expected[name]]


def _node_hardware() -> str:
    import ray

    from benchmark.environment import gpu_name, processor_name

    return f"{processor_name()}, {gpu_name('cuda')}" if ray.get_gpu_ids() else processor_name()
