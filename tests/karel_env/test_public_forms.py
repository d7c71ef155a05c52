"""Worlds in the public forms are read only if they are of the form: one line of error otherwise, never another world."""

from __future__ import annotations

import numpy as np
import pytest

from karel_env.execution.interpreter import EVENT_LIMIT
from karel_env.extras.state_array import (
    from_grid_json,
    from_sparse_grid,
    from_state_array,
    grid_json,
    sparse_grid,
    state_array,
)
from karel_env.world import MAX_COUNT, MAX_SIDE, WorldError, Worlds, parse_world

GRID = {"rows": 3, "cols": 4, "hero": "0:0:east", "blocked": "1:1 2:3", "markers": "0:1:8 2:0:1", "crashed": False}
WORLD = parse_world("1 . . #\n. # . .\n> 8 . .")


def refused(call, *arguments, match: str = "") -> None:
    """The call raises a WorldError of one line that is short enough to read."""
    with pytest.raises(WorldError, match=match) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_grid_is_of_the_form():
    assert from_grid_json(GRID).same_state(WORLD)
    assert from_grid_json({key: value for key, value in GRID.items() if key != "crashed"}).same_state(WORLD)
    assert from_grid_json({**GRID, "markers": f"0:1:{MAX_COUNT}"}).cells[3, 2] == MAX_COUNT
    assert from_grid_json({**GRID, "rows": MAX_SIDE - 2, "hero": f"{MAX_SIDE - 3}:0:west"}).robot.tolist() == [1, 1, 3]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rows", [0, -1, True, 3.0, "3", None, [3], MAX_SIDE - 1, 10**9, 10**30, 2]),
        ("cols", [0, -2, True, 4.0, "4", None, {}, 10**9, 3]),
        ("hero", [
            "", "0:0", "0:0:up", "0:0:East", "0:0:east 1:0:east", "0:0:east:1", "3:0:east", "0:4:east", "-1:0:east",
            "0:-1:east", "1:1:east", "0:0:1", "x:0:east", "0:0:\u0435ast", "0.0:0:east", "00:0:east", "+0:0:east", 7, None,
            ["0:0:east"], True, "9" * 5000 + ":0:east",
        ]),
        ("blocked", ["3:0", "0:4", "-1:0", "0:0", "0:1", "2", "2:2:1", "2:2 2:2", "2;2", "x:y", "2:\u0662", "1_0:2", 5, None, []]),
        ("markers", [
            "5:0:1", "1:4:1", "-1:0:1", "1:-1:1", "2:2:-1", "2:2:0", "2:2:40000", f"2:2:{MAX_COUNT + 1}", "2:2:65536",
            "2:2", "2:2:1:1", "2:2:1.0", "2:2:x", "2:2:1 2:2:1", "2:2:1 2:2:3", "1:1:1", "2:2:01", "2:2:+1", "2:2:1_0",
            "2:2:" + "9" * 5000, 5, None, [[2, 2, 1]], b"2:2:1",
        ]),
        ("crashed", [True, "true", "false", 0, 1, None, "", []]),
    ],
)  # fmt: skip
def test_an_entry_of_another_form_is_refused(name, values):
    for value in values:
        refused(from_grid_json, {**GRID, name: value}, match="grid: .*expected|leave it out")


def test_missing_entries_and_what_is_no_object():
    for name in ("rows", "cols", "hero", "blocked", "markers"):
        refused(
            from_grid_json, {key: value for key, value in GRID.items() if key != name}, match=f"'{name}' is missing"
        )
    for grid in (None, [], "{}", 3, [GRID]):
        refused(from_grid_json, grid, match="no object")


@pytest.mark.parametrize(
    "text",
    [
        "-1:1.0", "0:0.0", "0", "0:1.0:1.0", "0:2.0", "0:", ":1.0", "0:x", "1_0:1.0", "\u0663:1.0", "5184:1.0",
        "9" * 5000 + ":1.0",
    ],
)  # fmt: skip
def test_a_sparse_entry_of_another_form_is_refused(text):
    refused(from_sparse_grid, f"{sparse_grid(WORLD)} {text}", match="sparse grid")


def test_a_sparse_grid_is_one_world():
    """No entry can be added to or taken from it: either it is another world's, or it is refused."""
    entries = sparse_grid(WORLD).split()
    assert from_sparse_grid(" ".join(entries)).same_state(WORLD)
    refused(from_sparse_grid, " ".join([*entries, entries[0]]), match="twice")
    for text in (None, 3, entries, b"0:1.0"):
        refused(from_sparse_grid, text, match="no text")
    places = {int(entry.split(":")[0]) for entry in entries}
    for place in {*range(0, 16 * 18 * 18, 23), *places}:
        text = " ".join(f"{index}:1.0" for index in sorted(places ^ {place}))
        try:
            world = from_sparse_grid(text)
        except WorldError:
            continue
        assert {int(entry.split(":")[0]) for entry in sparse_grid(world).split()} == places ^ {place}


def test_a_state_array_holds_zeros_and_ones():
    array = state_array(WORLD)
    for number in (2, -1, 0.5, np.nan, np.inf):
        changed = array.astype(np.float64)
        changed[2, 2, 3] = number
        refused(from_state_array, changed, match="0 or 1")
    for other in (array.astype(str), array.astype(object), array.astype(np.complex128), [[[1], [1, 2]]], None, "x", 7):
        refused(from_state_array, other, match="state array")
    heaped = array.copy()
    heaped[2, 2, 7] = True
    refused(from_state_array, heaped, match="a wall with markers")
    walled = array.copy()
    walled[2, 2, 1] = True
    refused(from_state_array, walled, match="exactly one robot")
    assert from_state_array(array.tolist()).same_state(WORLD)


def test_numbers_that_do_not_fit_are_not_wrapped():
    for cells in (40_000, 65_536, -40_000, 0.5, np.nan, np.inf):
        changed = WORLD.cells.astype(np.float64)
        changed[1, 1] = cells
        refused(Worlds.of, changed, WORLD.robot, match="cells hold")
        if cells == np.floor(cells) and np.isfinite(cells):
            refused(Worlds.of, changed.astype(np.int64), WORLD.robot, match="cells hold")
    for robot in ([1, 1, 65_536], [65_537, 1, 0], [1.5, 1, 0], [10**30, 1, 0], ["1", "1", "0"], [True, True, False]):
        refused(Worlds.of, WORLD.cells, np.array(robot), match="robot")
    refused(Worlds.of, WORLD.cells, WORLD.robot, np.array([5, 65_542]), match="size hold")
    assert Worlds.of(WORLD.cells.astype(np.float32), WORLD.robot.astype(np.uint64)).same_state(WORLD)
    wide = np.full((3, 40_000), -1)
    wide[1, 39_000] = 0
    refused(Worlds.of, wide, np.array([1, 39_000, 0]), match="robot hold 39000")


def test_a_text_is_of_a_size_that_can_be_read():
    refused(parse_world, " ".join([">"] + ["."] * MAX_SIDE), match="at most")
    refused(parse_world, "\n".join([">"] + ["."] * MAX_SIDE), match="at most")
    refused(parse_world, "\n".join(["> ."] * 300 + ["."]), match="rows of lengths")
    refused(parse_world, ">" + "9" * 5000, match="unknown glyph")


def test_what_a_grid_holds_can_be_written_again():
    """A count that the form takes leaves room for the markers that an execution may add."""
    assert np.iinfo(np.int16).max == MAX_COUNT + EVENT_LIMIT
    assert from_grid_json(grid_json(WORLD)).same_state(WORLD)
