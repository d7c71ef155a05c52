"""The simulation against closed forms, and against queues that need no simulation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.cluster.simulation import ClusterCosts, finish_time, scaling_curve

FREE = ClusterCosts(start=0, serial=0)


def test_one_worker_takes_the_sum_and_many_the_longest():
    shards = [3.0, 1.0, 4.0, 1.0, 5.0]
    assert finish_time(shards, 1, FREE) == 14
    assert finish_time(shards, 5, FREE) == 5
    assert finish_time(shards, 99, FREE) == 5


@pytest.mark.parametrize("workers", [1, 3, 7, 16])
def test_equal_shards_come_in_rounds(workers):
    assert finish_time([2.0] * 40, workers, ClusterCosts(start=10, serial=0)) == 10 + 2 * -(-40 // workers)


def test_a_busy_driver_is_the_limit():
    shards = [1.0] * 1000
    spent = finish_time(shards, 1024, ClusterCosts(start=0, serial=0.05))
    # Each shard costs the driver twice: to be handed out to a new worker, and to be taken back.
    assert spent == pytest.approx(2 * 1000 * 0.05, rel=0.01)


def test_greedy_hand_out_is_within_its_known_bound():
    random = np.random.default_rng(0)
    shards = random.exponential(1.0, 200).tolist()
    for workers in (2, 5, 11):
        spent = finish_time(shards, workers, FREE)
        # Graham 1969: list scheduling ends within (sum - longest) / m + longest.
        assert sum(shards) / workers <= spent <= (sum(shards) - max(shards)) / workers + max(shards) + 1e-9


def test_deaths_cost_what_a_renewal_argument_says():
    rate, length = 0.2, 1.0
    costs = ClusterCosts(start=0, serial=0, deaths=rate)
    spent = np.mean([finish_time([length] * 500, 1, costs, seed) for seed in range(20)]) / 500
    # Expected time of a job of length L that begins anew at each death: (exp(rate L) - 1) / rate.
    assert spent == pytest.approx((np.exp(rate * length) - 1) / rate, rel=0.02)


def test_efficiency_falls_with_workers():
    found = scaling_curve([1.0] * 64, (1, 2, 4, 8, 64, 1024), ClusterCosts(start=5, serial=0.001))
    shares = [share for _, _, share in found]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.9
