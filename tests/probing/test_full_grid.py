"""The full grid on synthetic states with known layer, offset and reach (slow); its stages and codelengths.

In the default suite `test_grids.py` runs the full grid as a whole on a small model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from worlds import WORLDS_SUITE

from benchmark.models.checkpoint import Checkpoint
from benchmark.probing.full_grid import OFFSETS, FullGrid
from benchmark.probing.labels import DROPPED, build_probe_set, list_semantics
from benchmark.probing.mdl import BLOCK_ENDS, measure_codelengths
from benchmark.probing.protocol import FULL_GRID, MEAN, STANDARD
from benchmark.probing.token_history import token_history_states
from benchmark.runner.plan import Job, plan, plan_dependent
from benchmark.tasks.probe_sets import CROSSED_ALTERNATIVES, first_inputs, parse_programs
from benchmark.tasks.stage import GENERATED, Stage
from benchmark.tasks.suite import blind_tasks, load_suite
from benchmark.tasks.task_sets import TaskSets
from karel_env.features import FEATURES
from karel_env.language import HEADER_TEXT
from karel_env.semantics import ORIGINAL

SUITE = replace(load_suite(WORLDS_SUITE), probe_programs=250, sha256="")
PROTOCOL = replace(
    STANDARD, steps=40, checks=1, folds=5, seeds=(0, 1), hidden=32, deep_hidden=(16, 16), alternatives=4, copies=1, resamples=100,
    random_inits=1, min_programs=5,
)  # fmt: skip
LAYERS, TRUE_LAYER = ["layer 0", "layer 1"], "layer 1"
TASKS = TaskSets(SUITE)
"""Drawn once; the states of each stage and view are made of them."""


@cache
def reference_texts() -> list[str]:
    """The model's generated texts: the reference programs."""
    return [text.removeprefix(HEADER_TEXT) for text in TASKS.probe.programs.texts()]


def make_states(stage: Stage, position: str, view: str) -> np.ndarray:
    """Token history at every layer; in `TRUE_LAYER` and the mean of the model also the state at offsets 0 and 1."""
    states = encoded_states(stage.kind, position, view in (TRUE_LAYER, MEAN) and stage.random_init is None)
    seed = sum(map(ord, f"{stage}{view}"))
    return (states + 0.05 * np.random.default_rng(seed).normal(size=states.shape)).astype(np.float32)


@cache
def encoded_states(kind: str, position: str, has_state: bool) -> np.ndarray:
    """What the views of a kind of stage share, without noise."""
    tasks = TASKS.of_stage(Stage(kind))
    programs = parse_programs(reference_texts())[0] if kind == GENERATED else tasks.programs
    inputs = first_inputs(tasks)
    probe_set = build_probe_set(programs, inputs, [ORIGINAL], PROTOCOL, (0, 1))
    parts = [token_history_states(programs, inputs, probe_set, 0 if position == "read" else -1)]
    if has_state:
        heads = [FEATURES.index(name) for name in ("facing", "absolute_x", "absolute_y")]
        for offset, f in ((offset, f) for offset in (0, 1) for f in heads):
            label = probe_set.at_offset(offset).classes[0, f]
            parts.append(np.eye(probe_set.counts[f] + 1)[label] * 2)
    return np.concatenate(parts, 1)


@pytest.fixture(scope="module")
def grid():
    messages: list[str] = []
    result = FullGrid(TASKS, PROTOCOL, make_states, LAYERS, reference_texts(), messages.append).measure()
    assert len(messages) > len(result.slices)
    return result


@pytest.mark.slow
def test_best_layer_and_verdict(grid):
    assert grid.best_layer == TRUE_LAYER
    assert grid.verdict == "REPRESENTS"
    delta = {s.view: s.features["facing"].delta.value for s in grid.slices if is_slice(s, "blind", "read", 0, "mlp1")}
    assert delta[TRUE_LAYER] > 0.5 > 5 * abs(delta["layer 0"])


def is_slice(s, probe_set, position, offset, depth) -> bool:
    return (s.probe_set, s.position, s.offset, s.depth) == (probe_set, position, offset, depth)


