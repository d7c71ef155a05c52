"""The tables of docs/emergence.md are those of the points in docs/emergence/series and of the files beside them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import correlation
from typing import Any

import numpy as np
import pytest
from page_figures import bounds, decimal, page_text, percent_bounds

from benchmark.board.sections.seed_spread import compare_recipes, measure_spread
from benchmark.emergence.axis import choose_axis
from benchmark.emergence.order import AT_MOST, Order, find_order
from benchmark.emergence.phases import find_phases
from benchmark.emergence.point import DELTA, USE, CurvePoint, read_points
from benchmark.statistics import Estimate

DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "emergence" / "series").glob("*-laptop-*.json"))
PAGE = (DOCS / "emergence.md").read_text()
TEXT = page_text("emergence.md")
PAPER_TASK = DOCS / "emergence" / "series" / "icml24-small-1.json"
CONTENT = sorted((DOCS / "emergence" / "icml24-small" / "content").glob("*.json"))
REACH = DOCS / "emergence" / "icml24-small" / "reach-0002500.json"
FAMILIES = ("gpt-laptop", "neox-laptop", "lstm-laptop")
FIGURES: Mapping[str, Callable[[CurvePoint], Estimate | None]] = {
    "shown": lambda point: point.accuracy.shown,
    "held-out": lambda point: point.accuracy.held_out,
    "delta": lambda point: point.rotation and point.rotation.delta,
    "use": lambda point: point.use and point.use.use,
    "merges": lambda point: point.merges and point.merges.merges,
}
RECIPES = sorted({re.sub(r"-\d+\.json$", "", path.name) for path in FILES})


def row(order: Order, points: Sequence[CurvePoint]) -> str:
    """The cells of one series after its name."""
    (crossings,) = order.crossings.values()
    last = points[-1]
    cells = [
        f"{100 * last.accuracy.shown.value:.1f}",
        *(half(order, name) for name in (DELTA, USE)),
        difference(order),
        ", ".join(thousands(crossings[name]) for name in (DELTA, USE)),
        figure(last.rotation.delta, last.rotation.verdict),
        figure(last.use.use, last.use.verdict),
        figure(last.merges.merges),
    ]
    return table_row(cells)


def table_row(cells: Sequence[str]) -> str:
    return " ".join(["|", *(f"{cell} |" if cell else "|" for cell in cells)])


def figure(estimate: Estimate, verdict: str = "") -> str:
    return f"{decimal(estimate.value)} {verdict}".rstrip()


def thousands(value: float | None) -> str:
    return "never" if value is None else f"{value / 1000:.0f}"


def half(order: Order, name: str) -> str:
    value = order.half[name]
    if value is None:
        return "none"
    return f"{AT_MOST if order.num_latest[name] else ''}{thousands(2**value.value)}"


def difference(order: Order) -> str:
    value = order.differences[f"{DELTA} - {USE}"]
    return f"{order.side(f'{DELTA} - {USE}')}{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]" if value else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_page_has_the_half_points_of_each_series(path: Path) -> None:
    points = read_points(path)
    assert row(find_order({path.stem: points}, choose_axis([points])), points) in PAGE


def test_the_page_has_the_series_in_full() -> None:
    (section,) = re.findall(r"## One series in full\n(.*?)\n## ", PAGE, re.DOTALL)
    rows = [line for line in section.splitlines() if re.match(r"\| [\d,]+ \|", line)]
    points = {f"{point.tasks:,}": point for point in read_points(FILES[0])}
    assert len(rows) == 13
    for line in rows:
        tasks, shown, distinct, skill, delta, pose, use, merges, agreement = (
            c.strip() for c in line.strip("|").split("|")
        )
        point = points[tasks]
        assert point.rotation is not None
        assert point.merges is not None
        assert shown == f"{100 * point.accuracy.shown.value:.1f}"
        for cell, value in (
            (distinct, point.distinct), (skill, point.rotation.skill.value), (delta, point.rotation.delta.value),
            (pose, point.rotation.pose_delta and point.rotation.pose_delta.value), (agreement, point.merges.agreement),
            (use, point.use and point.use.use and point.use.use.value),
            (merges, point.merges.merges and point.merges.merges.value),
        ):  # fmt: skip
            assert (float(cell) if cell else None) == (None if value is None else pytest.approx(value, abs=6e-4)), line


def full_row(point: CurvePoint) -> str:
    """All figures of one checkpoint of the paper's task."""
    rotation, use, merges = point.rotation, point.use, point.merges
    assert rotation is not None
    assert use is not None
    assert merges is not None
    solved = "" if use.solved is None else f"{100 * use.solved:.1f}"
    delta, pose_delta, edited = (
        decimal(e.value, "+") if e else "" for e in (rotation.delta, rotation.pose_delta, use.use)
    )
    cells = [
        f"{point.tasks:,}", f"{100 * point.accuracy.shown.value:.1f}", decimal(point.distinct), figure(rotation.skill),
        delta, pose_delta, solved, edited, figure(merges.merges) if merges.merges else "", decimal(merges.agreement),
    ]  # fmt: skip
    return table_row(cells)


