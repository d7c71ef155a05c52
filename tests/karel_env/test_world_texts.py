"""The text of a batch of worlds: each as it is drawn by hand, whatever the sizes of those beside it."""

from __future__ import annotations

import numpy as np
import pytest

from karel_env.world import WorldError, Worlds, parse_world, world_text, world_texts

SIDE = 9


@pytest.fixture(scope="module")
def worlds() -> Worlds:
    """300 worlds of 3x3 to 9x9, the border included, with 0 to 10 markers in each free cell."""
    random = np.random.default_rng(0)
    size = random.integers(3, SIDE + 1, (300, 2))
    cells, robot = np.full((300, SIDE, SIDE), -1), np.zeros((300, 3), int)
    for world, at, (height, width) in zip(cells, robot, size, strict=True):
        at[:] = random.integers(1, height - 1), random.integers(1, width - 1), random.integers(4)
        world[1 : height - 1, 1 : width - 1] = random.integers(-1, 11, (height - 2, width - 2))
        world[at[0], at[1]] = random.choice([0, 3, 10])
    return Worlds.of(cells, robot, size)


def drawn(world: Worlds, show_under_robot: bool, border: bool) -> str:
    """One cell after the other."""
    height, width = world.size
    row, column, heading = world.robot
    margin = 0 if border else 1
    lines = []
    for i in range(margin, height - margin):
        line = []
        for j in range(margin, width - margin):
            count = world.cells[i, j]
            glyph = "#" if count < 0 else str(count) if count else "."
            if (i, j) == (row, column):
                glyph = "^>v<"[heading] + (str(count) if count and show_under_robot else "")
            line.append(glyph)
        lines.append(" ".join(line))
    return "\n".join(lines)


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("show_under_robot", [False, True])
def test_each_text_is_the_drawing_of_its_world(worlds, show_under_robot, border):
    texts = world_texts(worlds, show_under_robot, border)
    assert texts == [drawn(worlds[i], show_under_robot, border) for i in range(len(worlds))]
    sides = range(3, SIDE + 1) if border else range(1, SIDE - 1)
    assert {len(text.splitlines()) for text in texts} == set(sides)
    assert world_text(worlds[7], show_under_robot, border) == texts[7]


def test_a_text_is_parsed_to_its_world(worlds):
    for i, text in enumerate(world_texts(worlds)):
        assert world_text(parse_world(text)) == text
        height, width = worlds.size[i]
        assert np.array_equal(parse_world(text).cells, worlds.cells[i, :height, :width])


def test_no_worlds_have_no_texts(worlds):
    assert world_texts(worlds[:0]) == []


def test_more_markers_than_there_are_glyphs_are_an_error(worlds):
    cells = worlds.cells.copy()
    cells[5, 1, 1] = 11
    with pytest.raises(WorldError, match=r"^a cell holds 11 markers; text can show at most 10$"):
        world_texts(Worlds(cells, worlds.robot, worlds.size))