@pytest.mark.slow
def test_every_slice_is_measured(grid):
    for probe_set, position in (("blind", "read"), ("generated", "emit")):
        mapped = {(s.view, s.offset) for s in grid.slices if (s.probe_set, s.position) == (probe_set, position)}
        assert {(view, offset) for view in [*LAYERS, MEAN] for offset in OFFSETS} <= mapped
    sites = {(s.probe_set, s.position) for s in grid.slices}
    assert {("blind", "emit"), ("generated", "read"), ("wide", "read")} <= sites
    assert {(f"crossed {name}", "read") for name in CROSSED_ALTERNATIVES} <= sites
    pooled = [s for s in grid.slices if s.view == "pools" and s.position == "read" and s.offset == 0]
    assert {s.depth for s in pooled} == {"linear", "mlp1", "mlp2"}
    assert sorted({s.budget for s in pooled if s.probe_set in ("blind", "wide")}) == [50, 250, 1250]
    assert max(s.alternatives for s in grid.slices) == 29


@pytest.mark.slow
def test_skill_by_offset(grid):
    by_offset = {s.offset: s.features["facing"] for s in grid.slices if s.view == TRUE_LAYER and s.probe_set == "blind"}
    assert by_offset[1].skill > 0.8 > by_offset[2].skill
    assert by_offset[0].skill > 0.8
    assert all(set(result.controls) == {"random-init", "recorder"} for result in by_offset.values())


@pytest.mark.slow
def test_crossed_slices_have_one_alternative_and_a_fifth_of_the_budget(grid):
    crossed = [s for s in grid.slices if s.probe_set.startswith("crossed")]
    assert [s.budget for s in crossed] == [50, 50]
    assert all(s.alternatives == 1 and s.features["facing"].gap.high > 0 for s in crossed)


@pytest.mark.slow
def test_reach_is_the_largest_encoded_offset(grid):
    """The states encode offset 1; offset 2 adds a random token only."""
    assert grid.reach == 1
    assert set(grid.reach_p) == {1, 2}
    assert grid.reach_p[1] < 0.05 <= grid.reach_p[2]


@pytest.mark.slow
def test_conditional_skill_is_added_under_the_original_only(grid):
    added = grid.conditional["facing"]
    assert added.added.low > 0.2 > added.added_alternatives.high
    assert added.recorder + added.added.value > 0.9


def test_the_full_grid_plans_its_stages():
    job = Job(SUITE, Checkpoint("x", None, "x", 0, 0, ""), "float32", "cpu", 2, FULL_GRID)  # type: ignore[arg-type]
    stages = {str(shard.stage) for shard in plan(job)}
    assert {"test", "generated", "blind", "wide", "random-1-wide", f"crossed-{CROSSED_ALTERNATIVES[0]}"} <= stages
    assert {str(shard.stage) for shard in plan_dependent(job)} == {"random-0-generated", "random-1-generated"}
    items = sum(s.stop - s.start for s in plan(job) if s.stage == Stage("wide"))
    assert items == 2500
    assert len(TASKS.crossed) == 100
    for grid in ("standard", "layers"):
        smaller = replace(job, grid=grid)
        assert not plan_dependent(smaller)
        assert {str(s.stage) for s in plan(smaller)} == {
            "test",
            "generated",
            "blind",
            "random-0-blind",
            "random-1-blind",
        }


@pytest.fixture(scope="module")
def probe_set():
    tasks = blind_tasks(SUITE)
    return build_probe_set(tasks.programs, first_inputs(tasks), list_semantics(PROTOCOL), PROTOCOL)


def test_encoded_labels_have_a_short_codelength(probe_set):
    random = np.random.default_rng(0)
    noise = random.normal(size=(len(probe_set.program), 8)).astype(np.float32)
    facing = np.eye(4, dtype=np.float32)[probe_set.classes[0, FEATURES.index("facing")]]
    sources = {"model": [[facing]], "random-init": [[noise]], "recorder": [[noise]]}
    code = measure_codelengths(probe_set, sources, PROTOCOL)["facing"]
    first = 2 * BLOCK_ENDS[0]
    assert first <= code.original < first + 0.3
    assert code.alternatives > 1.5
    assert code.mdl_delta.low > 1.2
    assert code.gap.value == pytest.approx(code.alternatives - code.original)
    assert code.prior == pytest.approx(2, abs=0.03)


def test_noise_has_the_codelength_of_the_prior(probe_set):
    """Probes that are no better than the prior are replaced by it, so that the codelength equals the prior's up to order."""
    nothing = np.zeros((len(probe_set.program), 3), np.float32)
    sources = {"model": [[nothing]], "random-init": [[nothing]], "recorder": [[nothing]]}
    codelength = measure_codelengths(probe_set, sources, replace(PROTOCOL, learning_rate=0.0))
    for name in ("facing", "obstacle"):
        assert codelength[name].original == pytest.approx(codelength[name].prior, abs=0.03)
        assert codelength[name].mdl_delta.value == pytest.approx(0, abs=1e-9)
    assert (probe_set.fold != DROPPED).any()
