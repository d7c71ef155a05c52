"""The tables of docs/length.md are those of the records beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from page_figures import full_bounds, page_text

from benchmark.statistics import Estimate

DOCS = Path(__file__).parents[2] / "docs"
TEXT = page_text("length.md")
RECORDS = {path.stem: json.loads(path.read_text()) for path in sorted((DOCS / "length").glob("*.json"))}
UNDEFINED = "not defined"


def interval(value: Mapping[str, Any] | None, undefined: str = "") -> str:
    return full_bounds(Estimate(**value)) if value else undefined


def table_rows(name: str, rows: list[list[str]]) -> str:
    """Rows of one model, of which the first alone names it."""
    lines = [["" if number else name, *cells] for number, cells in enumerate(rows)]
    return " ".join("| " + " | ".join(cells) + " |" for cells in lines).replace("|  |", "| |").replace("|  |", "| |")


def test_the_page_has_five_models() -> None:
    assert len(RECORDS) == 5


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_has_the_rotation_by_word(name: str) -> None:
    record = RECORDS[name]
    (longest,) = (curve for curve in record["rotation"] if curve["words"] == 24)
    rows = []
    for read, carried in zip(longest["stretches"], record["carried"]["stretches"], strict=True):
        figures = read["figures"] | carried["figures"]
        kinds = ("model skill", "record skill", "surplus", "untrained skill", "model carried accuracy")
        rows.append([f"{read['first']} to {read['last']}", *(interval(figures[kind]) for kind in kinds)])
    assert table_rows(name, rows) in TEXT


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_has_the_tasks_by_length(name: str) -> None:
    tasks = RECORDS[name]["tasks"]
    shown = [interval(tasks[factor]["shown"]) for factor in ("1", "2", "4")]
    assert table_rows(name, [[*shown, *(interval(tasks[factor]["within"]) for factor in ("2", "4"))]]) in TEXT
    assert all(tasks[factor]["beyond"]["value"] == 0 for factor in ("2", "4"))


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_has_use_and_merges_after_longer_prefixes(name: str) -> None:
    rows = []
    for entry in RECORDS[name]["prefixes"].values():
        strict, merges = entry["strict"] or {}, entry["merges"]
        rows.append([
            str(entry["words"]), f"{entry['solved']:.3f}", entry["verdict"], interval(strict.get("steered")),
            interval(strict.get("margin")), interval(merges["merges"], UNDEFINED), interval(merges["floor"] if merges["merges"] else None),
            f"{merges['same']:.3f}, {merges['other']:.3f}",
        ])  # fmt: skip
    assert table_rows(name, rows) in TEXT
