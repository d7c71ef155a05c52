"""Worlds: a grid inside a wall border, markers, and one robot.

Letters: `...` any leading shape, `H W` grid with border.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        return self.cells.reshape(*self.shape, -1)

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
        return self._same_robot(other_worlds) & (self.cells == other_worlds.cells).all((-2, -1))

    def same_drawing(self, worlds: Worlds) -> np.ndarray:
        """bool [...], equality of the printed text, in which the robot's glyph hides markers (a suite's equality `drawn`)."""
        differ = self.cells != worlds.cells
        at = self.robot[..., 0].astype(np.int64) * self.cells.shape[-1] + self.robot[..., 1]
        differ = differ.reshape(*self.shape, -1)
        np.put_along_axis(differ, at[..., None], False, -1)
        return self._same_robot(worlds) & ~differ.any(-1)

    def _same_robot(self, worlds: Worlds) -> np.ndarray:
        return (self.robot == worlds.robot).all(-1)


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


_CELL_GLYPHS = {n: str(n) if n else "." for n in range(MAX_PRINTED_MARKERS + 1)}
"""Glyphs by number of markers; any other cell is a wall."""


def glyph_rows(world: Worlds, show_under_robot: bool = True, border: bool = False) -> list[list[str]]:
    """Glyphs of one world, one list per row.

    Args:
        world: one world (empty leading shape).
        show_under_robot: append the number of markers under the robot to its glyph (`^3`).
        border: include the border; the canonical text does not, since every world has one.

    Raises:
        WorldError: a cell has more than 10 markers, for which there is no glyph.
    """
    row, column, heading = (int(v) for v in world.robot)
    height, width = (int(v) for v in world.size)
    cells = world.cells[:height, :width].tolist()
    most = max(map(max, cells))
    if most > MAX_PRINTED_MARKERS:
        raise WorldError(f"a cell holds {most} markers; text can show at most {MAX_PRINTED_MARKERS}")
    rows = [[_CELL_GLYPHS.get(n, "#") for n in line] for line in cells]
    under = cells[row][column]
    rows[row][column] = ROBOT_GLYPHS[heading] + (str(under) if under and show_under_robot else "")
    return rows if border else [line[1:-1] for line in rows[1:-1]]


def world_text(world: Worlds, show_under_robot: bool = True, border: bool = False) -> str:
    """The canonical text of one world: a line per row, glyphs separated by one space.

    Args:
        world: one world (leading shape empty).
        show_under_robot: print the number of markers under the robot after its glyph (`^3`).
        border: print the border too.

    Raises:
        WorldError: a cell holds more than 10 markers, for which there is no glyph.
    """
    return "\n".join(" ".join(line) for line in glyph_rows(world, show_under_robot, border))


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
