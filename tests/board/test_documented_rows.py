"""Figures of shipped rows that the documentation states are those of their records."""

from __future__ import annotations

import json

import pytest

from benchmark.installation.paths import SOURCE_ROOT

DOCS, ROWS = SOURCE_ROOT / "docs", SOURCE_ROOT / "submissions"


def represents(row: str) -> dict:
    return json.loads((ROWS / row / "represents.json").read_text())["rotation"]


def decimals(value: float, places: int = 3) -> str:
    """As `.178` or `-.185`."""
    return f"{value:.{places}f}".replace("0.", ".", 1)


def interval(estimate: dict, signed: bool = False) -> str:
    """As `-.185 [-.204, -.166]`; `signed` puts a plus before what is not negative."""
    texts = [decimals(estimate[name]) for name in ("value", "low", "high")]
    value, low, high = [text if text.startswith("-") or not signed else f"+{text}" for text in texts]
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize(
    "row", ["2026-11-28_smollm2-135m-instruct", "2026-11-28_gemma-3-270m", "2026-11-29_smollm2-135m-executes"]
)
def test_pretrained_md_has_the_figures_of_the_rows(row):
    text, figures = (DOCS / "pretrained.md").read_text(), represents(row)
    for name in ("skill", "delta", "pose_delta", "arithmetic"):
        assert interval(figures[name], signed=True) in text, name


def test_baselines_md_has_the_figures_of_gpt_control():
    text, figures = (DOCS / "baselines.md").read_text(), represents("2026-11-30_gpt-control")
    assert figures["verdict"] == "INCONCLUSIVE"
    assert f"delta {interval(figures['delta'])}, {figures['unseen_rows']:,} rows" in text
    for title, name in (("rotation", "skill"), ("executed record", "record_skill")):
        assert f"| {title} | {' | '.join(decimals(word[name], 2) for word in figures['curve'])} |" in text
    for value in (figures["skill_alternatives"], figures["skill"]["value"], figures["label_skills"]["lr11"]):
        assert f"({decimals(value)})" in text
    assert f"(delta {interval(represents('2026-11-30_gpt-control-generalize')['delta'])})" in text
