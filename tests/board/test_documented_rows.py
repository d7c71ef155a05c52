"""Figures of shipped rows that the documentation states are those of their records."""

from __future__ import annotations

import pytest
from page_figures import bounds, decimal

from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing.version4.rotation_verdict import RotationResult
from benchmark.runner.measurement_record import RepresentsRecord, read_measurement

DOCS, ROWS = SOURCE_ROOT / "docs", SOURCE_ROOT / "submissions"


def represents(row: str) -> RotationResult:
    record = read_measurement(RepresentsRecord, ROWS / row)
    assert record is not None
    return record.rotation


@pytest.mark.parametrize(
    "row", ["2026-11-28_smollm2-135m-instruct", "2026-11-28_gemma-3-270m", "2026-11-29_smollm2-135m-executes"]
)
def test_pretrained_md_has_the_figures_of_the_rows(row):
    text, figures = (DOCS / "pretrained.md").read_text(), represents(row)
    for name in ("skill", "delta", "pose_delta", "arithmetic"):
        assert bounds(getattr(figures, name), "+") in text, name


def test_baselines_md_has_the_figures_of_gpt_control():
    text, figures = (DOCS / "baselines.md").read_text(), represents("2026-11-30_gpt-control")
    assert figures.verdict == "INCONCLUSIVE"
    assert f"delta {bounds(figures.delta)}, {figures.unseen_rows:,} rows" in text
    for title, name in (("rotation", "skill"), ("executed record", "record_skill")):
        assert f"| {title} | {' | '.join(decimal(getattr(word, name), places=2) for word in figures.curve)} |" in text
    for value in (figures.skill_alternatives, figures.skill.value, figures.label_skills["lr11"]):
        assert f"({decimal(value)})" in text
    assert f"(delta {bounds(represents('2026-11-30_gpt-control-generalize').delta)})" in text
