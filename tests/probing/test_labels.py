"""Labels, budgets, control labels, and the token-history baseline, against a step-by-step reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from reference_interpreter import Karel
from sklearn.metrics import f1_score
from worlds import WORLDS_SUITE

from benchmark.probing.diagnostics import CONTROL_LABELS, add_control_labels, macro_f1
from benchmark.probing.labels import DROPPED, MISSING, build_probe_set, list_semantics, select_alternatives
from benchmark.probing.prior import fit_step_prior
from benchmark.probing.protocol import STANDARD
from benchmark.probing.token_history import token_history_states, world_features
from benchmark.tasks.probe_sets import CROSSED_ALTERNATIVES, crossed_outputs, first_inputs
from benchmark.tasks.suite import blind_tasks, load_suite, probe_tasks
from benchmark.tasks.task_sets import TaskSets
from karel_env.execution.interpreter import run
from karel_env.features import FEATURES
from karel_env.language import ACTIONS, FIRST_CONDITION
from karel_env.screen import valid_alternatives
from karel_env.semantics import ORIGINAL, mirror_classes

SUITE = replace(load_suite(WORLDS_SUITE), probe_programs=150)
OFFSETS = (0, -2, -1, 1, 2)


@pytest.fixture(scope="module")
def tasks():
    return blind_tasks(SUITE)


@pytest.fixture(scope="module")
def probe_set(tasks):
    semantics = [ORIGINAL, *select_alternatives(replace(STANDARD, alternatives=2))]
    return build_probe_set(tasks.programs, first_inputs(tasks), semantics, STANDARD, OFFSETS, budget=60)


def states_of(tasks, b: int, meaning) -> list[tuple[int, int, int]]:
    """(row, column, heading) before the program and after each of its actions, by the recursive reference."""
    inputs = first_inputs(tasks)
    cells = inputs.cells[b]
    walls = {(int(y), int(x)) for y, x in zip(*np.nonzero(cells < 0), strict=True)}
    markers = {(int(y), int(x)): int(cells[y, x]) for y, x in zip(*np.nonzero(cells > 0), strict=True)}
    names = {word: ACTIONS[effect] for word, effect in zip(ACTIONS, meaning.actions, strict=True)}
    karel = Karel(walls, markers, *(int(v) for v in inputs.robot[b]), meaning=names)
    states = [(karel.row, karel.column, karel.heading)]
    for word in tasks.programs.program(b):
        if word < FIRST_CONDITION:
            karel.act(ACTIONS[word])
            states.append((karel.row, karel.column, karel.heading))
    return states


def test_labels_match_the_reference_interpreter(tasks, probe_set):
    meanings = [ORIGINAL, *(s for name in probe_set.semantics[1:] for s in mirror_classes() if s.name == name)]
    f = {name: FEATURES.index(name) for name in ("facing", "absolute_x", "absolute_y", "end_x")}
    for b, (s, meaning) in product(range(60), enumerate(meanings)):
        states = states_of(tasks, b, meaning)
        rows = np.flatnonzero(probe_set.program == b)
        assert len(rows) == SUITE.blind_length == len(states) - 1
        for offset, (t, row) in product(OFFSETS, enumerate(rows)):
            found = probe_set.at_offset(offset).classes[s, :, row]
            if not 0 <= t + 1 + offset < len(states):
                assert (found == MISSING).all()
                continue
            y, x, heading = states[t + 1 + offset]
            assert (found[f["facing"]], found[f["absolute_x"]], found[f["absolute_y"]]) == (heading, x - 1, y - 1)
            assert found[f["end_x"]] == states[-1][1] - x + 2


def test_a_budget_limits_training_and_validation_only(probe_set):
    free = replace(probe_set, budget=None)
    for seed in range(STANDARD.folds):
        split, full_set = probe_set.split(seed), free.split(seed)
        assert len(np.unique(probe_set.program[split.train])) == 60
        assert len(np.unique(probe_set.program[split.validation])) == 12
        assert set(split.train) < set(full_set.train)
        assert np.array_equal(split.test, full_set.test)


def test_blind_set_size_and_repetition():
    words = [blind_tasks(SUITE).programs.program(i).tobytes() for i in range(300)]
    assert len(blind_tasks(SUITE)) == len(set(words)) == 300
    repeated = blind_tasks(SUITE, 1500)
    assert len(repeated) == 1500
    counts = np.unique([repeated.programs.program(i).tobytes() for i in range(1500)], return_counts=True)[1]
    assert len(counts) == 5**SUITE.blind_length
    assert counts.max() == 3
    assert [repeated.programs.program(i).tobytes() for i in range(300)] == words
    worlds = {repeated.inputs.cells[i].tobytes() + repeated.inputs.robot[i].tobytes() for i in range(1500)}
    assert len(worlds) > 1490


def test_alternatives_are_those_of_the_primary_feature_unless_all_are_requested():
    assert [s.name for s in select_alternatives(STANDARD)] == list(valid_alternatives("facing"))
    assert [s.name for s in select_alternatives(replace(STANDARD, alternatives=29))] == [
        s.name for s in mirror_classes()
    ]
    reduced = select_alternatives(replace(STANDARD, alternatives=4))
    assert len({s.name for s in reduced} & set(valid_alternatives("facing"))) == 4
    assert list_semantics(STANDARD)[0] == ORIGINAL


def test_control_labels_depend_on_token_and_step_only(tasks, probe_set):
    with_control = add_control_labels(probe_set, tasks.programs)
    index = with_control.semantics.index(CONTROL_LABELS)
    words = tasks.programs.words[tasks.programs.offsets[probe_set.program] + 3 + probe_set.word]
    for f in range(len(FEATURES)):
        labels = with_control.classes[index, f]
        kinds: dict[tuple[int, int], set[int]] = {}
        for word, step, label in zip(words.tolist(), probe_set.step.tolist(), labels.tolist(), strict=True):
            kinds.setdefault((word, step), set()).add(label)
        assert len(kinds) == 5 * SUITE.blind_length
        assert all(len(found) == 1 for found in kinds.values())
        assert set(np.unique(labels)) <= set(np.unique(probe_set.classes[0, f]))
    assert len(np.unique(with_control.classes[index, FEATURES.index("facing")])) > 2


def test_macro_f1_matches_scikit_learn():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 4, 300), rng.integers(0, 5, 300)
    confusion = np.zeros((9, 9), np.int64)
    np.add.at(confusion, (label, predicted), 1)
    assert macro_f1(confusion) == pytest.approx(f1_score(label, predicted, average="macro"))


def test_token_history_contains_the_tokens_read_so_far(tasks, probe_set):
    inputs = first_inputs(tasks)
    world = world_features(inputs).shape[1]
    for ahead in (-1, 0, 2):
        states = token_history_states(tasks.programs, inputs, probe_set, ahead)
        read = states[:, : states.shape[1] - world].sum(1)
        expected = np.minimum(probe_set.word + 1 + ahead, SUITE.blind_length + 1)
        assert np.array_equal(read, expected)
    with_outputs = token_history_states(tasks.programs, inputs, probe_set, 0, tasks.outputs[:, 0])
    assert np.array_equal(with_outputs[:, -world:], world_features(tasks.outputs[:, 0])[probe_set.program])


def test_conditioning_the_prior_on_the_present_improves_it(probe_set):
    split = probe_set.split(0)
    for offset in (1, 2):
        later = probe_set.at_offset(offset)
        plain, conditional = (fit_step_prior(later, split, present) for present in (None, probe_set.at_offset(0)))
        f = FEATURES.index("absolute_x")
        assert (conditional.validation[:, f] < 0.8 * plain.validation[:, f]).all()
        assert ((conditional.log_prob[0, f] == 0) == (later.classes[0, f, split.test] == MISSING)).all()


def test_crossed_prompts_alternate_semantics(tasks):
    crossed = TaskSets(SUITE).crossed
    for name in CROSSED_ALTERNATIVES:
        assert name in valid_alternatives("facing")
        (meaning,) = (s for s in mirror_classes() if s.name == name)
        alternative = run(crossed.programs, crossed.inputs, meaning).worlds
        shown = crossed_outputs(crossed, name)
        odd = np.arange(len(crossed)) % 2 == 1
        assert shown[odd].same_state(alternative[odd]).all()
        assert shown[~odd].same_state(crossed.outputs[~odd]).all()
        assert not alternative.same_state(crossed.outputs).all()
        part = crossed.take(np.arange(5, 9))
        assert crossed_outputs(part, name, 5).same_state(shown[5:9]).all()


def test_generated_labels_follow_control_flow():
    """A token in a loop is labelled at its first execution; a token that is never executed is missing."""
    suite = replace(load_suite("control"), tasks=20, probe_programs=40, sha256="")
    tasks = probe_tasks(suite)
    probe_set = build_probe_set(tasks.programs, tasks.inputs[:, 0], [ORIGINAL], STANDARD, (0, -1))
    there = probe_set.classes[0, 0] != MISSING
    assert 0 < (~there).sum() < there.sum()
    before = probe_set.at_offset(-1).classes[0, 0]
    assert np.array_equal(before != MISSING, there)
    assert (probe_set.fold != DROPPED).any()
