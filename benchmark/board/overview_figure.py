"""The figure of all rows of a suite: what they represent, and what they use.

Left, the figure of *Represents* that separates a state from counts of words; right, the share of strict pairs in which
an edit of the state writes the right word, beside its controls. Each row is one model; no meaning is in colour only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.board.ranking import LeaderboardRow
from benchmark.causal.verdict import LOOK_UP, UseScore
from benchmark.probing.figures import BLUE, GREY, ORANGE, titled_figure
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.measurement_record import RepresentsRecord, UsesRecord, read_measurement
from benchmark.statistics import Estimate

RANDOM_VECTOR, UNTRAINED = "random vector", "untrained"
ALTERNATIVE_PREFIX = "alternative "
CONTROL_STYLES: dict[str, dict[str, Any]] = {
    "look-up from turn and words": {"marker": "^", "mfc": "white", "mec": ORANGE},
    "largest false semantics": {"marker": "s", "mfc": "white", "mec": GREY},
    "random vector": {"marker": "x", "mec": GREY},
    "untrained copy": {"marker": "D", "mfc": "white", "mec": GREY},
}


@dataclass(frozen=True)
class OverviewRow:
    """One model.

    Attributes:
        name: name of the row.
        represents: record of *Represents*; None if it was not measured.
        uses: record of *Uses* with a score; None if it was not measured or is not applicable.
    """

    name: str
    represents: RepresentsRecord | None
    uses: UsesRecord | None

    @property
    def score(self) -> UseScore | None:
        """Scores on strict pairs."""
        return None if self.uses is None else self.uses.use.strict


def read_overview(rows: Sequence[LeaderboardRow], submissions: Path, suite: str) -> list[OverviewRow]:
    """The measured rows of a suite, by the share of pairs that an edit steers, the largest first."""
    read = [
        OverviewRow(
            row.name,
            read_measurement(RepresentsRecord, submissions / row.folder)
            if row.measurements.comparable.represents
            else None,
            read_measurement(UsesRecord, submissions / row.folder) if row.measurements.uses else None,
        )
        for row in rows
        if row.record.suite.name == suite
    ]
    measured = [row for row in read if row.represents is not None or row.score is not None]
    return sorted(measured, key=lambda row: -(row.score.steered.value if row.score else -1.0))


def control_values(score: UseScore) -> dict[str, float]:
    """Values of the controls that are drawn, by the names of `CONTROL_STYLES`."""
    controls = {name: estimate.value for name, estimate in score.controls.items()}
    alternatives = [value for name, value in controls.items() if name.startswith(ALTERNATIVE_PREFIX)]
    named = {
        "look-up from turn and words": controls.get(LOOK_UP),
        "largest false semantics": max(alternatives, default=None),
        "random vector": controls.get(RANDOM_VECTOR),
        "untrained copy": controls.get(UNTRAINED),
    }
    return {name: value for name, value in named.items() if value is not None}


def plot_overview(rows: Sequence[OverviewRow], suite: str) -> Figure:
    """The figure of at least one row."""
    figure = titled_figure(
        1.5 + 0.28 * len(rows),
        f"{suite}: what models represent, and what they use",
        "Left: skill of a probe of the robot's net rotation minus its skill on other sums of the same two words, on unseen "
        f"prefixes; REPRESENTS needs a lower end above {ROTATION_STANDARD.arithmetic_margin:g}, among others. Right: the state is "
        "turned in the middle of a program; share of pairs in which the model writes the word that is right for the turned "
        "robot, and the same for controls. Bars are 95% intervals.",
    )
    left, right = figure.subplots(1, 2, sharey=True)
    for position, row in enumerate(rows):
        if row.represents is not None:
            _plot_estimate(
                left, position, row.represents.rotation.arithmetic, row.represents.rotation.verdict == "REPRESENTS"
            )
        if row.score is not None and row.uses is not None:
            _plot_estimate(right, position, row.score.steered, row.uses.use.verdict == "USES")
            for name, value in control_values(row.score).items():
                right.plot(value, position, ls="", ms=4, mew=1.1, **CONTROL_STYLES[name])
    left.axvline(ROTATION_STANDARD.arithmetic_margin, color=GREY, lw=0.8, ls="--")
    left.set_xlabel("rotation minus other sums, skill")
    right.set_xlabel("target written, share of strict pairs")
    right.set_xlim(-0.02, 1.02)
    left.set_yticks(range(len(rows)), [row.name for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    _add_legend(figure, right)
    return figure


def _plot_estimate(axes: Axes, position: int, estimate: Estimate, is_positive: bool) -> None:
    """A mark with its interval: filled for a positive verdict, open for another."""
    axes.plot([estimate.low, estimate.high], [position, position], color=BLUE, lw=1.3)
    axes.plot(estimate.value, position, "o", ms=5, mfc=BLUE if is_positive else "white", mec=BLUE, mew=1.3)


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles = [
        *axes.plot([], [], "o", ms=5, mfc=BLUE, mec=BLUE, label="model, verdict REPRESENTS or USES"),
        *axes.plot([], [], "o", ms=5, mfc="white", mec=BLUE, mew=1.3, label="model, another verdict"),
        *(axes.plot([], [], ls="", ms=4, mew=1.1, label=name, **style)[0] for name, style in CONTROL_STYLES.items()),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
