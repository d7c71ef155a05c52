"""Convert worlds to and from the formats of the public data sets.

- The *state array* (carpedm20/karel, Jin & Rinard's release): 16 planes, robot facing north, south, west, east; wall;
  0 to 10 markers. Row 0 is the top row. The plane of 0 markers is set for walls too.
- The *grid* of Bunel et al. 2018 (msr-redmond.github.io/karel-dataset): a JSON object, `inpgrid_json`, and the same as
  a sparse tensor, `inpgrid_tensor`. Rows count from the bottom, without the border.

Letters: `...` any leading shape, `H W` grid with border.
Sources: github.com/carpedm20/karel; github.com/bunelr/GandRL_for_NPS, karel/world.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from karel_env.world import HEADINGS, MAX_COUNT, MAX_PRINTED_MARKERS, MAX_SIDE, WALL, WorldError, Worlds, brief

PLANES = 5 + MAX_PRINTED_MARKERS + 1
_WALL_PLANE, _MARKER_PLANE = 4, 5
_PLANE_HEADINGS = (0, 2, 3, 1)
"""Heading of each of the first four planes: north, south, west, east."""
_SPARSE_SIDE = 18
"""The sparse tensor is [16, 18, 18] with the world in its corner; headings are north, east, south, west."""
_NUMBER = "(0|[1-9][0-9]{0,8})"
_HERO = re.compile(f"{_NUMBER}:{_NUMBER}:({'|'.join(HEADINGS)})")
_BLOCKED = re.compile(f"{_NUMBER}:{_NUMBER}")
_MARKERS = re.compile(f"{_NUMBER}:{_NUMBER}:{_NUMBER}")
_ONE = re.compile(rf"{_NUMBER}:1(?:\.0)?")
_GRID_FORM = (
    'expected rows, cols, hero, blocked, markers, such as {"rows": 2, "cols": 3, "hero": "0:0:east", "blocked": "1:2", '
    '"markers": "0:1:8"}'
)


def state_array(worlds: Worlds) -> np.ndarray:
    """Convert worlds to bool [..., H, W, 16]; a world smaller than the array is padded with walls.

    Raises:
        WorldError: a cell has more than 10 markers, for which there is no plane.
    """
    _check_markers(worlds)
    cells = worlds.cells
    planes = np.zeros((*cells.shape, PLANES), bool)
    planes[..., _WALL_PLANE] = cells == WALL
    planes[..., _MARKER_PLANE:] = np.maximum(cells, 0)[..., None] == np.arange(MAX_PRINTED_MARKERS + 1)
    flat = planes.reshape(-1, *planes.shape[-3:])
    row, column, heading = worlds.robot.reshape(-1, 3).astype(np.int64).T
    flat[np.arange(len(flat)), row, column, np.argsort(_PLANE_HEADINGS)[heading]] = True
    return planes


def from_state_array(array: np.ndarray) -> Worlds:
    """Convert `[..., H, W, 16]` of 0 and 1, of any dtype, to worlds, each of which fills the array.

    Raises:
        WorldError: the shape is wrong, a value is not 0 or 1, there is not exactly one robot, a free cell does not have
            exactly one marker plane, a wall has markers, or there is no border.
    """
    try:
        flags = np.asarray(array)
    except ValueError as error:
        raise WorldError(f"state array: {error}; expected [..., H, W, {PLANES}]") from None
    if flags.ndim < 3 or flags.shape[-1] != PLANES:
        raise WorldError(f"state array: shape {flags.shape}; expected [..., H, W, {PLANES}]")
    if flags.dtype.kind not in "biuf" or not ((flags == 0) | (flags == 1)).all():
        raise WorldError(
            f"state array: values of dtype {flags.dtype} that are not all 0 or 1; expected planes of those"
        )
    planes = flags.astype(bool)
    wall, markers = planes[..., _WALL_PLANE], planes[..., _MARKER_PLANE:]
    if ((markers.sum(-1) != 1) & ~wall).any():
        raise WorldError("state array: a free cell does not have exactly one of the planes for 0 to 10 markers")
    if markers[wall, 1:].any():
        raise WorldError("state array: a wall with markers; expected no plane of 1 to 10 markers in a wall's cell")
    robots = planes[..., :_WALL_PLANE].reshape(*planes.shape[:-3], -1)
    if (robots.sum(-1) != 1).any():
        raise WorldError("state array: a world does not have exactly one robot")
    position, plane = np.divmod(robots.argmax(-1), _WALL_PLANE)
    row, column = np.divmod(position, planes.shape[-2])
    robot = np.stack([row, column, np.array(_PLANE_HEADINGS)[plane]], -1)
    return Worlds.of(np.where(wall, WALL, markers.argmax(-1)), robot)


def grid_json(world: Worlds) -> dict[str, Any]:
    """Convert a world to `inpgrid_json`; `crashed` is False."""
    height, width = (int(n) - 2 for n in world.size)
    cells = world.cells[1 : height + 1, 1 : width + 1][::-1]
    row, column, heading = (int(n) for n in world.robot)
    return {
        "rows": height,
        "cols": width,
        "hero": f"{height - row}:{column - 1}:{HEADINGS[heading]}",
        "blocked": " ".join(f"{r}:{c}" for r, c in np.argwhere(cells == WALL).tolist()),
        "markers": " ".join(f"{r}:{c}:{cells[r, c]}" for r, c in np.argwhere(cells > 0).tolist()),
        "crashed": False,
    }


def from_grid_json(grid: dict[str, Any]) -> Worlds:
    """Convert `inpgrid_json` or `outgrid_json` to a world; `crashed` is optional, and other entries are ignored.

    Raises:
        WorldError: an entry is missing or malformed; a cell is outside the grid, listed twice, or has a wall and something
            else; or `crashed` is true, since a crashed execution has no output world.
    """
    if not isinstance(grid, dict):
        raise WorldError(f"grid: {brief(grid)} is no object; {_GRID_FORM}")
    for name in ("rows", "cols", "hero", "blocked", "markers"):
        if name not in grid:
            raise WorldError(f"grid: {name!r} is missing; {_GRID_FORM}")
    crashed = grid.get("crashed", False)
    if crashed is not False:
        reason = "a run that crashed has no output world; leave it out" if crashed is True else "expected true or false"
        raise WorldError(f"grid: 'crashed' is {brief(crashed)}; {reason}")
    sides = grid["rows"], grid["cols"]
    if any(type(side) is not int or not 1 <= side <= MAX_SIDE - 2 for side in sides):
        value = " and ".join(map(brief, sides))
        raise WorldError(f"grid: 'rows' and 'cols' are {value}, of 1 to {MAX_SIDE - 2}; {_GRID_FORM}")
    height, width = sides
    cells = np.full((height + 2, width + 2), WALL, np.int16)
    cells[1:-1, 1:-1] = 0
    for entry, (row, column) in _cell_positions(grid, "blocked", _BLOCKED):
        if cells[height - row, column + 1] == WALL:
            raise WorldError(f"grid: 'blocked' names {entry} twice; expected distinct cells")
        cells[height - row, column + 1] = WALL
    for entry, (row, column, count) in _cell_positions(grid, "markers", _MARKERS):
        if cells[height - row, column + 1]:
            used = (
                "a blocked cell" if cells[height - row, column + 1] == WALL else "a cell that has its markers already"
            )
            raise WorldError(f"grid: 'markers' holds {entry}, {used}; expected distinct free cells")
        if not 1 <= count <= MAX_COUNT:
            raise WorldError(f"grid: 'markers' holds {entry}; expected 1 to {MAX_COUNT} markers in a cell")
        cells[height - row, column + 1] = count
    heroes = list(_cell_positions(grid, "hero", _HERO))
    if len(heroes) != 1:
        raise WorldError(f"grid: 'hero' names {len(heroes)} places, not one; {_GRID_FORM}")
    entry, (row, column, heading) = heroes[0]
    if cells[height - row, column + 1] == WALL:
        raise WorldError(f"grid: 'hero' is {entry}, a blocked cell; expected a free one")
    return Worlds.of(cells, np.array([height - row, column + 1, heading]))


def _cell_positions(grid: dict[str, Any], name: str, form: re.Pattern[str]) -> Iterator[tuple[str, list[int]]]:
    """Parse a list of cells: yields each entry with its row, its column and the rest; raises if outside the grid."""
    if not isinstance(grid[name], str):
        raise WorldError(f"grid: {name!r} is {brief(grid[name])}, no text; {_GRID_FORM}")
    for entry in grid[name].split():
        match = form.fullmatch(entry)
        if not match:
            raise WorldError(f"grid: {name!r} holds {brief(entry)}; {_GRID_FORM}")
        numbers = [HEADINGS.index(part) if part in HEADINGS else int(part) for part in match.groups()]
        if numbers[0] >= grid["rows"] or numbers[1] >= grid["cols"]:
            size = f"{grid['rows']} rows and {grid['cols']} columns"
            raise WorldError(f"grid: {name!r} holds {entry}, outside {size}, which count from 0; {_GRID_FORM}")
        yield entry, numbers


def corner_planes(worlds: Worlds) -> np.ndarray:
    """Convert worlds to the planes of the tensor format, bool [..., 16, H, W]; `karel-for-synthesis` takes the first 15.

    Planes: robot facing north, east, south, west; inner wall; border; 1 to 10 markers. Row 0 is the bottom row, and each
    world must fill its array.

    Raises:
        WorldError: a cell has more than 10 markers, or a world is smaller than its array.
    """
    _check_markers(worlds)
    height, width = worlds.cells.shape[-2:]
    if (worlds.size != (height, width)).any():
        raise WorldError(f"planes: a world is smaller than its array of {height}x{width}; convert it separately")
    cells = worlds.cells[..., ::-1, :]
    planes = np.zeros((*worlds.shape, PLANES, height, width), bool)
    planes[..., _MARKER_PLANE, :, :] = True
    planes[..., _MARKER_PLANE, 1:-1, 1:-1] = False
    planes[..., _WALL_PLANE, 1:-1, 1:-1] = cells[..., 1:-1, 1:-1] == WALL
    for count in range(1, MAX_PRINTED_MARKERS + 1):
        planes[..., _MARKER_PLANE + count, :, :] = cells == count
    flat = planes.reshape(-1, *planes.shape[-3:])
    row, column, heading = worlds.robot.reshape(-1, 3).astype(np.int64).T
    flat[np.arange(len(flat)), heading, height - 1 - row, column] = True
    return planes


def sparse_grid(world: Worlds) -> str:
    """Convert a world to `inpgrid_tensor`: entries `index:1.0` for the ones.

    Raises:
        WorldError: the world is larger than 18x18, or a cell has more than 10 markers.
    """
    height, width = (int(n) for n in world.size)
    if max(height, width) > _SPARSE_SIDE:
        raise WorldError(
            f"sparse grid: a world of {height}x{width}; the format supports at most {_SPARSE_SIDE}x{_SPARSE_SIDE}"
        )
    planes = np.zeros((PLANES, _SPARSE_SIDE, _SPARSE_SIDE), bool)
    planes[:, :height, :width] = corner_planes(Worlds(world.cells[:height, :width], world.robot, world.size))
    return " ".join(f"{index}:1.0" for index in np.flatnonzero(planes).tolist())


def from_sparse_grid(text: str) -> Worlds:
    """Convert `inpgrid_tensor` or `outgrid_tensor` to a world.

    Raises:
        WorldError: the text is not a list of `index:1.0`, or does not describe one world.
    """
    if not isinstance(text, str):
        raise WorldError(f"sparse grid: {brief(text)} is no text; expected entries such as 7:1.0")
    ones = np.zeros(PLANES * _SPARSE_SIDE**2, bool)
    for entry in text.split():
        match = _ONE.fullmatch(entry)
        if not match or int(match[1]) >= len(ones):
            raise WorldError(f"sparse grid: {brief(entry)}; expected entries such as 7:1.0, below {len(ones)}")
        if ones[int(match[1])]:
            raise WorldError(f"sparse grid: {entry} twice; expected distinct entries")
        ones[int(match[1])] = True
    planes = ones.reshape(PLANES, _SPARSE_SIDE, _SPARSE_SIDE)
    # In this format the plane of 0 markers is the border instead, which determines the world's size.
    height, width = int(planes[_MARKER_PLANE, :, 0].sum()), int(planes[_MARKER_PLANE, 0].sum())
    robots = np.argwhere(planes[:_WALL_PLANE])
    if len(robots) != 1 or min(height, width) < 3:
        raise WorldError(
            f"sparse grid: {len(robots)} robots in a world of {height}x{width}; expected one, in 3x3 or more"
        )
    inner = planes[:, 1 : height - 1, 1 : width - 1]
    cells = np.full((height, width), WALL, np.int16)
    counts = np.where(inner[_MARKER_PLANE + 1 :].any(0), inner[_MARKER_PLANE + 1 :].argmax(0) + 1, 0)
    cells[1:-1, 1:-1] = np.where(inner[_WALL_PLANE], WALL, counts)
    heading, row, column = robots[0].tolist()
    if row >= height or column >= width:
        raise WorldError(f"sparse grid: a robot outside a world of {height}x{width}; expected it within the border")
    world = Worlds.of(cells[::-1], np.array([height - 1 - row, column, heading]))
    round_trip = np.zeros_like(ones)
    round_trip[[int(entry.split(":")[0]) for entry in sparse_grid(world).split()]] = True
    if wrong := np.flatnonzero(round_trip != ones).tolist():
        raise WorldError(
            f"sparse grid: entry {wrong[0]} contradicts the others; expected a border, free cells and walls within it, "
            "and at most one plane of markers for each free cell"
        )
    return world


def _check_markers(worlds: Worlds) -> None:
    if (most := int(worlds.cells.max(initial=0))) > MAX_PRINTED_MARKERS:
        raise WorldError(f"a cell holds {most} markers; the public formats support at most {MAX_PRINTED_MARKERS}")
