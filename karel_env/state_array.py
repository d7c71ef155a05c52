"""Worlds in the forms of the public data sets, both ways.

- The *state array* (carpedm20/karel, Jin & Rinard's release): 16 planes, robot facing north, south, west, east; wall;
  0 to 10 markers. Row 0 is on top. Walls carry the plane of 0 markers too.
- The *grid* of Bunel et al. 2018 (msr-redmond.github.io/karel-dataset): a JSON object, `inpgrid_json`, and the same as
  a sparse tensor, `inpgrid_tensor`. Rows count from the bottom and leave the border out.

Letters: `...` any leading shape, `H W` grid with border.
Sources: shared/KAREL.md, The state array; github.com/carpedm20/karel; github.com/bunelr/GandRL_for_NPS, karel/world.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from karel_env.world import HEADINGS, MAX_PRINTED_MARKERS, WALL, WorldError, Worlds

PLANES = 5 + MAX_PRINTED_MARKERS + 1
_WALL_PLANE, _MARKER_PLANE = 4, 5
_PLANE_HEADINGS = (0, 2, 3, 1)
"""Heading of each of the first four planes: north, south, west, east."""
_SPARSE_SIDE = 18
"""The sparse tensor is [16, 18, 18], the world in its corner; its headings are north, east, south, west."""


def state_array(worlds: Worlds) -> np.ndarray:
    """bool [..., H, W, 16]; a world smaller than the array is followed by wall.

    Raises:
        WorldError: a cell holds more than 10 markers, for which there is no plane.
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
    """Worlds from `[..., H, W, 16]` of 0 and 1, of any type; all fill the array.

    Raises:
        WorldError: another shape, not exactly one robot, a free cell without exactly one marker plane, or no border.
    """
    planes = np.asarray(array).astype(bool)
    if planes.ndim < 3 or planes.shape[-1] != PLANES:
        raise WorldError(f"state array: shape {planes.shape}; expected [..., H, W, {PLANES}]")
    wall, markers = planes[..., _WALL_PLANE], planes[..., _MARKER_PLANE:]
    if ((markers.sum(-1) != 1) & ~wall).any():
        raise WorldError("state array: a free cell does not have exactly one of the planes for 0 to 10 markers")
    robots = planes[..., :_WALL_PLANE].reshape(*planes.shape[:-3], -1)
    if (robots.sum(-1) != 1).any():
        raise WorldError("state array: a world does not have exactly one robot")
    place, plane = np.divmod(robots.argmax(-1), _WALL_PLANE)
    row, column = np.divmod(place, planes.shape[-2])
    robot = np.stack([row, column, np.array(_PLANE_HEADINGS)[plane]], -1)
    return Worlds.of(np.where(wall, WALL, markers.argmax(-1)), robot)


def grid_json(world: Worlds) -> dict[str, Any]:
    """One world as `inpgrid_json`; `crashed` is False."""
    high, wide = (int(n) - 2 for n in world.size)
    cells = world.cells[1 : high + 1, 1 : wide + 1][::-1]
    row, column, heading = (int(n) for n in world.robot)
    return {
        "rows": high,
        "cols": wide,
        "hero": f"{high - row}:{column - 1}:{HEADINGS[heading]}",
        "blocked": " ".join(f"{r}:{c}" for r, c in np.argwhere(cells == WALL).tolist()),
        "markers": " ".join(f"{r}:{c}:{cells[r, c]}" for r, c in np.argwhere(cells > 0).tolist()),
        "crashed": False,
    }


def from_grid_json(grid: dict[str, Any]) -> Worlds:
    """One world from `inpgrid_json` or `outgrid_json`.

    Raises:
        WorldError: an entry is missing or is not of the form.
    """
    try:
        high, wide = int(grid["rows"]), int(grid["cols"])
        row, column, heading = str(grid["hero"]).split(":")
        cells = np.full((high + 2, wide + 2), WALL, np.int16)
        cells[1:-1, 1:-1] = 0
        for place in str(grid["markers"]).split():
            r, c, count = (int(n) for n in place.split(":"))
            cells[high - r, c + 1] = count
        for place in str(grid["blocked"]).split():
            r, c = (int(n) for n in place.split(":"))
            cells[high - r, c + 1] = WALL
        robot = np.array([high - int(row), int(column) + 1, HEADINGS.index(heading)], np.int16)
    except (KeyError, ValueError, IndexError) as problem:
        raise WorldError(
            f"grid: {type(problem).__name__} {problem}; expected rows, cols, hero, blocked, markers"
        ) from None
    return Worlds.of(cells, robot)