def test_the_page_has_the_series_of_the_papers_task() -> None:
    points = read_points(PAPER_TASK)
    assert len(points) >= 16
    for point in points:
        assert full_row(point) in PAGE, full_row(point)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_has_the_conclusion_of_each_recipe(recipe: str) -> None:
    series = {path.stem: read_points(path) for path in FILES if path.name.startswith(f"{recipe}-")}
    order = find_order(series, choose_axis(series.values()))
    conclusion = order.conclusions[f"{DELTA} - {USE}"]
    halves = [f"{half(order, name)} {interval(order.half[name])}".rstrip() for name in (DELTA, USE)]
    cells = [f"`{recipe}`, {len(series)} series", *halves, difference(order), conclusion]
    assert table_row(cells) in PAGE


def spans(values: Sequence[float]) -> str:
    """Smallest to largest, in percent."""
    return f"{100 * min(values):.0f} to {100 * max(values):.0f}"


def test_the_page_has_the_phases_of_each_recipe() -> None:
    texts = {}
    for recipe in FAMILIES:
        series = [read_points(path) for path in FILES if path.name.startswith(f"{recipe}-")]
        phases = [
            find_phases(*(np.array([read(p) for p in points], float) for read in (
                lambda p: p.tasks, lambda p: p.distinct, lambda p: p.accuracy.shown.value
            )))
            for points in series
        ]  # fmt: skip
        babbling, syntax, semantics = (spans(shares) for shares in zip(*(p.shares for p in phases), strict=True))
        texts[recipe] = f"{babbling}, {syntax} and {semantics}%"
    assert (
        f"syntax and semantics take {texts['gpt-laptop']} of the training of a GPT, {texts['neox-laptop']} of NeoX, "
        f"{texts['lstm-laptop']} of an LSTM; in the paper's figure 50, 25 and 25%."
    ) in TEXT


def test_the_page_has_what_training_forgets_first() -> None:
    series = {path.stem: [p for p in read_points(path) if p.rotation is not None] for path in FILES}
    skills = {name: [p.rotation.skill.value for p in points] for name, points in series.items()}
    recurrent = {name for name in series if name.startswith("lstm-laptop")}
    transformers = {name for name in series if name.startswith(("gpt-laptop", "neox-laptop"))}
    untrained = [
        " to ".join(decimal(pick([skills[name][0] for name in names]), places=2) for pick in (min, max))
        for names in (transformers, recurrent)
    ]
    low = max(min(values) for values in skills.values())
    latest = [
        max(next(p.tasks for p in series[name] if p.rotation.skill.value <= low) for name in names)
        for names in (transformers, recurrent)
    ]
    deltas = [
        decimal(min(p.rotation.delta.value for name in names for p in series[name]), places=2)
        for names in (transformers, recurrent)
    ]
    assert latest[0] <= 51_000 < latest[1] <= 102_000
    assert (
        f"The skill of the rotation, {untrained[0]} in the untrained transformers and {untrained[1]} in the untrained LSTMs, "
        f"falls to {decimal(low)} or below within 51,000 tasks, in the LSTMs within 102,000, before it rises. While it is low, "
        f"delta is below 0 (down to {deltas[0]} and {deltas[1]})"
    ) in TEXT


def interval(value: Estimate | None) -> str:
    return f"[{thousands(2**value.low)}, {thousands(2**value.high)}]" if value else ""


