"""The forms of the public data sets: there and back, and examples written by hand in their conventions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import random_programs

from karel_env.extras.state_array import (
    PLANES,
    from_grid_json,
    from_sparse_grid,
    from_state_array,
    grid_json,
    sparse_grid,
    state_array,
)
from karel_env.world import WorldError, Worlds, parse_world, world_text

WORLD = parse_world("# 2 .\n. v10 1")


@pytest.mark.parametrize(("height", "width"), [(3, 3), (5, 9), (18, 18), (30, 20)])
def test_the_array_there_and_back(height, width):
    worlds = random_programs.worlds(np.random.default_rng(height), 50, height, width)
    array = state_array(worlds)
    assert array.shape == (50, height, width, PLANES)
    for form in (array, array.astype(np.float32)):
        assert from_state_array(form).same_state(worlds).all()
    two = state_array(worlds.reshape(5, 10))
    assert from_state_array(two).same_state(worlds.reshape(5, 10)).all()
    assert from_state_array(array[0]).same_state(worlds[0])


@pytest.mark.parametrize(("height", "width"), [(3, 3), (5, 9), (18, 18)])
def test_the_grids_there_and_back(height, width):
    worlds = random_programs.worlds(np.random.default_rng(height), 50, height, width)
    for i in range(50):
        assert from_sparse_grid(sparse_grid(worlds[i])).same_state(worlds[i])
        assert from_grid_json(json.loads(json.dumps(grid_json(worlds[i])))).same_state(worlds[i])


def test_planes_by_hand():
    array = state_array(WORLD)
    assert np.argwhere(array[..., :4]).tolist() == [[2, 2, 1]], "south is the second plane"
    assert array[0, :, 4].all()
    assert array[1, 1, 4]
    assert not array[1, 2, 4]
    assert array[1, 1, 5], "walls carry the plane of no marker"
    assert np.argwhere(array[..., 6:]).tolist() == [[1, 2, 1], [2, 2, 9], [2, 3, 0]]
    planes = [np.flatnonzero(state_array(parse_world(robot))[1, 1, :4])[0] for robot in "^v<>"]
    assert planes == [0, 1, 2, 3]


def test_a_grid_of_the_public_data_by_hand():
    """An example as published: 14 rows counted from the bottom, 3 columns."""
    grid = {"rows": 14, "cols": 3, "hero": "11:0:east", "blocked": "", "markers": "2:0:1 0:1:8", "crashed": False}
    world = from_grid_json(grid)
    text = world_text(world).splitlines()
    assert len(text) == 14
    assert text[2] == "> . ."
    assert text[11] == "1 . ."
    assert text[13] == ". 8 ."
    again = grid_json(world)
    assert sorted(again.pop("markers").split()) == ["0:1:8", "2:0:1"]
    assert again == {k: v for k, v in grid.items() if k != "markers"}


def test_the_sparse_form_by_hand():
    """One free cell, the robot facing east on it: the ring of the border is in the plane after the wall's."""
    plane = 18 * 18
    ring = [0, 1, 2, 18, 20, 36, 37, 38]
    expected = [plane + 19, *(5 * plane + n for n in ring)]
    assert sparse_grid(parse_world(">")) == " ".join(f"{n}:1.0" for n in expected)
    north_of = sparse_grid(parse_world("^\n1"))
    assert f"{2 * 18 + 1}:1.0" in north_of.split(), "row 0 is the lowest"
    assert f"{6 * plane + 18 + 1}:1.0" in north_of.split()


def test_padded_worlds_keep_their_walls():
    small = parse_world("> 1")
    cells = np.full((2, 6, 7), -1, np.int16)
    cells[:, :3, :4] = small.cells
    worlds = Worlds(cells, np.stack([small.robot] * 2), np.array([[3, 4]] * 2, np.int16))
    np.testing.assert_array_equal(from_state_array(state_array(worlds)).cells, cells)
    assert from_sparse_grid(sparse_grid(worlds[0])).same_state(small)
    assert from_grid_json(grid_json(worlds[1])).same_state(small)


def test_what_is_not_a_world_is_refused():
    array = state_array(WORLD)
    crowded, bare, open_ended = array.copy(), array.copy(), array.copy()
    crowded[1, 3, 0] = True
    bare[1, 3, 5] = False
    open_ended[0, 1, 4] = False
    for bad, message in (
        (crowded, "exactly one robot"),
        (bare, "exactly one of the planes"),
        (open_ended, "border"),
        (array[..., :15], r"shape \(4, 5, 15\)"),
    ):
        with pytest.raises(WorldError, match=message):
            from_state_array(bad)
    heaped = Worlds(WORLD.cells + np.where(WORLD.cells > 9, 1, 0).astype(np.int16), WORLD.robot, WORLD.size)
    for form in (state_array, sparse_grid):
        with pytest.raises(WorldError, match="11 markers"):
            form(heaped)
    with pytest.raises(WorldError, match="19x19"):
        sparse_grid(parse_world("\n".join([" ".join([">"] + ["."] * 16), *[" ".join(["."] * 17)] * 16])))
    for text in ("a:1", "99999:1.0", "", "343:1.0"):
        with pytest.raises(WorldError, match="sparse grid"):
            from_sparse_grid(text)
    for change in ({"hero": "0:0"}, {"hero": "0:0:up"}, {"markers": "9:9:1"}, {"rows": "many"}):
        with pytest.raises(WorldError, match="expected rows, cols"):
            from_grid_json({**grid_json(WORLD), **change})
    with pytest.raises(WorldError, match="'hero'"):
        from_grid_json({"rows": 1, "cols": 1})
