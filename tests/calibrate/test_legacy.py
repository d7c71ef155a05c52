"""The released recipe, on synthetic states: its tables, its selection, and what it says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import benchmark.calibrate.legacy
import benchmark.calibrate.legacy_command
from benchmark.calibrate.legacy import (
    RELEASED_ALTERNATIVES,
    LegacyRecipe,
    accuracy_gaps,
    count_actions,
    measure_legacy_content,
    rewrite_actions,
)
from benchmark.errors import UsageError
from benchmark.probing.labels import build_probe_set
from benchmark.probing.protocol import STANDARD
from benchmark.runner.plan import ShardResult
from benchmark.runner.worker import Worker
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import load_suite, probe_tasks
from karel_env.features import FEATURES, PAPER_FEATURES
from karel_env.language import ACTIONS, HEADER_TEXT, Programs
from karel_env.semantics import ADVERSARIAL, FLIP, ORIGINAL, Semantics
from karel_env.syntax.parser import parse

QUICK = LegacyRecipe(
    depths=(("linear", ()), ("mlp1", (16,))), alternatives=(8,), repeats=2, epochs=6, batch=32, checks=3, seed=1
)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def drawn():
    """300 programs of up to six actions and their first worlds."""
    tasks = probe_tasks(replace(load_suite("laptop"), probe_programs=300))
    return tasks.programs, first_inputs(tasks)


def noise(programs, seed=0):
    rows = int(count_actions(programs)[0].sum())
    return np.random.default_rng(seed).normal(size=(rows, 12)).astype(np.float32)


def labels(programs, inputs, semantics=ORIGINAL):
    return build_probe_set(programs, inputs, [semantics], STANDARD).classes[0]


def oracle(classes):
    """One-hot labels of the paper's features."""
    heads = [FEATURES.index(name) for group in PAPER_FEATURES for name in group]
    return np.concatenate([np.eye(classes[f].max() + 1, dtype=np.float32)[classes[f]] for f in heads], 1)


def same(a, b):
    """Which features have the same labels."""
    return [name for f, name in enumerate(FEATURES) if np.array_equal(a[f], b[f])]


def test_tables_are_those_of_the_release(drawn):
    named = {k: [ACTIONS[word] for word in table] for k, table in RELEASED_ALTERNATIVES.items()}
    assert named[0] == ["move", "turn_right", "turn_left", "put_marker", "pick_marker"]
    assert named[5] == ["turn_left", "turn_right", "move", "put_marker", "pick_marker"]
    assert named[3][:3] == named[5][:3]
    assert not {"pick_marker", "put_marker"} & set(named[3])
    programs, inputs = drawn
    own = {k: labels(rewrite_actions(programs, table), inputs) for k, table in RELEASED_ALTERNATIVES.items()}
    assert same(own[0], labels(programs, inputs, FLIP)) == list(FEATURES)
    assert same(own[5], labels(programs, inputs, ADVERSARIAL)) == list(FEATURES)
    for k in (0, 5, 8, 11):
        assert same(own[k], labels(programs, inputs, Semantics(str(k), RELEASED_ALTERNATIVES[k]))) == list(FEATURES)
    assert "facing" not in same(own[3], own[5])


def test_0_follows_from_the_state_and_8_and_11_are_mirror_images(drawn):
    programs, inputs = drawn
    facing = FEATURES.index("facing")
    own = {k: labels(rewrite_actions(programs, table), inputs)[facing] for k, table in RELEASED_ALTERNATIVES.items()}
    start = inputs.robot[build_probe_set(programs, inputs, [ORIGINAL], STANDARD).program, 2]
    assert np.array_equal(own[0], (2 * start - labels(programs, inputs)[facing]) % 4)
    assert np.array_equal(own[8], (2 * start - own[11]) % 4)


@pytest.mark.slow
def test_selection_on_the_test_set_flatters(drawn):
    programs, inputs = drawn
    told = []
    found = measure_legacy_content(programs, inputs, noise(programs), QUICK, told.append)
    assert found.on_test.shape == found.on_validation.shape == (2, 2, 2, 3)
    assert sum(told) == found.on_test.size
    assert (found.on_test >= found.on_validation).all()
    assert found.on_test.mean() > found.on_validation.mean()
    assert ((found.on_test > 0) & (found.on_test < 1)).all()


@pytest.mark.slow
def test_an_oracle_is_decoded_under_its_own_semantics(drawn):
    programs, inputs = drawn
    longer = replace(QUICK, depths=(("linear", ()),), repeats=1, epochs=20)
    true = measure_legacy_content(programs, inputs, oracle(labels(programs, inputs)), longer)
    assert true.on_test[0, 0].min() > 0.97
    assert accuracy_gaps(true.on_test)[0, 1] > 15
    assert accuracy_gaps(true.on_test)[0, 0] == 0
    other = oracle(labels(rewrite_actions(programs, RELEASED_ALTERNATIVES[8]), inputs))
    assert accuracy_gaps(measure_legacy_content(programs, inputs, other, longer).on_test)[0, 1] < -15


