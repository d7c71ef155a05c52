"""Tables of pseudo-models: what the calibration records hold, below the table of their suite."""

from __future__ import annotations

import json

import pytest

from benchmark.board.known_answers import CAUSAL_CALIBRATION, ROTATION_CALIBRATION, read_known_answers
from benchmark.board.ranking import RankingGroup
from benchmark.board.tables import render_markdown
from benchmark.calibrate.causal_calibration import EXPECTED
from benchmark.errors import UsageError
from benchmark.installation.paths import SOURCE_ROOT

DOCS = SOURCE_ROOT / "docs"
CELLS = [
    {"planner": "planner", "seed": seed, "verdict": verdict, "site": "layer 1", "use": [0.9, 0.8, 1.0], "strict": 1.0,
     "every": 0.5, "expected": "USES layer 1", "is_right": verdict == "USES", "is_false_use": False}
    for seed, verdict in enumerate(("USES", "USES", "NOT SHOWN"))
] + [
    {"planner": "noise", "seed": 0, "verdict": "N/A", "site": "", "use": None, "strict": None, "every": None,
     "expected": "N/A", "is_right": True, "is_false_use": False}
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    record = {"suite": "laptop", "seeds": 3, "cells": CELLS, "coverage": {"margin": 0.944, "use": 0.938}}
    (tmp_path / CAUSAL_CALIBRATION).write_text(json.dumps(record))
    return tmp_path


def test_the_committed_record_of_protocol_4_is_shown_as_it_is():
    stored = json.loads((DOCS / ROTATION_CALIBRATION).read_text())
    answers = next(part for part in read_known_answers(DOCS / "calibration.json") if part.column == "represents")
    names = list(dict.fromkeys(cell["pseudo-model"] for cell in stored["cells"]))
    assert [row["pseudo-model"] for row in answers.rows] == names
    assert answers.suite == stored["suite"]
    for row in answers.rows:
        cells = [cell for cell in stored["cells"] if cell["pseudo-model"] == row["pseudo-model"]]
        assert row["as expected"] == f"{sum(cell['right'] for cell in cells)} of {len(cells)}"
        assert all(f"{cell['found']} " in row["measured"] for cell in cells)
        mean = sum(cell["delta"][0] for cell in cells) / len(cells)
        assert abs(float(row["delta"].split()[0]) - mean) <= 0.0005 + 1e-9
    assert {row["expected"] for row in answers.rows} == {"REPRESENTS", "not REPRESENTS", "not RECORD-ONLY"}


def test_planners_are_counted_over_draws(folder):
    (answers,) = read_known_answers(folder / "calibration.json")
    planner, noise = answers.rows
    assert planner["measured"] == "NOT SHOWN layer 1 1, USES layer 1 2"
    assert (planner["as expected"], planner["use"], planner["steered, all"]) == (
        "2 of 3",
        "+0.900 [+0.800, +1.000]",
        "0.500",
    )
    assert (noise["measured"], noise["use"], noise["steered, strict"]) == ("N/A 1", "-", "-")
    assert "false USES: 0" in answers.note[0]
    assert "margin 94.4%, use 93.8%" in answers.note[-1]
    assert set(EXPECTED) >= {"noise", "planner"}


def test_tables_are_below_the_suite_of_the_trained_track(folder):
    answers = read_known_answers(folder / "calibration.json")
    for suite, track, count in (("laptop", "trained", 1), ("laptop", "fewshot", 0), ("icml24", "trained", 0)):
        text = render_markdown([RankingGroup(suite, 1, 3, track, 10, ())], None, answers)
        assert text.count("### Known answers of Uses") == count
        assert text.count("| planner ") == 2 * count


def test_a_record_that_is_missing_has_no_table(tmp_path):
    assert read_known_answers(tmp_path / "calibration.json") == []


@pytest.mark.parametrize("text", ["{", "[]", '{"suite": "laptop", "cells": [{"planner": "x"}]}', '{"cells": 3}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    (tmp_path / CAUSAL_CALIBRATION).write_text(text)
    with pytest.raises(UsageError, match=r"python -m benchmark\.calibrate\.causal writes"):
        read_known_answers(tmp_path / "calibration.json")