@pytest.mark.parametrize("name", FIGURES)
def test_the_page_compares_recipes_over_seeds(name: str) -> None:
    estimates = {
        recipe: [FIGURES[name](read_points(path)[-1]) for path in FILES if path.name.startswith(f"{recipe}-")]
        for recipe in FAMILIES
    }
    assert [len(values) for values in estimates.values()] == [5, 3, 3]
    spreads = [measure_spread(recipe, name, [e for e in values if e]) for recipe, values in estimates.items()]
    means = [bounds(spread.mean) for spread in spreads]
    differences = [bounds(compare_recipes(first, second), "+") for first, second in combinations(spreads, 2)]
    assert table_row([name, *means, *differences]) in PAGE


def read_figures(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Semantic content of one checkpoint by source, probe and frame."""
    return {(f["source"], f["depth"], f["frame"]): f for f in json.loads(path.read_text())["figures"]}


def find_point(path: Path) -> CurvePoint:
    """The point of the series whose content is in a file."""
    (point,) = (p for p in read_points(PAPER_TASK) if f"step-{p.step:07d}" in path.name)
    return point


def content_row(path: Path) -> str:
    """Content in percent in both frames, and accuracy of the rotation, of one checkpoint of the paper's task."""
    stored, figures, point = json.loads(path.read_text()), read_figures(path), find_point(path)
    linear, hidden = (("model", depth, "token history", depth) for depth in ("linear", "mlp1"))
    shares = [figures["majority", "", "absolute"]["content"]["value"]]
    for frame in ("absolute", "relative"):
        for source, depth, floor, floor_depth in (linear, hidden):
            shares += [
                figures[source, depth, frame]["content"]["value"],
                figures[floor, floor_depth, frame]["content"]["value"],
            ]
    shares += [figures[source, "mlp1", "relative"]["accuracy"]["rotation"] for source in ("model", "token history")]
    texts = [f"{100 * share:.1f}" for share in shares]
    pairs = [f"{model}, {floor}" for model, floor in zip(texts[1::2], texts[2::2], strict=True)]
    return table_row(
        [f"{point.tasks:,}", f"{100 * point.accuracy.shown.value:.1f}", f"{stored['distinct']:,}", texts[0], *pairs]
    )


@pytest.mark.parametrize("path", CONTENT, ids=lambda path: path.stem)
def test_the_page_has_the_semantic_content_of_each_checkpoint(path: Path) -> None:
    assert content_row(path) in PAGE


def test_semantic_content_was_measured_at_several_checkpoints() -> None:
    assert len(CONTENT) == 9


def test_the_page_correlates_content_and_its_floor_with_accuracy() -> None:
    solved = [find_point(path).accuracy.shown.value for path in CONTENT]
    floor, model = (
        decimal(
            correlation(
                solved, [read_figures(path)[source, "mlp1", "absolute"]["content"]["value"] for path in CONTENT]
            ),
            places=2,
        )
        for source in ("token history", "model")
    )
    assert f"the nine checkpoints it correlates with the accuracy by {floor}, the model by {model}." in TEXT


def test_the_page_has_the_reach_of_the_last_checkpoint() -> None:
    written = json.loads(REACH.read_text())["written"]
    figures = {
        (f["source"], f["depth"]): f for f in written["content"] if f["offset"] == 0 and f["frame"] == "relative"
    }
    model, history = figures["model", "mlp1"], figures["token history", "mlp1"]
    percent = [percent_bounds(Estimate(**f["content"])) for f in (history, model)]
    rotation = " to ".join(f"{100 * f['accuracy']['rotation']:.1f}" for f in (model, history))
    linear = " to ".join(
        f"{100 * figures[source, 'linear']['content']['value']:.1f}" for source in ("model", "token history")
    )
    assert f"With {written['programs']:,} programs of the last checkpoint" in TEXT
    assert f"start is {percent[0]} where the model has {percent[1]}, with 2,000" in TEXT
    assert f"rotation ({rotation}%) and with linear probes ({linear})" in TEXT
    ahead = written["ahead"][0]
    skill = bounds(Estimate(**ahead["skill"]), "+")
    assert (
        f"Its reach is {written['reach']}: one word beyond the next the skill is {skill} and a token history has {decimal(ahead['history'], '+')}"
        in TEXT
    )
