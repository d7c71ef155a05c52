"""Pictures: the text by hand, the pixels where they should be, files that other programs can read."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from karel_env.execution.stepping import snapshots
from karel_env.extras.named_tasks import named_task
from karel_env.extras.pictures import (
    FLOOR,
    MARKER,
    ROBOT,
    STONE,
    animate,
    ansi,
    picture,
    save_gif,
    save_png,
)
from karel_env.semantics import FLIP
from karel_env.syntax.parser import parse
from karel_env.world import Worlds, parse_world

WORLD = parse_world("# 2 . 10\n. v3 1 .")


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_plain_text_by_hand():
    assert ansi(WORLD, colour=False).splitlines() == [
        "############",
        "####2 . 10##",
        "##. v31 . ##",
        "############",
    ]


def test_text_in_colour_has_the_same_shape():
    text = ansi(WORLD)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert [len(line) for line in plain] == [12] * 4
    assert plain[2] == "  · ▼31 ·   "
    assert text.count("\x1b[0m") == 24
    for robot, arrow in zip("^>v<", "▲▶▼◀", strict=True):
        assert arrow in ansi(parse_world(robot))


def test_crowded_cells_keep_their_width():
    cells = WORLD.cells.copy()
    cells[1, 2], cells[2, 2] = 345, 12
    text = ansi(Worlds(cells, WORLD.robot, WORLD.size), colour=False).splitlines()
    assert text[1:3] == ["####++. 10##", "##. v+1 . ##"]
    assert picture(Worlds(cells, WORLD.robot, WORLD.size)).size == (192, 128)


@pytest.mark.parametrize("cell", [8, 20, 33])
def test_every_cell_has_its_colour(cell):
    pixels = np.asarray(picture(WORLD, cell))
    assert pixels.shape == (4 * cell, 6 * cell, 3)
    for row, column in np.argwhere(WORLD.cells <= 0).tolist():
        centre = pixels[row * cell + cell // 2, column * cell + cell // 2]
        assert tuple(centre) == rgb(STONE if WORLD.cells[row, column] < 0 else FLOOR)
    corner = pixels[2 * cell + cell // 2 - cell // 8, 3 * cell + cell // 2]
    assert tuple(corner) == rgb(MARKER), "one marker, no number"
    robot = (pixels == rgb(ROBOT)).all(-1)
    assert robot[2 * cell : 3 * cell, 2 * cell : 3 * cell].sum() == robot.sum() > cell


@pytest.mark.parametrize(("robot", "side"), [("^", (0, -1)), (">", (1, 1)), ("v", (0, 1)), ("<", (1, -1))])
def test_the_robot_points_where_it_looks(robot, side):
    """The arrowhead is narrow ahead: fewer of its pixels lie in the half that it points to."""
    pixels = (np.asarray(picture(parse_world(robot), 48)) == rgb(ROBOT)).all(-1)[48:96, 48:96]
    axis, ahead = side
    halves = np.split(pixels, 2, axis=axis)
    front, back = (halves[1], halves[0]) if ahead > 0 else (halves[0], halves[1])
    assert 0 < front.sum() < 0.7 * back.sum()


def test_png_files(tmp_path):
    save_png(WORLD, tmp_path / "world.png", 16)
    with Image.open(tmp_path / "world.png") as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(picture(WORLD, 16)))
    with pytest.raises(ValueError, match="at least 8"):
        save_png(WORLD, tmp_path / "small.png", 4)


def test_an_animation_shows_the_trace(tmp_path):
    words = parse("def run() { turn_right(); turn_right(); turn_right(); pick_marker(); move(); put_marker(); }")
    path = tmp_path / "trace.gif"
    assert animate(words, WORLD, path, cell=16, milliseconds=100) == 6
    seen = snapshots(words, WORLD)
    with Image.open(path) as movie:
        assert (movie.format, movie.n_frames, movie.size) == ("GIF", 7, (96, 64))
        assert movie.info["loop"] == 0
        durations = []
        for i in range(7):
            movie.seek(i)
            durations.append(movie.info["duration"])
            shown, expected = np.asarray(movie.convert("RGB")), np.asarray(picture(seen[i], 16))
            for colour in (ROBOT, STONE, MARKER):
                differ = (shown == rgb(colour)).all(-1) != (expected == rgb(colour)).all(-1)
                assert differ.mean() < 0.005, "only the soft edges of numbers and arrows may differ"
    assert durations == [100] * 6 + [400]


def test_what_changes_nothing_is_one_longer_frame(tmp_path):
    path = tmp_path / "still.gif"
    save_gif(Worlds(*(np.stack([a] * 3) for a in (WORLD.cells, WORLD.robot, WORLD.size))), path, milliseconds=100)
    with Image.open(path) as movie:
        assert getattr(movie, "n_frames", 1) == 1
    for worlds in (WORLD, WORLD[None][:0]):
        with pytest.raises(ValueError, match="animation"):
            save_gif(worlds, path)


def test_a_semantics_has_its_own_trace(tmp_path):
    words = parse("def run() { turn_left(); move(); }")
    for semantics, name in ((FLIP, "flip.gif"), (None, "true.gif")):
        animate(words, WORLD, tmp_path / name, *([semantics] if semantics else []))
    assert (tmp_path / "flip.gif").read_bytes() != (tmp_path / "true.gif").read_bytes()


def test_a_named_task_can_be_shown_as_it_changes(tmp_path):
    task = named_task("oneStroke", 3)
    seen = [task.world]
    task.episode(parse("def run() { while (front_is_clear()) { move(); } }"), lambda state: seen.append(state.world()))
    stacked = Worlds(*(np.stack([getattr(w, field) for w in seen]) for field in ("cells", "robot", "size")))
    save_gif(stacked, tmp_path / "stroke.gif")
    assert (seen[-1].cells < 0).sum() > (seen[0].cells < 0).sum()
