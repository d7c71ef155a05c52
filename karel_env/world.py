"""Worlds: a grid inside a wall border, markers, and one robot.

Letters: `...` any leading shape, `H W` grid with border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADINGS = ("north", "east", "south", "west")
ROBOT_GLYPHS = "^>v<"
WALL = -1
MAX_PRINTED_MARKERS = 10
MAX_SIDE = 1000
"""Largest height and width, border included, of a world read from text or a file."""
MAX_COUNT = 2_767
"""Largest number of markers per cell in a file; an execution adds at most `EVENT_LIMIT`, so int16 cannot overflow."""


class WorldError(ValueError):
    """The world is invalid: no border, a robot in a wall, an unknown glyph, or rows of different lengths."""


def brief(value: object) -> str:
    """Quote a value for an error message: its `repr`, cut at 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


@dataclass(frozen=True, eq=False)
class Worlds:
    """A batch of worlds.

    Attributes:
        cells: int16 [..., H, W], -1 for a wall, otherwise the number of markers. Row 0 is the top row. The
            border of each world is wall; a world smaller than the array is padded with walls to the right and below.
        robot: int16 [..., 3], row, column (border included) and heading (0 north, 1 east, 2 south, 3 west).
        size: int16 [..., 2], height and width of each world, border included.
    """

    cells: np.ndarray
    robot: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, cells: np.ndarray, robot: np.ndarray, size: np.ndarray | None = None) -> Worlds:
        """Build validated worlds; without `size`, each fills the array.

        Raises:
            WorldError: see `check`; or a value is not an integer or exceeds int16.
        """
        cells, robot = _int16("cells", cells), _int16("robot", robot)
        if size is None:
            size = np.broadcast_to(np.array(cells.shape[-2:]), (*cells.shape[:-2], 2))
        worlds = cls(cells, robot, _int16("size", size))
        worlds.check()
        return worlds

    def check(self) -> None:
        """Raise `WorldError` unless every world has a closed border and its robot is on a free cell."""
        cells, robot = self.cells, self.robot
        if cells.ndim < 2 or robot.shape != (*cells.shape[:-2], 3) or self.size.shape != (*cells.shape[:-2], 2):
            raise WorldError(
                f"worlds: cells {cells.shape}, robot {robot.shape}, size {self.size.shape}; "
                "expected [..., H, W], [..., 3] and [..., 2] with the same leading shape"
            )
        height, width = np.moveaxis(self.size, -1, 0)
        if cells.shape[-2] < 3 or cells.shape[-1] < 3 or (self.size < 3).any():
            raise WorldError("worlds: a world is smaller than 3x3, one free cell inside its border")
        rows, columns = np.indices(cells.shape[-2:])
        last = (rows >= height[..., None, None] - 1) | (columns >= width[..., None, None] - 1)
        outside = last | (rows == 0) | (columns == 0)
        if (cells[outside] >= 0).any():
            raise WorldError("worlds: a cell of the border is not a wall; close the grid with a ring of '#'")
        if (cells < WALL).any():
            raise WorldError("worlds: a marker count is below 0")
        row, column, heading = np.moveaxis(robot.astype(np.int64), -1, 0)
        inside = (row >= 0) & (row < cells.shape[-2]) & (column >= 0) & (column < cells.shape[-1])
        if not inside.all() or ((heading < 0) | (heading > 3)).any():
            raise WorldError("worlds: a robot is outside its grid, or its heading is not 0 to 3")
        under = np.take_along_axis(self._flat(), (row * cells.shape[-1] + column)[..., None], -1)
        if (under < 0).any():
            raise WorldError("worlds: a robot is in a wall")

    def _flat(self) -> np.ndarray:
        height, width = self.cells.shape[-2:]
        return self.cells.reshape(*self.shape, height * width)

    @property
    def shape(self) -> tuple[int, ...]:
        """The leading shape `...`."""
        return self.cells.shape[:-2]

    def __len__(self) -> int:
        return self.cells.shape[0]

    def __getitem__(self, index: Any) -> Worlds:
        """Index the leading shape."""
        return Worlds(self.cells[index], self.robot[index], self.size[index])

    def reshape(self, *shape: int) -> Worlds:
        """Reshape the leading shape."""
        cells = self.cells.reshape(*shape, *self.cells.shape[-2:])
        lead = cells.shape[:-2]
        return Worlds(cells, self.robot.reshape(*lead, 3), self.size.reshape(*lead, 2))

    def same_state(self, other_worlds: Worlds) -> np.ndarray:
        """bool [...], equality of the full state: robot, walls, all marker counts (a suite's equality `state`)."""
        return self._same(other_worlds, lambda cells, other, robot: (cells == other).all((-2, -1)))

    def same_drawing(self, worlds: Worlds) -> np.ndarray:
        """bool [...], equality of the printed text, in which the robot's glyph hides markers (a suite's equality `drawn`)."""
        return self._same(worlds, _same_but_below)

    def _same(self, other: Worlds, compare: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """bool [...]; cells are compared only where the robots are alike, in few worlds of many."""
        row, column, heading = (self.robot[..., i] == other.robot[..., i] for i in range(3))
        is_same = np.asarray(row & column & heading)
        lead = is_same.shape
        cells, other_cells = (np.broadcast_to(part, (*lead, *part.shape[-2:])) for part in (self.cells, other.cells))
        robot = np.broadcast_to(self.robot, (*lead, 3))
        is_same[is_same] = compare(cells[is_same], other_cells[is_same], robot[is_same])
        return is_same[()]


def _same_but_below(cells: np.ndarray, other: np.ndarray, robot: np.ndarray) -> np.ndarray:
    """bool [M], equality of cells int16 [M, H, W] but for the one that the robot stands on."""
    differ = cells != other
    differ[np.arange(len(cells)), robot[:, 0], robot[:, 1]] = False
    return ~differ.any((-2, -1))


def _int16(name: str, values: np.ndarray) -> np.ndarray:
    """Convert to a contiguous int16 array; raises `WorldError` if a value is not an integer or exceeds int16."""
    array = np.asarray(values)
    if array.dtype != np.int16:
        if array.dtype.kind not in "iuf":
            raise WorldError(f"worlds: {name} of type {array.dtype}; expected integers")
        limits = np.iinfo(np.int16)
        fits = (array >= limits.min) & (array <= limits.max)
        if array.dtype.kind == "f":
            fits &= array == np.floor(array)
        if not fits.all():
            wrong = array[~fits].flat[0]
            raise WorldError(f"worlds: {name} hold {wrong}; expected integers from {limits.min} to {limits.max}")
    return np.ascontiguousarray(array, np.int16)


_ROBOT_ROW = MAX_PRINTED_MARKERS + 2
_GLYPHS = ["#", *(str(n) if n else "." for n in range(MAX_PRINTED_MARKERS + 1))] + [
    f"{heading}{n or ''}" for heading in ROBOT_GLYPHS for n in range(MAX_PRINTED_MARKERS + 1)
]
_GLYPH_BYTES = np.array([list(f"{glyph} ".encode().ljust(4, b"\0")) for glyph in _GLYPHS], np.uint8)
"""uint8 [G, 4], each glyph, a space, and zeros: a wall, the numbers of markers from 0, then those under each heading."""


def world_texts(worlds: Worlds, show_under_robot: bool = True, border: bool = False) -> list[str]:
    """The canonical text of each of the worlds [N]: a line per row, glyphs separated by one space.

    Args:
        worlds: worlds [N].
        show_under_robot: print the number of markers under the robot after its glyph (`^3`).
        border: print the border too; the canonical text does not, since every world has one.

    Raises:
        WorldError: a cell holds more than 10 markers, for which there is no glyph.
    """
    number = np.arange(len(worlds))
    row, column, heading = worlds.robot.astype(np.int64).T
    height, width = worlds.size.astype(np.int64).T
    margin = 0 if border else 1
    rows, columns = (np.arange(side) for side in worlds.cells.shape[1:])
    in_rows = (rows >= margin) & (rows < height[:, None] - margin)
    in_columns = (columns >= margin) & (columns < width[:, None] - margin)
    is_shown = in_rows[:, :, None] & in_columns[:, None, :]
    most = worlds.cells.max((1, 2), initial=0)
    if (most > MAX_PRINTED_MARKERS).any():
        first = most[most > MAX_PRINTED_MARKERS][0]
        raise WorldError(f"a cell holds {first} markers; text can show at most {MAX_PRINTED_MARKERS}")
    glyph = worlds.cells.clip(WALL) - WALL
    under = worlds.cells[number, row, column].clip(0) if show_under_robot else 0
    glyph[number, row, column] = _ROBOT_ROW + heading * (MAX_PRINTED_MARKERS + 1) + under
    text = _GLYPH_BYTES[glyph] * is_shown[..., None]
    last = text[number, :, width - margin - 1]
    text[number, :, width - margin - 1] = np.where(last == ord(" "), ord("\n"), last)
    is_character = text != 0
    stops = is_character.sum((1, 2, 3)).cumsum().tolist()
    characters = text[is_character].tobytes().decode("ascii")
    return [characters[start : stop - 1] for start, stop in zip([0, *stops], stops, strict=False)]


def world_text(world: Worlds, show_under_robot: bool = True, border: bool = False) -> str:
    """The canonical text of one world: a line per row, glyphs separated by one space.

    Args:
        world: one world, leading shape empty.
        show_under_robot: print the number of markers under the robot after its glyph (`^3`).
        border: print the border too.

    Raises:
        WorldError: a cell holds more than 10 markers, for which there is no glyph.
    """
    return world_texts(world.reshape(1), show_under_robot, border)[0]


def parse_world(text: str, border: bool = False) -> Worlds:
    """Parse one world; the inverse of `world_text` with `show_under_robot`.

    Args:
        text: rows of glyphs, each separated by white space.
        border: whether the text has the border.

    Returns:
        Worlds of empty leading shape.

    Raises:
        WorldError: unknown glyph, rows of different lengths, not exactly one robot.
    """
    lines = [line.split() for line in text.strip().splitlines()]
    if not lines or len({len(line) for line in lines}) != 1:
        raise WorldError(f"world text: rows of lengths {brief([len(line) for line in lines])}; expected all equal")
    if not border:
        width = len(lines[0]) + 2
        lines = [["#"] * width, *(["#", *line, "#"] for line in lines), ["#"] * width]
    if max(len(lines), len(lines[0])) > MAX_SIDE:
        raise WorldError(
            f"world text: {len(lines)}x{len(lines[0])} with its border; expected at most {MAX_SIDE} a side"
        )
    cells = np.zeros((len(lines), len(lines[0])), np.int16)
    robots: list[tuple[int, int, int]] = []
    for r, line in enumerate(lines):
        for c, glyph in enumerate(line):
            cells[r, c], heading = _read_glyph(glyph, r, c)
            if heading >= 0:
                robots.append((r, c, heading))
    if len(robots) != 1:
        raise WorldError(f"world text: {len(robots)} robots; expected exactly one of {ROBOT_GLYPHS}")
    return Worlds.of(cells, np.array(robots[0]))


def _read_glyph(glyph: str, row: int, column: int) -> tuple[int, int]:
    """(cell value, heading or -1)."""
    heading = ROBOT_GLYPHS.find(glyph[0])
    count = glyph[1:] if heading >= 0 else glyph
    if heading < 0 and glyph in ("#", "."):
        return (WALL if glyph == "#" else 0), -1
    if heading >= 0 and not count:
        return 0, heading
    if count in COUNT_GLYPHS:
        return int(count), heading
    raise WorldError(f"world text: row {row}, column {column}: unknown glyph {brief(glyph)}")


COUNT_GLYPHS = tuple(str(n) for n in range(1, MAX_PRINTED_MARKERS + 1))


def glyph_words(show_under_robot: bool = True) -> Sequence[str]:
    """All glyphs of the canonical text, in a fixed order."""
    robots = [g + n for g in ROBOT_GLYPHS for n in ("", *(COUNT_GLYPHS if show_under_robot else ()))]
    return (".", "#", *COUNT_GLYPHS, *robots)
