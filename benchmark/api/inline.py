"""What a notebook shows of results: tables, figures, and programs step by step. Nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.statistics import Estimate
from benchmark.tasks.scoring import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY_NAMES = {
    "shown": "solved, shown examples", "held_out": "solved, held-out examples", "both": "solved, all examples",
    "exact": "exact match", "valid": "parse rate",
}  # fmt: skip
"""The shares of a summary, and what they are called."""
PLAYER_HEIGHT = 420
"""Height of the player in pixels."""


@dataclass(frozen=True)
class Picture:
    """A figure; a notebook draws it.

    Attributes:
        png: the file's bytes.
        description: what it shows, for readers that cannot see it.
    """

    png: bytes
    description: str

    def _repr_png_(self) -> bytes:
        return self.png

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(self.description)}" style="max-width:100%">'

    def save(self, path: str | Path) -> None:
        """Write the PNG file."""
        Path(path).write_bytes(self.png)

    def __repr__(self) -> str:
        return f"Picture({self.description!r}, {len(self.png):,} bytes)"


@dataclass(frozen=True)
class Player:
    """Programs that a model wrote, step by step in the worlds of their tasks; a notebook plays them.

    Attributes:
        tasks: entries of `board.player.build_player_tasks`.
    """

    tasks: list[dict[str, Any]]

    def _repr_html_(self) -> str:
        from benchmark.api.player_page import PLAYER_PAGE

        data = json.dumps(self.tasks, separators=(",", ":")).replace("<", "\\u003c")
        page = escape(PLAYER_PAGE.replace("TASKS_JSON", data))
        return (
            f'<iframe title="programs step by step" sandbox="allow-scripts" width="100%" height="{PLAYER_HEIGHT}" '
            f'style="border:0" srcdoc="{page}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Player({len(self.tasks)} tasks: {', '.join(str(entry['task']) for entry in self.tasks)})"


def draw(plot: Callable[[], Figure], description: str) -> Picture:
    """Draw a figure in the common style."""
    from benchmark.probing.figures import draw_png

    return Picture(draw_png(plot), description)


def plot_accuracy(name: str, summary: Summary) -> Figure:
    """Shares of tasks with their 95% intervals."""
    from benchmark.probing.figures import plot_estimates

    shares = {label: getattr(summary, field) for field, label in ACCURACY_NAMES.items()}
    return plot_estimates(f"{name}: {summary.shown.n:,} tasks, with 95% intervals", shares, "share of tasks", (0, 1))


def estimate_row(name: str, estimate: Estimate) -> dict[str, Any]:
    """One row of a table of figures."""
    return {"figure": name, "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def html_table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """A table of rows with equal columns; numbers have three decimal digits, or none if they are whole."""
    if not rows:
        return f"<p>{escape(caption)}</p>"
    heads = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in rows[0])
    lines = "".join(f"<tr>{''.join(_cell(value) for value in row.values())}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(value: Any) -> str:
    is_number = isinstance(value, float)
    text = f"{value:.3f}" if is_number else "" if value is None else str(value)
    return f'<td style="text-align:right">{text}</td>' if is_number else f"<td>{escape(text)}</td>"
