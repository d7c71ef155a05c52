"""The spread between seeds: rows that one recipe trained with other seeds, beside the interval of each row.

A row's interval is that of one network: tasks, programs, probe seeds. Training the recipe once more gives another network,
which differs by more. What is said of a recipe or a family therefore needs several seeds, whose number is the n. Recipes are
read from `training.json`, which is the authors' statement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.board.markup import escape_markdown
from benchmark.board.ranking import LeaderboardRow, RankingGroup
from benchmark.errors import BenchmarkError
from benchmark.files import read_json
from benchmark.models.json_files import TRAINING_FILE
from benchmark.statistics import Estimate, t_quantile

MAX_BYTES = 1_000_000
SAME_NETWORK = ("seed", "checkpoints", "spacing")
"""Entries of a recipe that two trainings of the same kind of network may differ in."""
FULL_PRECISION = "no"
PRECISION_WORDS = {FULL_PRECISION: "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}
"""Precisions of a training by what accelerate calls them."""
MIN_SEEDS, LEVEL = 2, 0.95
FIGURES: Mapping[str, Callable[[LeaderboardRow], Estimate | None]] = {
    "shown": lambda row: row.record.accuracy.shown,
    "represents: delta": lambda row: row.measurements.comparable.estimates["represents_delta"],
    "uses: use": lambda row: row.measurements.estimates["use"],
    "merges": lambda row: row.measurements.estimates["merges"],
}
"""Figures of a row whose spread is shown; a delta that is read from few programs is another figure."""
Table = list[dict[str, str]]
NO_RECIPES: Mapping[str, str] = {}


@dataclass(frozen=True)
class SeedSpread:
    """One figure of one recipe over seeds.

    Attributes:
        recipe: name of its rows without a seed, and the precision of the training.
        figure: name in `FIGURES`.
        values: the figure of each row.
        mean: mean over seeds with its t interval.
        deviation: standard deviation between seeds.
        row_half_width: mean half-width of the rows' own intervals.
    """

    recipe: str
    figure: str
    values: tuple[float, ...]
    mean: Estimate
    deviation: float
    row_half_width: float


def read_recipes(submissions: Path, rows: Sequence[LeaderboardRow]) -> dict[str, str]:
    """Recipe and precision of each row's training, as text without the seed, by folder; rows without a readable one are left out."""
    recipes = {}
    for row in rows:
        path = submissions / row.folder / TRAINING_FILE
        try:
            training: dict[str, Any] = read_json(path, MAX_BYTES) if path.is_file() else {}
        except BenchmarkError:
            continue
        recipe, precision = training.get("recipe"), training.get("precision", FULL_PRECISION)
        if (
            isinstance(recipe, dict)
            and "seed" in recipe
            and isinstance(precision, str)
            and precision in PRECISION_WORDS
        ):
            # Entries that later versions added stand at a default that is false in older recipes' place.
            shared = {name: value for name, value in recipe.items() if value and name not in SAME_NETWORK}
            # The same recipe and seed gave another accuracy in bfloat16 than in float32.
            recipes[row.folder] = json.dumps([precision, shared], sort_keys=True)
    return recipes


def rows_by_recipe(group: RankingGroup, recipes: Mapping[str, str]) -> dict[str, list[LeaderboardRow]]:
    """The ranked rows of a group that share a recipe, by its name, for each recipe of at least two."""
    by_recipe: dict[str, list[LeaderboardRow]] = {}
    for ranked_row in group.rows:
        if ranked_row.rank is not None and ranked_row.row.folder in recipes:
            by_recipe.setdefault(recipes[ranked_row.row.folder], []).append(ranked_row.row)
    named: dict[str, list[LeaderboardRow]] = {}
    for recipe, rows in by_recipe.items():
        if len(rows) >= MIN_SEEDS:
            precision = PRECISION_WORDS[json.loads(recipe)[0]]
            first = min(rows, key=lambda row: (len(row.name), row.name, row.folder))
            # Rows of another recipe may have the same name but for the number of the seed.
            name = f"{re.sub(r'-[0-9]+$', '', first.name)}, {precision}"
            named[f"{first.folder}, {precision}" if name in named else name] = rows
    return named


def spreads_of_recipe(name: str, rows: Sequence[LeaderboardRow]) -> list[SeedSpread]:
    """The spread of every figure that at least two rows of a recipe have."""
    figures = {
        figure: [estimate for row in rows if (estimate := read(row)) is not None] for figure, read in FIGURES.items()
    }
    return [
        measure_spread(name, figure, estimates) for figure, estimates in figures.items() if len(estimates) >= MIN_SEEDS
    ]


def spreads_of_group(group: RankingGroup, recipes: Mapping[str, str]) -> list[SeedSpread]:
    """The spread of every figure of each recipe that at least two ranked rows of a group share."""
    return [spread for name, rows in rows_by_recipe(group, recipes).items() for spread in spreads_of_recipe(name, rows)]


