"""Ray's own limits of time, so wide that only a Ray that does not start at all reaches them.

A node has 30 s to appear, which it does not on a machine that is three times as busy as it has processors; the limit is
in the code of Ray, not in its settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partialmethod
from typing import Any

FACTOR = 20
PATIENCE = 600
"""Seconds that Ray has for what it does while it starts."""
START = 3600.0
"""Seconds that a worker of the pool has for its start."""
ENVIRONMENT = {
    "RAY_agent_register_timeout_ms": str(1000 * PATIENCE),
    "RAY_worker_register_timeout_seconds": str(PATIENCE),
    "RAY_gcs_server_request_timeout_seconds": str(PATIENCE),
    "RAY_py_gcs_connect_timeout_s": str(PATIENCE),
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    # A cluster that a test starts gives its workers the priority of the test, as an embedded Ray does.
    "RAY_worker_niceness": "0",
}


class SlowClock:
    """In place of the module `time`: a clock by which a limit lasts `FACTOR` times as long."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def monotonic() -> float:
        """Seconds."""
        return time.monotonic() / FACTOR


def be_patient(assign: Callable[..., object]) -> None:
    """Widen the limits of nodes that this process starts, embedded or in a cluster; `assign` is a patch's `setattr`."""
    import ray._private.node
    from ray.cluster_utils import Cluster

    assign(ray._private.node, "time", SlowClock())
    assign(Cluster, "_wait_for_node", partialmethod(Cluster._wait_for_node, timeout=PATIENCE))


def wait_for_workers(assign: Callable[..., object]) -> None:
    """No worker is replaced for starting slowly."""
    from benchmark.cluster import pool

    assign(pool, "START_DEADLINE", START)
    assign(pool, "PLACED_DEADLINE", START)
