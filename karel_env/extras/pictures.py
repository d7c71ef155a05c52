"""Render worlds and traces: coloured text for the terminal, PNG, animated GIF.

PNG and GIF need Pillow, which matplotlib installs; the rest of this package does not.
Letters: `H W` grid, `M` executed actions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from karel_env.execution.stepping import snapshots
from karel_env.semantics import ORIGINAL, Semantics
from karel_env.world import ROBOT_GLYPHS, WALL, Worlds

FLOOR, GRID, STONE, ROBOT, MARKER, INK = "#ffffff", "#d5d5d5", "#4a4a4a", "#2166ac", "#f4a62a", "#202020"
CELL = 32
"""Default side of a cell in pixels."""
SMALLEST_CELL = 8
FRAME_MILLISECONDS = 250
_RESET = "\x1b[0m"
_ANSI = {"wall": "\x1b[48;5;240m", "robot": "\x1b[1;34m", "marker": "\x1b[33m", "floor": "\x1b[90m"}
_ARROWS = ("▲", "▶", "▼", "◀")


def ansi(world: Worlds, colour: bool = True) -> str:
    """Render a world as text with its border, two columns per cell.

    The robot is an arrow (without colours `^ > v <`) with the number of markers under it, `+` for ten or more; a
    cell of 100 or more shows `++`.

    Args:
        world: one world (empty leading shape).
        colour: use ANSI escape codes; without them the text is plain ASCII.
    """
    row, column, heading = (int(n) for n in world.robot)
    height, width = (int(n) for n in world.size)
    lines = []
    for r, cells in enumerate(world.cells[:height, :width].tolist()):
        line = []
        for c, content in enumerate(cells):
            count = "" if content <= 0 else str(content)
            if (r, c) == (row, column):
                arrow = _ARROWS[heading] if colour else ROBOT_GLYPHS[heading]
                kind, text = "robot", arrow + (count if len(count) < 2 else "+")
            elif content == WALL:
                kind, text = "wall", "  " if colour else "##"
            elif content:
                kind, text = "marker", count if len(count) < 3 else "++"
            else:
                kind, text = "floor", "·" if colour else "."
            line.append(f"{_ANSI[kind]}{text:<2}{_RESET}" if colour else f"{text:<2}")
        lines.append("".join(line))
    return "\n".join(lines)


def picture(world: Worlds, cell: int = CELL) -> Image.Image:
    """Render a world as an RGB image of H x `cell` by W x `cell` pixels.

    Args:
        world: one world (empty leading shape).
        cell: side of a cell in pixels, at least 8.

    Raises:
        ValueError: `cell` is below 8.
    """
    if cell < SMALLEST_CELL:
        raise ValueError(f"picture: cells of {cell} pixels; expected at least {SMALLEST_CELL}")
    height, width = (int(n) for n in world.size)
    image = Image.new("RGB", (width * cell, height * cell), FLOOR)
    pen = ImageDraw.Draw(image)
    row, column, heading = (int(n) for n in world.robot)
    for r, cells in enumerate(world.cells[:height, :width].tolist()):
        for c, content in enumerate(cells):
            x, y = c * cell, r * cell
            pen.rectangle((x, y, x + cell - 1, y + cell - 1), STONE if content == WALL else FLOOR, GRID)
            if content > 0:
                _draw_markers(pen, x, y, cell, content, under_robot=(r, c) == (row, column))
    _draw_robot(pen, column * cell, row * cell, cell, heading, standing_on=int(world.cells[row, column]))
    return image


def _draw_markers(pen: ImageDraw.ImageDraw, x: int, y: int, cell: int, count: int, under_robot: bool) -> None:
    """Draw a disc, with the count unless it is 1; in the cell's lower right corner if the robot is in the cell."""
    radius = cell * (0.24 if under_robot else 0.32)
    middle = cell * (0.74 if under_robot else 0.5)
    cx, cy = x + middle, y + middle
    pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), MARKER)
    if count > 1:
        text = str(count) if count < 100 else "++"
        font = ImageFont.load_default(max(6.0, radius * (1.5 if len(text) == 1 else 1.2)))
        pen.text((cx, cy), text, INK, font, anchor="mm")


def _draw_robot(pen: ImageDraw.ImageDraw, x: int, y: int, cell: int, heading: int, standing_on: int) -> None:
    """Draw an arrowhead; smaller and at the upper left if the cell has markers."""
    size, middle = (0.28, 0.36) if standing_on > 0 else (0.38, 0.5)
    shape = np.array([(0.0, -1.0), (0.8, 0.9), (0.0, 0.5), (-0.8, 0.9)])
    angle = heading * np.pi / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = (shape @ turn * size + middle) * cell + (x, y)
    pen.polygon([(float(px), float(py)) for px, py in points], ROBOT)


def save_png(world: Worlds, path: Path, cell: int = CELL) -> None:
    """Write a PNG of one world."""
    picture(world, cell).save(path, "PNG")


def save_gif(worlds: Worlds, path: Path, cell: int = CELL, milliseconds: int = FRAME_MILLISECONDS) -> None:
    """Write worlds [M + 1] as an endless animation; the last world is shown four times as long.

    Consecutive equal worlds become one frame with the sum of their durations.

    Raises:
        ValueError: no worlds, or not one axis of them.
    """
    if len(worlds.shape) != 1 or not len(worlds):
        raise ValueError(f"animation: worlds of leading shape {worlds.shape}; expected [M], at least one")
    # One palette for all frames; otherwise the same colour would differ slightly between frames.
    palette = Image.new("P", (1, 1))
    colours = [FLOOR, GRID, STONE, ROBOT, MARKER, INK, "#ffffff", "#f9d294", "#8a6a3c", "#90b2d5"]
    palette.putpalette([int(colour[i : i + 2], 16) for colour in colours for i in (1, 3, 5)])
    frames = [picture(worlds[i], cell).quantize(palette=palette, dither=Image.Dither.NONE) for i in range(len(worlds))]
    durations = [milliseconds] * (len(frames) - 1) + [4 * milliseconds]
    frames[0].save(
        path, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False, disposal=1
    )


def animate(
    words: np.ndarray,
    world: Worlds,
    path: Path,
    semantics: Semantics = ORIGINAL,
    *,
    mode: str = "noop",
    cell: int = CELL,
    milliseconds: int = FRAME_MILLISECONDS,
) -> int:
    """Execute a program on one world and write its trace as an animation; returns M."""
    states = snapshots(words, world, semantics, mode=mode)
    save_gif(states, path, cell, milliseconds)
    return len(states) - 1