@pytest.mark.slow
def test_flaws_are_there_and_can_be_mended(drawn):
    programs, inputs = drawn
    quick = replace(QUICK, depths=(("linear", ()),), alternatives=(), repeats=1)
    states = noise(programs)
    first, again = (measure_legacy_content(programs, inputs, states, quick) for _ in range(2))
    assert np.array_equal(first.on_test, again.on_test)
    # Several repeats: a probe of noise may find the majority, and two of them the same accuracies.
    unseeded = replace(quick, seed=None, repeats=3)
    unset = [measure_legacy_content(programs, inputs, states, unseeded).on_test for _ in range(2)]
    assert not np.array_equal(*unset)
    assert first.recurring > 0.1
    apart = measure_legacy_content(programs, inputs, states, replace(quick, programs_apart=True))
    assert apart.recurring == 0
    assert first.programs == [215, 43, 42]
    whole = measure_legacy_content(programs, inputs, states, replace(quick, drop_last=False))
    assert sum(whole.records) - sum(first.records) == len(programs)
    assert first.label.startswith("LEGACY")
    assert "not comparable" in first.label


def test_training_draws_and_evaluates_as_often_as_released(monkeypatch, drawn):
    seen = []
    real = benchmark.calibrate.legacy._train_probe

    def train(states, wanted, widths, rows, recipe):
        seen.append((len(rows[0]), real(states, wanted, widths, rows, recipe)))
        return seen[-1][1]

    monkeypatch.setattr(benchmark.calibrate.legacy, "_train_probe", train)
    few = replace(QUICK, depths=(("linear", ()),), alternatives=(), repeats=1, epochs=50, train_records=128, checks=20)
    measure_legacy_content(*drawn, noise(drawn[0]), few)
    assert {drawn for drawn, _ in seen} == {128}
    assert {len(right) for _, right in seen} == {20}
    assert len(seen) == sum(map(len, PAPER_FEATURES))


def test_unfit_programs_are_refused_in_one_line(drawn):
    programs, inputs = drawn
    states = noise(programs)
    with pytest.raises(UsageError, match="expected one state per action"):
        measure_legacy_content(programs, inputs, states[1:], QUICK)
    with pytest.raises(UsageError, match="raise --programs"):
        measure_legacy_content(programs, inputs, states, replace(QUICK, batch=2000))
    looped = Programs.of([parse(f"{HEADER_TEXT} repeat (2) {{ move(); }}; }}")])
    with pytest.raises(UsageError, match="1 programs with control flow"):
        measure_legacy_content(looped, inputs[:1], states[:1], QUICK)


def test_command_says_what_it_is(tiny_folder, tmp_path, capsys, monkeypatch):
    def evaluate(self, shard):
        wanted = probe_tasks(self.job.suite).take(np.arange(shard.start, shard.stop)).programs
        texts = [text.removeprefix(HEADER_TEXT) for text in wanted.texts()]
        texts[0], texts[1] = "fly(); }", "if (front_is_clear()) { move(); move(); }; }"
        kept = wanted.take(range(2, len(wanted)))
        states = np.concatenate([np.full((2, 12), np.nan, np.float32), noise(kept, shard.start)])
        return ShardResult([{"text": text} for text in texts], {"emit.mean": states})

    monkeypatch.setattr(Worker, "evaluate", evaluate)
    monkeypatch.setattr(benchmark.calibrate.legacy, "LegacyRecipe", partial(replace, QUICK))
    words = ["--model", f"path:{tiny_folder}", "--suite", "smoke", "--repeats", "1", "--fixed", "--out", str(tmp_path)]
    words += ["--epochs", "4"]
    assert benchmark.calibrate.legacy_command.main(words) == 0
    printed = capsys.readouterr().out
    for said in (
        "LEGACY",
        "not comparable",
        "chosen on the test set",
        "selected on validation",
        "disjoint programs",
        "mlp1",
        ", 4 epochs",
    ):
        assert said in printed
    stored = json.loads((tmp_path / "legacy.json").read_text())
    assert "LEGACY" in stored["label"]
    assert [one["recipe"]["programs_apart"] for one in stored["results"]] == [False, True]
    assert [one["recipe"]["epochs"] for one in stored["results"]] == [4, 4]
    assert np.shape(stored["results"][0]["gaps"]) == (2, 2)
    assert sum(stored["results"][0]["programs"]) == 160
    assert benchmark.calibrate.legacy_command.main([*words[:4], "--programs", "0"]) == 2
    assert "expected a whole number, at least 1" in capsys.readouterr().err
