"""Semantic content with its floors, on states whose content is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.errors import UsageError
from benchmark.probing.labels import MISSING
from benchmark.probing.protocol import STANDARD
from benchmark.probing.semantic_content import GeneratedPrograms
from benchmark.probing.written.content import (
    HISTORY,
    HISTORY_WITHOUT_OUTPUT,
    MAJORITY,
    MODEL,
    PRESENT_STATE,
    measure_content,
)
from benchmark.probing.written.content_labels import (
    ABSOLUTE,
    CLEAR_CONDITIONS,
    FRAMES,
    HEADS,
    RELATIVE,
    TO_GO_HEADS,
    WrittenPrograms,
    label_content,
)
from benchmark.reproduction.report import format_content
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import load_suite, probe_tasks
from karel_env.execution.interpreter import run
from karel_env.features import FEATURES
from karel_env.language import HEADER_TEXT, Programs
from karel_env.syntax.parser import parse

PROTOCOL = replace(STANDARD, seeds=(0, 1), folds=4, steps=120, hidden=64, resamples=200, min_programs=50)
NUM_TASKS = 500


@pytest.fixture(scope="module")
def tasks():
    return probe_tasks(replace(load_suite("laptop"), probe_programs=NUM_TASKS))


@pytest.fixture(scope="module")
def texts(tasks):
    return [text.removeprefix(HEADER_TEXT).lstrip() for text in tasks.programs.texts()]


@pytest.fixture(scope="module")
def written(tasks, texts):
    return WrittenPrograms.from_texts(texts, tasks)


@pytest.fixture(scope="module")
def labels(written):
    return label_content(written, PROTOCOL)


def one_hot(labels, offset):
    """States that hold every head at an offset exactly; zero where there is no such state."""
    columns = labels.classes[labels.offsets.index(offset)]
    return np.concatenate(
        [
            np.eye(n, dtype=np.float32)[np.maximum(c, 0)] * (c != MISSING)[:, None]
            for c, n in zip(columns, labels.counts, strict=True)
        ],
        1,
    )


@pytest.fixture(scope="module")
def future_oracle(written, labels):
    """The content of states that hold the state one ahead, and its floors."""
    return measure_content(written, one_hot(labels, 1), PROTOCOL, depths=["linear"])


def test_a_state_that_is_held_is_read(written, labels):
    content = measure_content(written, one_hot(labels, 0), PROTOCOL, offsets=[0], depths=["linear"])
    for frame in FRAMES:
        figure = content.find(MODEL, "linear", 0, frame)
        assert figure.content.value > 0.95
        assert figure.content.low <= figure.content.value <= figure.content.high


def test_a_future_state_is_read_at_its_offset_and_not_from_the_present_state(future_oracle):
    for frame in FRAMES:
        ahead = future_oracle.find(MODEL, "linear", 1, frame).content.value
        assert ahead > 0.93
        assert ahead > future_oracle.find(PRESENT_STATE, "linear", 1, frame).content.value + 0.05
        assert ahead > future_oracle.find(MODEL, "linear", 2, frame).content.value + 0.1


def test_noise_is_not_above_the_majority(written, labels):
    noise = np.random.default_rng(0).normal(size=(len(labels.probe_set.program), 16)).astype(np.float32)
    content = measure_content(written, noise, PROTOCOL, offsets=[0], depths=["linear"])
    for frame in FRAMES:
        assert content.find(MODEL, "linear", 0, frame).content.value < (
            content.find(MAJORITY, "", 0, frame).content.value + 0.03
        )


def test_outputs_that_are_shown_give_away_absolute_content(future_oracle):
    shown = future_oracle.find(HISTORY, "linear", 0, ABSOLUTE).content.value
    assert shown > future_oracle.find(HISTORY_WITHOUT_OUTPUT, "linear", 0, ABSOLUTE).content.value + 0.05


def test_the_majority_is_that_of_the_training_rows(future_oracle, labels):
    classes = labels.classes[0]
    shares = []
    for split in labels.splits(0, PROTOCOL):
        for head in ("facing", "rotation"):
            row = classes[HEADS.index(head)]
            values, counts = np.unique(row[split.train], return_counts=True)
            shares.append((head, row[split.test] == values[counts.argmax()]))
    for head, frame in (("facing", ABSOLUTE), ("rotation", RELATIVE)):
        expected = np.concatenate([hit for name, hit in shares if name == head]).mean()
        assert future_oracle.find(MAJORITY, "", 0, frame).accuracy[head] == pytest.approx(expected)


def test_absolute_labels_and_splits_are_those_of_a_run(tasks, texts, labels):
    programs = GeneratedPrograms.from_texts(texts, first_inputs(tasks), PROTOCOL)
    for head in ("facing", "start_x", "start_y", "obstacle"):
        run_classes = programs.probe_set.classes[0, FEATURES.index(head)]
        np.testing.assert_array_equal(labels.classes[0, HEADS.index(head)], run_classes)
    for ours, theirs in zip(labels.splits(0, PROTOCOL), programs.splits, strict=True):
        np.testing.assert_array_equal(ours.test, theirs.test)
        np.testing.assert_array_equal(ours.train, theirs.train)


def test_rotation_is_the_heading_less_that_of_the_start(written, labels):
    rotation, facing = labels.classes[0, HEADS.index("rotation")], labels.classes[0, HEADS.index("facing")]
    start = written.inputs.robot[labels.probe_set.program, 2]
    np.testing.assert_array_equal(rotation, (facing - start) % 4)


def test_to_go_leads_from_each_state_to_the_output(written, labels):
    """Turning and moving by what is labelled ends where the shown output has the robot, in grid coordinates."""
    steps = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
    inputs, outputs, program = written.inputs, written.outputs, labels.probe_set.program
    column = {
        name: labels.classes[0, HEADS.index(name)].astype(int)
        for name in ("facing", "start_x", "start_y", *TO_GO_HEADS)
    }
    start, end = inputs.robot[program].astype(int), outputs.robot[program].astype(int)
    height, width = inputs.cells.shape[1:]
    np.testing.assert_array_equal((column["facing"] + column["rotation_to_go"]) % 4, end[:, 2])
    place = start[:, :2] + np.stack([column["start_y"] - (height - 3), column["start_x"] - (width - 3)], 1)
    largest = max(height, width) - 3
    ahead, right = steps[start[:, 2]], steps[(start[:, 2] + 1) % 4]
    place += (
        ahead * (column["forward_to_go"] - largest)[:, None] + right * (column["sideways_to_go"] - largest)[:, None]
    )
    np.testing.assert_array_equal(place, end[:, :2])


def test_conditions_are_those_of_the_interpreter():
    """`if (c()) { put_marker() }` after the word puts a marker exactly where the label says that c holds."""
    tasks = probe_tasks(replace(load_suite("control"), probe_programs=60, tasks=8, sha256=""))
    texts = ["move(); turn_left();", "turn_right(); turn_right();", "put_marker(); move();"]
    inputs, count = tasks.inputs[:, 0], len(tasks.inputs)
    programs = Programs.of([parse(f"{HEADER_TEXT} {texts[i % 3]} }}") for i in range(count)])
    labels = label_content(WrittenPrograms(programs, inputs, inputs, np.arange(count)), PROTOCOL)
    last = labels.probe_set.step == 1
    is_labelled = labels.classes[0, 0, last] != MISSING
    for condition in CLEAR_CONDITIONS:
        longer = [f"{HEADER_TEXT} {texts[i % 3]} if ({condition}()) {{ pick_marker(); }} }}" for i in range(count)]
        full = replace(inputs, cells=np.where(inputs.cells >= 0, 3, inputs.cells))
        done = [
            run(Programs.of([parse(text) for text in part]), full).worlds.cells
            for part in (longer, [text.split(" if ")[0] + " }" for text in longer])
        ]
        held = (done[0] != done[1]).any((1, 2))
        found = labels.classes[0, HEADS.index(condition), last][is_labelled]
        np.testing.assert_array_equal(found, held[labels.probe_set.program[last][is_labelled]])
        assert 0 < found.mean() < 1


def test_words_without_a_state_ahead_are_left_out(labels):
    last = labels.splits(1, PROTOCOL)[0].test
    assert (labels.classes[1][:, last] != MISSING).all()
    assert len(last) < len(labels.splits(0, PROTOCOL)[0].test)


def test_the_table_names_every_source_and_frame(future_oracle):
    text = format_content(future_oracle)
    for name in (MODEL, HISTORY, HISTORY_WITHOUT_OUTPUT, PRESENT_STATE, MAJORITY, ABSOLUTE, RELATIVE, "rotation"):
        assert name in text
    assert text.count("State after the word") == 3
    assert f"{NUM_TASKS} valid programs" in text


def test_states_of_another_length_are_refused(written, labels):
    states = np.zeros((len(labels.probe_set.program) - 1, 4), np.float32)
    with pytest.raises(UsageError, match=r"states; expected [\d,]+, one for each action word"):
        measure_content(written, states, PROTOCOL, offsets=[0])


def test_few_programs_are_refused(tasks, texts):
    few = WrittenPrograms.from_texts(texts[:10], tasks)
    assert few is not None
    with pytest.raises(UsageError, match="distinct programs; expected at least 50"):
        measure_content(few, None, PROTOCOL)
    assert WrittenPrograms.from_texts(["no program"] * 3, tasks) is None
