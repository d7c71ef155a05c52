"""Trusting the submitter's report.

Wang, Mang, Cheung, Sen and Song (UC Berkeley RDI), "How We Broke Top AI Agent Benchmarks: And What Comes Next", April 2026:
graders believed what the code that they graded said of itself, as SWE-bench Pro did of a parser in the agent's container.

The exploit writes better figures into every file that reports one, so that they agree with each other.
"""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest
from hostile import entry
from proposals import NGRAM, copy_row

from benchmark.submit.command import main

PERFECT = {"value": 1.0, "low": 0.996, "high": 1.0, "n": 1000}


def test_outcomes_figures_and_claims_that_agree_are_computed_again(tmp_path, capsys):
    folder = copy_row(NGRAM, tmp_path / NGRAM)
    path = folder / "samples.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows = [row | {"outcome": "solved", "shown": True, "held_out": True, "exact": True} for row in rows]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    entry("samples_sha256", hashlib.sha256(path.read_bytes()).hexdigest(), "record.json")(folder)
    for name in ("shown", "held_out", "both", "shown_state", "exact"):
        entry(f"accuracy.{name}", PERFECT, "record.json")(folder)
    entry(
        "accuracy.failures",
        {"solved": 1000, "empty": 0, "unparsable": 0, "step limit": 0, "wrong output": 0},
        "record.json",
    )(folder)
    entry("claimed", {"shown": 1.0, "held_out": 1.0, "exact": 1.0})(folder)
    assert main(["verify", str(folder), "--incoming"]) == 4
    out = capsys.readouterr().out
    assert "samples.test.0" in out


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("record.json", "official", False), ("record.json", "suite.tasks", 10), ("record.json", "suite.sha256", "0" * 64),
     ("record.json", "provenance.dirty", True), ("record.json", "model.parameters", 405 * 10**9),
     ("submission.yaml", "parameters", 405 * 10**9), ("submission.yaml", "digest", "0" * 64),
     ("submission.yaml", "claimed.held_out", 0.99), ("record.json", "accuracy.held_out.n", 10**6)],
)  # fmt: skip
def test_what_a_row_says_of_itself_is_not_believed(tmp_path, capsys, name, field, value):
    folder = copy_row(NGRAM, tmp_path / NGRAM)
    entry(field, value, name)(folder)
    assert main(["verify", str(folder), "--incoming"]) in (3, 4)
    capsys.readouterr()
