"""Simulates how long a run takes on many workers, from measured costs. Independent of Ray and of models."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClusterCosts:
    """Overheads of a cluster, in seconds.

    Attributes:
        start: time until a worker is ready.
        serial: driver time per shard (hand out, receive, commit), one shard after the other.
        deaths: deaths per worker and second of work; the shard in flight is computed again on a new worker.
    """

    start: float
    serial: float
    deaths: float = 0.0


def finish_time(shards: Sequence[float], workers: int, costs: ClusterCosts, seed: int = 0) -> float:
    """Seconds until all shards are committed.

    Args:
        shards: seconds per shard, in queue order.
        workers: number of workers.
        costs: overheads of the cluster.
        seed: seed of the deaths.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    queue = deque(shards)
    # (time, worker, duration of the shard that ends then: 0 for a worker that becomes ready, negative for a death)
    events = [(costs.start, worker, 0.0) for worker in range(min(workers, len(shards)))]
    heapq.heapify(events)
    driver_time, num_remaining = 0.0, len(shards)
    while num_remaining:
        time, worker, duration = heapq.heappop(events)
        if duration < 0:
            queue.append(-duration)
            heapq.heappush(events, (time + costs.start, worker, 0.0))
            continue
        if duration > 0:
            num_remaining -= 1
        if duration > 0 or queue:
            # One driver serves all workers, one at a time.
            driver_time = max(driver_time, time) + costs.serial
        if queue:
            seconds = queue.popleft()
            death_time = rng.exponential(1 / costs.deaths) if costs.deaths else np.inf
            elapsed, sign = (death_time, -1) if death_time < seconds else (seconds, 1)
            heapq.heappush(events, (driver_time + elapsed, worker, sign * seconds))
    return driver_time


def scaling_curve(
    shards: Sequence[float], workers: Sequence[int], costs: ClusterCosts, repeats: int = 5
) -> list[tuple[int, float, float]]:
    """(workers, seconds, efficiency) per number of workers: means over `repeats` shard orders and draws of deaths.

    Efficiency is the sum of the shard times over workers times wall-clock time.
    """
    rng = np.random.Generator(np.random.Philox(1))
    points = []
    for num_workers in workers:
        times, efficiencies = [], []
        for repeat in range(repeats):
            shard_seconds = rng.permutation(np.asarray(shards))
            seconds = finish_time(shard_seconds.tolist(), num_workers, costs, repeat)
            times.append(seconds)
            efficiencies.append(shard_seconds.sum() / (num_workers * seconds))
        points.append((num_workers, float(np.mean(times)), float(np.mean(efficiencies))))
    return points
