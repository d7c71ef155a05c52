"""How long a run takes on many workers, simulated from measured figures. Knows nothing of Ray or models."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClusterCosts:
    """What a cluster of workers costs, in seconds.

    Attributes:
        start: until a worker is ready.
        serial: of the driver a shard, one shard after the other: hand out, take, commit.
        deaths: of a worker, a second of work; the shard that it computes is begun anew on a new worker.
    """

    start: float
    serial: float
    deaths: float = 0.0


def finish_time(shards: Sequence[float], workers: int, costs: ClusterCosts, seed: int = 0) -> float:
    """Seconds until all shards are committed.

    Args:
        shards: seconds that each takes, in the order of the queue.
        workers: at a time.
        costs: of the cluster.
        seed: of the deaths.
    """
    random = np.random.Generator(np.random.Philox(seed))
    queue = deque(shards)
    # (time, worker, seconds of the shard that ends then; 0 for a worker that becomes ready)
    events = [(costs.start, worker, 0.0) for worker in range(min(workers, len(shards)))]
    heapq.heapify(events)
    driver, left = 0.0, len(shards)
    while left:
        time, worker, ended = heapq.heappop(events)
        if ended < 0:
            queue.append(-ended)
            heapq.heappush(events, (time + costs.start, worker, 0.0))
            continue
        if ended > 0:
            left -= 1
        if ended > 0 or queue:
            # One driver serves all workers, one at a time.
            driver = max(driver, time) + costs.serial
        if queue:
            seconds = queue.popleft()
            dies = random.exponential(1 / costs.deaths) if costs.deaths else np.inf
            spent, sign = (dies, -1) if dies < seconds else (seconds, 1)
            heapq.heappush(events, (driver + spent, worker, sign * seconds))
    return driver


def scaling_curve(
    shards: Sequence[float], workers: Sequence[int], costs: ClusterCosts, repeats: int = 5
) -> list[tuple[int, float, float]]:
    """(workers, seconds, efficiency) for each number of workers; means over `repeats` draws of shard times and deaths.

    Efficiency is the work of the shards over the workers' time.
    """
    random = np.random.Generator(np.random.Philox(1))
    found = []
    for count in workers:
        times, shares = [], []
        for repeat in range(repeats):
            drawn = random.permutation(np.asarray(shards))
            spent = finish_time(drawn.tolist(), count, costs, repeat)
            times.append(spent)
            shares.append(drawn.sum() / (count * spent))
        found.append((count, float(np.mean(times)), float(np.mean(shares))))
    return found
