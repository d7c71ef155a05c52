"""Trained networks with a known answer to *Uses*; trainings of full length and their verdicts: `pytest -m slow`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.calibrate.causal_calibration import STEERED_RATES, TRAINED_EXPECTED, coverage_by_margin, format_table
from benchmark.calibrate.trained import calibration as trained_calibration
from benchmark.calibrate.trained.calibration import measure_network, measure_planner, measure_trained, read_accuracies
from benchmark.calibrate.trained.open_worlds import (
    FIRST_SUMMARY,
    HEADER,
    SLOT_SIZES,
    TRAINED_KINDS,
    TRAINED_READER,
    TRAINED_RECURRENT,
    TRAINED_UNREAD,
    VOCABULARY,
    SummaryTokenizer,
    open_suite,
    summarize,
)
from benchmark.calibrate.trained.planner_network import (
    IGNORED,
    NUM_SUMMARY,
    init_planner,
    make_data,
    steerable_planner,
    train_planner,
)
from benchmark.causal.measurement import measure_use
from benchmark.causal.pairs import PairSettings, derive_pairs, prefix_texts
from benchmark.causal.rotation import net_rotation
from benchmark.causal.shams import run_shams
from benchmark.causal.verdict import USES
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import load_suite

SUITE = open_suite(load_suite("laptop"))
EASY = replace(SUITE, recipe=replace(SUITE.recipe, weights=(5, 3, 3, 1, 1)))
"""Fewer markers, so that a short training is enough."""
FEW = PairSettings(tasks=120)


@pytest.fixture(scope="module")
def recurrent():
    return train_planner(EASY, TRAINED_RECURRENT, 0, steps=450, batch_size=64, learning_rate=6e-3)


@pytest.fixture(scope="module")
def rows():
    pairs = derive_pairs(SUITE, FEW)
    prompts = render_prompts(SUITE, pairs.tasks)
    return [prompts[i] for i in pairs.task[:8]], prefix_texts(pairs.prefix[:8])


@pytest.mark.slow
def test_an_edit_of_a_recurrent_state_moves_a_network_that_plans_from_it(recurrent):
    words, rotation = read_accuracies(recurrent, EASY, 0)
    assert rotation > 0.95
    assert words > 0.65
    use = measure_planner(recurrent, EASY, 0, FEW).use
    assert use.verdict == USES
    controls = {name: control.value for name, control in use.strict.controls.items()}
    assert use.strict.steered.value > 0.7
    assert controls["no edit"] < 0.05
    assert controls["random vector"] < 0.2
    assert max(value for name, value in controls.items() if name.startswith("alternative")) < 0.25


@pytest.mark.slow
def test_means_by_the_rotation_after_the_last_word_are_too_short_an_edit(recurrent):
    """Recurrent states precede the last word of the prefix, so these means are mixtures over that word."""
    steerable = steerable_planner(recurrent, EASY, FEW)
    steerable.labels_precede_last_word = False
    use = measure_use(steerable, EASY, settings=FEW).use
    assert use.verdict != USES
    assert use.strict.steered.value < 0.3


@pytest.mark.parametrize("kind", [TRAINED_UNREAD, TRAINED_READER])
def test_what_holds_the_rotation_is_read_by_the_reader_alone(kind, rows):
    prepared = steerable_planner(init_planner(kind, 0), SUITE, FEW).prepare(*rows)
    for site, states in enumerate(prepared.states()):
        noise = np.random.default_rng(site).normal(size=states.shape).astype(np.float32)
        is_same = np.array_equal(prepared.score(site, states + noise).log_probs, prepared.score().log_probs)
        assert is_same == (kind == TRAINED_UNREAD)


@pytest.mark.parametrize("kind", TRAINED_KINDS)
def test_shams_pass_but_that_edits_of_the_unread_stack_change_nothing(kind, rows):
    failures = run_shams(steerable_planner(init_planner(kind, 0), SUITE, FEW), *rows)
    assert [failure.partition(":")[0] for failure in failures] == (["hooks"] if kind == TRAINED_UNREAD else [])


def test_a_summary_tells_displacement_rotation_and_markers():
    tasks = derive_pairs(SUITE, FEW).tasks
    slots = summarize(tasks) - FIRST_SUMMARY - np.cumsum([0, *SLOT_SIZES[:-1]])
    assert (slots >= 0).all()
    assert (slots < SLOT_SIZES).all()
    turns = [net_rotation(tasks.programs.program(i)[3:-1][None].clip(0, 4))[0] for i in range(len(tasks))]
    assert slots[:, 2].tolist() == turns
    has_marker = (tasks.outputs.cells[:, 0] > 0).any((1, 2))
    assert ((slots[:, 5] > 0) == has_marker).all()
    north = np.flatnonzero(tasks.inputs.robot[:, 0, 2] == 0)
    moved = tasks.inputs.robot[north, 0, 0] - tasks.outputs.robot[north, 0, 0]
    assert (slots[north, 0] - 6).tolist() == moved.tolist()


def test_the_tokenizer_gives_a_prompt_as_its_summary(rows):
    tokenizer = SummaryTokenizer(SUITE, FEW)
    encoded = tokenizer(f"{rows[0][0]} {rows[1][0]} }}")
    assert len(encoded["input_ids"]) == NUM_SUMMARY + 1 + 3 + 1
    assert encoded["input_ids"][NUM_SUMMARY] == HEADER
    assert tokenizer.decode(encoded["input_ids"]) == f"{rows[1][0]} }}"
    assert encoded["offset_mapping"][-1][1] == len(f"{rows[0][0]} {rows[1][0]} }}")


def test_turns_that_no_word_tells_are_in_the_summary():
    plain, turned = (make_data(SUITE, 3, 500, turned_after=after) for after in (None, 2))
    assert torch.equal(plain.words, turned.words)
    assert plain.ids.max() < VOCABULARY
    slot = slice(2, 3)
    rotation = (turned.ids[:, slot] - plain.ids[:, slot])[:, 0] % 4
    assert torch.equal(rotation, turned.turn)
    has_two = turned.words[:, NUM_SUMMARY + 2] != IGNORED
    assert not turned.turn[~has_two].any()
    assert len(torch.unique(turned.turn[has_two])) == 4


def test_a_seed_determines_a_training():
    state = torch.random.get_rng_state()
    first, again, other = (train_planner(SUITE, TRAINED_UNREAD, seed, steps=3) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    same, differs = (
        all(torch.equal(a, b) for a, b in zip(first.parameters(), network.parameters(), strict=True))
        for network in (again, other)
    )
    assert same
    assert not differs


def test_cells_are_stored_and_read_again(tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(trained_calibration, "TRAINED_KINDS", (TRAINED_RECURRENT,))
    monkeypatch.setattr(
        trained_calibration, "train_planner", lambda suite, kind, seed: trained.append(seed) or init_planner(kind, seed)
    )
    monkeypatch.setattr(
        trained_calibration, "measure_network", lambda network, suite, seed: measure_network(network, suite, seed, FEW)
    )
    first, again = (measure_trained(load_suite("laptop"), 1, tmp_path) for _ in range(2))
    assert first == again
    assert trained == [0]
    assert first[0]["verdict"] == "N/A"
    assert not first[0]["is_right"]
    assert TRAINED_RECURRENT in format_table(first)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"N/A", b"USES"))
    assert measure_trained(load_suite("laptop"), 1, tmp_path) == first
    assert "corrupt" in capsys.readouterr().err
    assert trained == [0, 0]


def test_coverage_is_simulated_at_several_margins():
    rows = coverage_by_margin(20)
    assert [row["true margin"] for row in rows] == [0, 0.1, 0.2, 0.3, 0.45]
    assert len(rows) == len(STEERED_RATES)
    assert all(0.7 <= row[name] <= 1 for row in rows for name in ("margin", "use"))


@pytest.mark.slow
def test_intervals_cover_at_every_margin():
    for row in coverage_by_margin(500):
        assert 0.93 <= row["margin"] <= 0.97, row
        assert 0.93 <= row["use"] <= 0.97, row


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAINED_KINDS)
def test_every_trained_network_gets_its_verdict(kind):
    cell = measure_network(train_planner(SUITE, kind, 0), SUITE, 0)
    assert cell["is_right"], cell
    assert cell["rotation accuracy"] > 0.95
    assert cell["strict"] > 0.7 if TRAINED_EXPECTED[kind][0] == USES else cell["strict"] < 0.3
