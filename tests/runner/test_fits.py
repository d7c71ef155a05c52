"""Fits as pieces of work: the same as `fit_probes` in one go, found again, and computed anew when anything differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from quick_protocol import QUICK

from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.pool import Pool
from benchmark.probing.labels import Split
from benchmark.probing.probes import fit_probes
from benchmark.runner.cached_fits import CachedProbeTrainer
from benchmark.runner.store import MemmapStates, ResultStore, to_safetensors

RANDOM = np.random.default_rng(0)
STATES = RANDOM.normal(size=(300, 12)).astype(np.float32)
TARGETS = RANDOM.integers(0, 3, (4, 2, 300))
COUNTS = np.array([3, 3])
SPLITS = [Split(*np.split(RANDOM.permutation(300), [200, 250])) for _ in range(3)]
SEEDS = (0, 1, 4)


def arguments(states=STATES, **changes):
    given = {
        "states": [states] * 3, "targets": TARGETS, "counts": COUNTS, "splits": SPLITS, "widths": [8], "seeds": SEEDS,
        "protocol": QUICK, "inits": [0, 1, 0, 0],
    }  # fmt: skip
    return given | changes


@pytest.fixture
def computed(tmp_path):
    """Makes fits in a folder, and lists the pieces that were computed."""
    done: list[str] = []

    def make(**options) -> CachedProbeTrainer:
        return CachedProbeTrainer(
            ResultStore(tmp_path),
            Pool(LocalExecutor(), 1),
            on_commit=lambda result: done.append(result.name),
            **options,
        )

    return make, done


def assert_equal(one, two):
    np.testing.assert_array_equal(one.validation, two.validation)
    for name in ("log_prob", "predicted"):
        for a, b in zip(getattr(one, name), getattr(two, name), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seeds_per_item", [1, 2, 3])
def test_shared_out_or_not_fits_are_the_same(computed, seeds_per_item):
    make, done = computed
    steps: list[int] = []
    found = make(seeds_per_item=seeds_per_item)(**arguments(on_steps=steps.append))
    assert_equal(found, fit_probes(**arguments()))
    assert len(done) == 3
    assert sum(steps) == QUICK.steps * 4 * 3


def test_a_fit_is_found_again_unless_something_differs(computed, tmp_path):
    make, done = computed
    first = make()(**arguments())
    steps: list[int] = []
    assert_equal(make()(**arguments(on_steps=steps.append)), first)
    assert len(done) == 3
    assert sum(steps) == QUICK.steps * 4 * 3, "what is found counts as done"
    changes = [
        {"protocol": replace(QUICK, learning_rate=0.5)}, {"widths": []}, {"targets": (TARGETS + 1) % 3},
        {"inits": [0, 1, 2, 3]}, {"states": STATES + 1, }, {"splits": SPLITS[::-1]}, {"seeds": (0, 1, 5)},
    ]  # fmt: skip
    for number, change in enumerate(changes):
        before = len(done)
        if "states" in change:
            make()(**arguments(change["states"]))
        else:
            make()(**arguments(**change))
        anew = len(done) - before
        assert anew == {"splits": 2, "seeds": 1}.get(next(iter(change)), 3), number
    (tmp_path / f"{done[0]}.safetensors").write_bytes(b"torn")
    before = len(done)
    assert_equal(make()(**arguments()), first)
    assert done[before:] == [done[0]]


def test_fits_that_are_not_kept_leave_nothing(computed, tmp_path):
    make, _ = computed
    found = make(keep=False)(**arguments())
    assert_equal(found, fit_probes(**arguments()))
    assert not list(tmp_path.glob("fit-*"))


def test_stored_states_are_read_where_they_lie(computed, tmp_path):
    make, _ = computed
    shards = ResultStore(tmp_path)
    for name, rows in (("a", STATES[:100]), ("b", STATES[100:])):
        shards.commit(shards.stage(name, {"read.mean": rows, "other": rows}, {}))
    stored = MemmapStates.open([shards.arrays_path("a"), shards.arrays_path("b")], "read.mean")
    given = len(list(tmp_path.glob("given-*")))
    assert_equal(make()(**arguments(stored)), fit_probes(**arguments()))
    content = [path.read_bytes() for path in tmp_path.glob("given-*")]
    assert given == 0
    assert to_safetensors({"states": STATES}) not in content, "no copy of the states is made"