def measure_spread(recipe: str, figure: str, estimates: Sequence[Estimate]) -> SeedSpread:
    """The spread of one figure of at least two networks of a recipe."""
    values = np.array([estimate.value for estimate in estimates])
    count, deviation = len(values), float(values.std(ddof=1))
    half = t_quantile((1 + LEVEL) / 2, count - 1) * deviation / np.sqrt(count)
    center = float(values.mean())
    return SeedSpread(
        recipe, figure, tuple(float(value) for value in values),
        Estimate(center, float(center - half), float(center + half), count), deviation,
        float(np.mean([(estimate.high - estimate.low) / 2 for estimate in estimates])),
    )  # fmt: skip


def compare_recipes(first: SeedSpread, second: SeedSpread) -> Estimate:
    """Difference of the means of two recipes with Welch's t interval over seeds; n is the smaller number of seeds."""
    variances = [spread.deviation**2 / len(spread.values) for spread in (first, second)]
    difference, total = first.mean.value - second.mean.value, sum(variances)
    count = min(len(first.values), len(second.values))
    if not total:
        return Estimate(difference, difference, difference, count)
    parts = zip(variances, (first, second), strict=True)
    freedom = total**2 / sum(variance**2 / (len(spread.values) - 1) for variance, spread in parts)
    half = t_quantile((1 + LEVEL) / 2, freedom) * float(np.sqrt(total))
    return Estimate(difference, difference - half, difference + half, count)


def spread_rows(spreads: Sequence[SeedSpread]) -> Table:
    """One row per recipe and figure."""
    return [
        {
            "recipe": spread.recipe,
            "figure": spread.figure,
            "seeds": str(len(spread.values)),
            "mean over seeds": _interval(spread.mean),
            "smallest to largest": _range(spread),
            "standard deviation between seeds": f"{spread.deviation:.3f}",
            "half-width of a row": f"{spread.row_half_width:.3f}",
        }
        for spread in spreads
    ]


def recipe_tables(spreads: Sequence[SeedSpread]) -> list[tuple[str, Table]]:
    """Name and figures of each recipe, for narrow screens: what is compared stands first."""
    tables: dict[str, Table] = {}
    for spread in spreads:
        tables.setdefault(spread.recipe, []).append(
            {
                "figure": spread.figure,
                "seeds": str(len(spread.values)),
                "SD between seeds": f"{spread.deviation:.3f}",
                "half-width of a row": f"{spread.row_half_width:.3f}",
                "smallest to largest": _range(spread),
                "mean over seeds": _interval(spread.mean),
            }
        )
    return list(tables.items())


def row_beside_spread(row: LeaderboardRow, spreads: Sequence[SeedSpread]) -> Table:
    """The figures of one row beside the spread of its recipe, one line per figure that the row has."""
    return [
        {
            "figure": spread.figure,
            "this row, ± half-width": f"{estimate.value:.3f} ±{(estimate.high - estimate.low) / 2:.3f}",
            "SD between seeds": f"{spread.deviation:.3f}",
            "smallest to largest (seeds)": f"{_range(spread)} ({len(spread.values)})",
        }
        for spread in spreads
        if (estimate := FIGURES[spread.figure](row)) is not None
    ]


def comparison_rows(spreads: Sequence[SeedSpread]) -> Table:
    """One row per figure and pair of recipes."""
    return [
        {
            "figure": figure,
            "recipes": f"{first.recipe} - {second.recipe}",
            "difference over seeds": _interval(compare_recipes(first, second), "+"),
        }
        for figure in FIGURES
        for first, second in combinations([spread for spread in spreads if spread.figure == figure], 2)
    ]


def spread_lines(group: RankingGroup, recipes: Mapping[str, str], table: Callable[[Table], str]) -> list[str]:
    """The section of a group in Markdown; empty if no recipe has several seeds. `table` renders rows."""
    spreads = spreads_of_group(group, recipes)
    if not spreads:
        return []
    lines = [
        "",
        "### Spread between seeds",
        "",
        "The same recipe trained at the same precision with other seeds (`training.json`). A row's interval is that of one network;",
        "what is said of a recipe needs the spread between its seeds. 95% intervals over seeds, of Student's t. Recipes that were",
        "trained with more seeds, without a row for each, are compared in [docs/emergence.md](docs/emergence.md#recipes-over-training-seeds).",
        "",
        table([{name: escape_markdown(cell) for name, cell in row.items()} for row in spread_rows(spreads)]),
    ]
    compared = comparison_rows(spreads)
    return [*lines, "", table(compared)] if compared else lines


def _range(spread: SeedSpread) -> str:
    return f"{min(spread.values):.3f} to {max(spread.values):.3f}"


def _interval(estimate: Estimate, sign: str = "") -> str:
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"
