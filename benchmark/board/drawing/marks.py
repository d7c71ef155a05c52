"""Marks of a chart: a shape of its own for each of any number of series, as SVG paths and as polygons.

Shape and colour both tell a series. There are as many shapes as series, so that a series is told without its colour too;
colours repeat after `NUM_COLOURS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NUM_COLOURS = 6
"""Colours of a series in the style sheet, `--k0` to `--k5`."""
CIRCLE = 0
CIRCLE_SIDES = 32
MAX_RADIUS, MIN_RADIUS = 8.0, 2.5
"""Radius in pixels of the mark of a model that solves all tasks, and least radius."""
Point = tuple[float, float]


@dataclass(frozen=True)
class MarkStyle:
    """How the marks of a series look: number of its shape, and number of its colour."""

    shape: int
    colour: int


def mark_style(kind: int) -> MarkStyle:
    """The style of the series with a number of at least 0; no two numbers have the same shape."""
    return MarkStyle(kind, kind % NUM_COLOURS)


def share_radius(share: float) -> float:
    """Radius of a mark whose area is in proportion to a share, from 0 to 1."""
    return round(max(MIN_RADIUS, MAX_RADIUS * math.sqrt(min(max(share, 0.0), 1.0))), 1)


def _polygon(sides: int, start: float, radius: float = 1.0) -> list[Point]:
    """A regular polygon; `start` is the angle of its first corner in turns, from the right towards the bottom."""
    angles = [2 * math.pi * (start + side / sides) for side in range(sides)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _star(points: int, inner: float = 0.5) -> list[Point]:
    """A star with its first point at the top."""
    outer_corners = _polygon(points, -0.25)
    inner_corners = _polygon(points, -0.25 + 0.5 / points, inner)
    return [corner for pair in zip(outer_corners, inner_corners, strict=True) for corner in pair]


def _turned(corners: list[Point], turns: float) -> list[Point]:
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    return [(cosine * x - sine * y, sine * x + cosine * y) for x, y in corners]


_PLUS = [
    (-0.35, -1.0), (0.35, -1.0), (0.35, -0.35), (1.0, -0.35), (1.0, 0.35), (0.35, 0.35),
    (0.35, 1.0), (-0.35, 1.0), (-0.35, 0.35), (-1.0, 0.35), (-1.0, -0.35), (-0.35, -0.35),
]  # fmt: skip
_FIRST_SHAPES = (
    _polygon(CIRCLE_SIDES, 0.0),
    _polygon(4, 0.0),
    _polygon(4, 0.125),
    _polygon(3, -0.25),
    _polygon(3, 0.25),
    _PLUS,
    _star(5),
    _turned(_PLUS, 0.125),
    _polygon(3, 0.0),
    _polygon(3, 0.5),
    [(-0.9, -1.0), (0.9, -1.0), (-0.9, 1.0), (0.9, 1.0)],
)
"""Circle, diamond, square, triangles up and down, plus, star, cross, triangles to the right and to the left, hourglass."""
FIRST_STAR = 6
"""Points of the first star after these; each later shape has one point more."""


def shape_outline(shape: int) -> list[Point]:
    """Corners of a shape around the origin, `y` downwards, with about the area of a circle of radius 1."""
    corners = _FIRST_SHAPES[shape] if shape < len(_FIRST_SHAPES) else _star(FIRST_STAR + shape - len(_FIRST_SHAPES))
    area = abs(sum(x * v - u * y for (x, y), (u, v) in zip(corners, [*corners[1:], corners[0]], strict=True))) / 2
    # The lobes of the hourglass have areas of opposite sign.
    scale = math.sqrt(math.pi / area) if area > 0.5 else 1.3
    return [(scale * x, scale * y) for x, y in corners]


def mark_path(shape: int, x: float, y: float, radius: float) -> str:
    """SVG path of a mark at a position, with the area of a circle of that radius."""
    if shape == CIRCLE:
        r = f"{radius:g}"
        return f"M{x - radius:g} {y:g}a{r} {r} 0 1 0 {2 * radius:g} 0a{r} {r} 0 1 0 {-2 * radius:g} 0z"
    corners = [(round(x + radius * u, 1), round(y + radius * v, 1)) for u, v in shape_outline(shape)]
    return "M" + "L".join(f"{u:g} {v:g}" for u, v in corners) + "z"