def corner_planes(worlds: Worlds) -> np.ndarray:
    """bool [..., 16, H, W], the planes of the tensor form, which `karel-for-synthesis` takes too (the first 15).

    Robot facing north, east, south, west; inner wall; border; 1 to 10 markers. Row 0 is at the bottom, and the worlds
    must fill their arrays.

    Raises:
        WorldError: a cell holds more than 10 markers, or a world is smaller than its array.
    """
    _check_markers(worlds)
    high, wide = worlds.cells.shape[-2:]
    if (worlds.size != (high, wide)).any():
        raise WorldError(f"planes: a world is smaller than its array of {high}x{wide}; convert it by itself")
    cells = worlds.cells[..., ::-1, :]
    planes = np.zeros((*worlds.shape, PLANES, high, wide), bool)
    planes[..., _MARKER_PLANE, :, :] = True
    planes[..., _MARKER_PLANE, 1:-1, 1:-1] = False
    planes[..., _WALL_PLANE, 1:-1, 1:-1] = cells[..., 1:-1, 1:-1] == WALL
    for count in range(1, MAX_PRINTED_MARKERS + 1):
        planes[..., _MARKER_PLANE + count, :, :] = cells == count
    flat = planes.reshape(-1, *planes.shape[-3:])
    row, column, heading = worlds.robot.reshape(-1, 3).astype(np.int64).T
    flat[np.arange(len(flat)), heading, high - 1 - row, column] = True
    return planes


def sparse_grid(world: Worlds) -> str:
    """One world as `inpgrid_tensor`: the places of the ones, `index:1.0` each.

    Raises:
        WorldError: it is larger than 18x18, or a cell holds more than 10 markers.
    """
    high, wide = (int(n) for n in world.size)
    if max(high, wide) > _SPARSE_SIDE:
        raise WorldError(f"sparse grid: a world of {high}x{wide}; the form holds at most {_SPARSE_SIDE}x{_SPARSE_SIDE}")
    planes = np.zeros((PLANES, _SPARSE_SIDE, _SPARSE_SIDE), bool)
    planes[:, :high, :wide] = corner_planes(Worlds(world.cells[:high, :wide], world.robot, world.size))
    return " ".join(f"{index}:1.0" for index in np.flatnonzero(planes).tolist())


def from_sparse_grid(text: str) -> Worlds:
    """One world from `inpgrid_tensor` or `outgrid_tensor`.

    Raises:
        WorldError: it is not a list of `index:1.0`, or not that of one world.
    """
    ones = np.zeros(PLANES * _SPARSE_SIDE**2, bool)
    try:
        ones[[int(entry.split(":")[0]) for entry in text.split()]] = True
    except (ValueError, IndexError) as problem:
        raise WorldError(f"sparse grid: {problem}; expected entries such as 7:1.0, below {len(ones)}") from None
    planes = ones.reshape(PLANES, _SPARSE_SIDE, _SPARSE_SIDE)
    # In this form the plane of 0 markers holds the border instead, which tells the world's size.
    high, wide = int(planes[_MARKER_PLANE, :, 0].sum()), int(planes[_MARKER_PLANE, 0].sum())
    robots = np.argwhere(planes[:_WALL_PLANE])
    if len(robots) != 1 or min(high, wide) < 3:
        raise WorldError(f"sparse grid: {len(robots)} robots in a world of {high}x{wide}; expected one, in 3x3 or more")
    inner = planes[:, 1 : high - 1, 1 : wide - 1]
    cells = np.full((high, wide), WALL, np.int16)
    cells[1:-1, 1:-1] = np.where(inner[_WALL_PLANE], WALL, inner[_MARKER_PLANE:].argmax(0))
    heading, row, column = robots[0].tolist()
    return Worlds.of(cells[::-1], np.array([high - 1 - row, column, heading], np.int16))


def _check_markers(worlds: Worlds) -> None:
    if (most := int(worlds.cells.max(initial=0))) > MAX_PRINTED_MARKERS:
        raise WorldError(f"a cell holds {most} markers; the public forms hold at most {MAX_PRINTED_MARKERS}")
