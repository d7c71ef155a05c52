"""The tables of docs/reproduction.md are those of the record beside it, and of the reach of the rows."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from page_figures import decimal, page_text, percent_bounds

from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing.written.figures import ReachFigures
from benchmark.runner.measurement_record import ReachRecord, read_measurement
from benchmark.statistics import Estimate

PAGE = (SOURCE_ROOT / "docs" / "reproduction.md").read_text()
TEXT = page_text("reproduction.md")
RECORD = json.loads((SOURCE_ROOT / "docs" / "reproduction" / "icml24-large.json").read_text())
FIGURES = {(f["source"], f["depth"], f["offset"], f["frame"]): f for f in RECORD["figures"]}
PROBES = {"-": "", "linear": "linear", "one hidden layer": "mlp1"}
ROWS = sorted(path.parent for path in (SOURCE_ROOT / "submissions").glob("*/reach.json"))


def table_of(section: str, header: str) -> list[list[str]]:
    """Cells of the rows of a table, without the marks of bold type."""
    text = PAGE[PAGE.index(f"## {section}\n") :]
    lines = text[text.index(header) :].splitlines()[2:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip().replace("**", "") for cell in row.strip("|").split("|")] for row in rows]


def delta_ahead(figures: ReachFigures) -> str:
    """Delta one word ahead, as `+.210 [.142, .278]`."""
    delta = figures.ahead[0].delta
    return f"{decimal(delta.value, '+')} [{decimal(delta.low)}, {decimal(delta.high)}]"


def percent(content: dict[str, Any], with_interval: bool) -> str:
    text = percent_bounds(Estimate(**content))
    return text if with_interval else text.partition(" ")[0]


@pytest.mark.parametrize(
    ("section", "header", "offsets", "num_rows"),
    [("Now", "| source | probe | absolute", (0,), 7), ("One and two states ahead", "| source | probe | +1", (1, 2), 7)],
)
def test_the_page_has_the_content_of_each_source(
    section: str, header: str, offsets: tuple[int, ...], num_rows: int
) -> None:
    rows = table_of(section, header)
    assert len(rows) == num_rows
    for source, probe, *cells in rows:
        name = "model" if source == "icml24-large" else source
        expected = []
        for offset in offsets:
            absolute, relative = (FIGURES[name, PROBES[probe], offset, frame] for frame in ("absolute", "relative"))
            shown = cells[len(expected) :]
            expected += [
                *(percent(f["content"], "[" in cell) for f, cell in zip((absolute, relative), shown, strict=False)),
                f"{100 * relative['accuracy']['rotation']:.1f}",
            ]
        assert cells == expected, (source, probe)


def test_the_page_counts_the_rows_with_a_reach() -> None:
    records = {row.name.partition("_")[2]: read_measurement(ReachRecord, row) for row in ROWS}
    written = {name: record.written for name, record in records.items() if record is not None}
    laptop = {name: figures for name, figures in written.items() if name.endswith("-laptop") or "-laptop-" in name}
    ahead = sorted(name for name, figures in laptop.items() if figures.reach == 1)
    assert ahead == ["gpt-large-laptop", "gpt-small-laptop"]
    assert len(laptop) == 12
    assert "On `laptop`, two of twelve rows have a reach of 1" in TEXT
    for name in (*ahead, "gpt-laptop-3", "lstm-laptop"):
        assert re.search(rf"`{name}` \(?{re.escape(delta_ahead(written[name]))}", TEXT), name
    assert f"by {delta_ahead(written['icml24-large'])}. Two words ahead" in TEXT
