"""Place the labels of a chart next to their marks, apart from each other and from all marks. Pixels throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LABEL_HEIGHT, CHARACTER_WIDTH = 14.0, 7.0
"""Line height of a label, and the width of a character in its font, on the safe side."""
MARK_RADIUS = 7.0
DISTANCES = (10, 16, 24, 34, 46, 60, 78, 100)
DIRECTIONS = ((1.0, 0.0), (-1.0, 0.0), (0.7, -0.7), (-0.7, -0.7), (0.7, 0.7), (-0.7, 0.7), (0.2, -1.0), (-0.2, 1.0))
"""Where a label is tried, nearest first: beside the mark, then obliquely, then above and below it."""
NEAR_RADIUS = 20.0
"""A label within so many pixels of another mark could be taken for its label."""
BAR_COST, NEAR_COST = 0.4, 0.1
"""Cost, in pixels of distance, of each square pixel on an error bar, and near another mark."""


@dataclass(frozen=True)
class Box:
    """A rectangle with horizontal and vertical sides."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def contains(self, other: Box) -> bool:
        """Whether another box is inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True)
class Label:
    """A placed label: its position, where the text starts, or ends if `is_left`; `y` is the middle of the line."""

    x: float
    y: float
    is_left: bool

    def box(self, text: str) -> Box:
        """The rectangle of the text."""
        width = CHARACTER_WIDTH * len(text)
        left = self.x - width if self.is_left else self.x
        return Box(left, self.y - LABEL_HEIGHT / 2, left + width, self.y + LABEL_HEIGHT / 2)


def place_labels(
    marks: Sequence[tuple[float, float]], texts: Sequence[str], bars: Sequence[Box], area: Box
) -> list[Label | None]:
    """Place the labels one after another, those with the least room first, each at its cheapest position.

    Args:
        marks: positions of all marks.
        texts: label of each mark; empty for none.
        bars: rectangles of error bars, which a label avoids if it can.
        area: where labels may be; one that fits nowhere may leave it.

    Returns:
        a label per mark; None without a text.
    """
    obstacles, nearby = ([_around(mark, radius) for mark in marks] for radius in (MARK_RADIUS, NEAR_RADIUS))
    placed: list[Label | None] = [None] * len(marks)
    boxes: list[Box] = []

    def crowding(index: int) -> float:
        x, y = marks[index]
        return -sum(1 / (1 + abs(x - other_x) + abs(y - other_y)) for other_x, other_y in marks)

    for index in sorted((i for i, text in enumerate(texts) if text), key=lambda i: (crowding(i), i)):
        candidates = _candidates(*marks[index])
        costs = []
        for distance, label in candidates:
            box = label.box(texts[index])
            covered = sum(box.overlap(other) for other in (*obstacles, *boxes))
            near = sum(box.overlap(other) for i, other in enumerate(nearby) if i != index)
            on_bars = sum(box.overlap(bar) for bar in bars)
            costs.append((not area.contains(box), covered, distance + BAR_COST * on_bars + NEAR_COST * near))
        _, label = candidates[costs.index(min(costs))]
        placed[index] = label
        boxes.append(label.box(texts[index]))
    return placed


def _around(position: tuple[float, float], radius: float) -> Box:
    """The square around a position."""
    x, y = position
    return Box(x - radius, y - radius, x + radius, y + radius)


def _candidates(x: float, y: float) -> list[tuple[float, Label]]:
    """Positions around a mark with their distances, nearest first."""
    return [
        (distance, Label(round(x + distance * right, 1), round(y + distance * down, 1), right < 0))
        for distance in DISTANCES
        for right, down in DIRECTIONS
    ]
