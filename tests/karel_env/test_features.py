"""Labels of the robot's state, against a count by hand and against a slow rule a state."""

from __future__ import annotations

import numpy as np
import pytest
import random_programs

from karel_env.execution.interpreter import run
from karel_env.features import FEATURES, PAPER_FEATURES, PRIMARY, class_counts, labels
from karel_env.language import Programs
from karel_env.syntax.parser import parse
from karel_env.world import Worlds, parse_world

STEP = {0: (-1, 0), 1: (0, 1), 2: (1, 0), 3: (0, -1)}


def traced(programs: Programs, worlds: Worlds):
    done = run(programs, worlds, trace=True)
    width = worlds.cells.shape[-1]
    owner = np.repeat(np.arange(len(worlds)), np.diff(done.trace.offsets))
    robot = np.stack([done.trace.position // width, done.trace.position % width, done.trace.heading], 1)
    return labels(worlds.cells, worlds.robot, done.worlds.robot, robot, owner), robot, owner, done


def test_one_path_by_hand():
    world = parse_world(". . #\n> . .\n. . .")
    found, *_ = traced(Programs.of([parse("def run() { move(); turn_left(); move(); turn_right(); }")]), world[None])
    expected = {
        "facing": [1, 0, 0, 1],
        "start_x": [3, 3, 3, 3],
        "start_y": [2, 2, 1, 1],
        "end_x": [2, 2, 2, 2],
        "end_y": [1, 1, 2, 2],
        "absolute_x": [1, 1, 1, 1],
        "absolute_y": [1, 1, 0, 0],
        "obstacle": [0, 0, 1, 1],
        "wall_north": [0, 0, 1, 1],
        "wall_east": [0, 0, 1, 1],
        "wall_south": [0, 0, 0, 0],
        "wall_west": [0, 0, 0, 0],
    }
    assert {name: values.tolist() for name, values in found.items()} == expected


def test_the_slow_rule_agrees():
    rng = np.random.default_rng(4)
    worlds = random_programs.worlds(rng, 300, 6, 9)
    programs = Programs.straight_line(rng.integers(0, 5, (300, 8)).astype(np.int8), np.full(300, 8))
    found, robot, owner, done = traced(programs, worlds)
    for i in rng.integers(0, len(robot), 400):
        (row, column, heading), cells = robot[i].tolist(), worlds.cells[owner[i]]
        start, end = worlds.robot[owner[i]].tolist(), done.worlds.robot[owner[i]].tolist()
        blocked = [int(cells[row + dy, column + dx] < 0) for dy, dx in STEP.values()]
        # Offsets are shifted so that the largest one to the left or upwards is class 0: 6 columns, 3 rows.
        expected = [
            heading, column - start[1] + 6, row - start[0] + 3, end[1] - column + 6, end[0] - row + 3,
            column - 1, row - 1, blocked[heading], *blocked,
        ]  # fmt: skip
        assert [int(found[name][i]) for name in FEATURES] == expected


@pytest.mark.parametrize(("height", "width"), [(3, 3), (6, 9), (16, 8)])
def test_classes_are_within_their_counts_and_all_are_possible(height, width):
    rows, columns, headings = np.meshgrid(range(1, height - 1), range(1, width - 1), range(4), indexing="ij")
    robot = np.stack([rows.ravel(), columns.ravel(), headings.ravel()], 1)
    corners = np.array([[1, 1, 0], [height - 2, width - 2, 0]])
    cells = np.full((2, height, width), -1, np.int16)
    cells[:, 1:-1, 1:-1] = 0
    counts = class_counts(height, width)
    assert tuple(counts) == FEATURES
    found = [labels(cells, corners, corners[::-1], robot, np.full(len(robot), b)) for b in (0, 1)]
    for name in FEATURES:
        values = np.concatenate([part[name] for part in found])
        assert values.dtype == np.int64
        assert values.min() >= 0
        assert values.max() < counts[name]
        if (height, width) != (3, 3):
            assert len(np.unique(values)) == counts[name]


def test_the_paper_reads_what_we_read():
    assert PRIMARY in FEATURES
    assert {name for head in PAPER_FEATURES for name in head} <= set(FEATURES)
