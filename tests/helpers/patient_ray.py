"""Limits of time of Ray and of the pool, so wide that only what does not start at all reaches them.

One limit of Ray is in its code alone: a raylet ends itself if its agents take more than 15 s to start. The product starts
Ray again then.
"""

from __future__ import annotations

from collections.abc import Callable

START = 3600.0
"""Seconds that a worker of the pool has for its start."""
ENVIRONMENT = {
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    # A cluster that a test starts gives its workers the priority of the test, as an embedded Ray does.
    "RAY_worker_niceness": "0",
}
"""Read by the nodes that a test starts."""


def wait_for_workers(assign: Callable[..., object]) -> None:
    """No worker is replaced for starting slowly; `assign` is a patch's `setattr`."""
    from benchmark.cluster import pool

    assign(pool, "START_DEADLINE", START)
    assign(pool, "PLACED_DEADLINE", START)
