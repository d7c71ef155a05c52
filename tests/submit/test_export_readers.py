"""What is exported is read by the tools themselves: lm-evaluation-harness, Inspect, every-eval-ever.

They need another Python and other versions of what this project requires, so they run in an environment of their own, which
`tests/submit/set_up_readers` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmark.runner.record import read_record
from benchmark.submit.export.command import FOLDERS, main

ROOT = Path(__file__).parents[2]
NAME = "2026-11-25_gpt-laptop"
PYTHON = os.environ.get("KAREL_READERS", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="no readers: tests/submit/set_up_readers FOLDER, then KAREL_READERS=FOLDER/bin/python"
)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the readers read of the exports of a submission."""
    folder = tmp_path_factory.mktemp("exports")
    for form in FOLDERS:
        assert main([NAME, "--format", form, "--output-dir", str(folder / form)]) == 0
    words = [PYTHON, str(ROOT / "tests" / "helpers" / "export_readers.py"), str(folder)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def figures() -> dict[str, float]:
    accuracy = read_record(ROOT / "submissions" / NAME / "record.json").accuracy
    return {name: getattr(accuracy, name).value for name in ("shown", "held_out", "exact", "valid")}


def test_the_harness_reads_results_and_samples(read):
    harness = read["lm-eval"]
    assert harness["figures"] == harness["means"] == figures()
    assert harness["table_lines"] == 5
    assert (harness["task"], harness["unknown"], harness["lacking"]) == ("karel_laptop", [], [])


def test_inspect_reads_the_log(read):
    log = read["inspect"]
    assert log["status"] == "success"
    assert log["figures"] == log["means"] == figures()
    assert log["first"][2] == "move(); turn_left(); move(); }"


@pytest.mark.parametrize("source", ["validated", "from lm-eval", "from inspect"])
def test_every_eval_ever_accepts_what_is_written_for_it_and_for_the_others(read, source):
    """It converts logs of the other two by readers of its own, and validates what comes out."""
    answers = read["every-eval-ever"][source]
    assert all(answer.startswith("0: ") for answer in answers), answers
    assert sum("All files passed validation" in answer for answer in answers) >= 1
