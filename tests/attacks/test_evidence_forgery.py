"""Forging the evidence: hidden states cannot be seen by who verifies, so their summaries invite invention.

The pattern is that of trusting the output of what is graded (Wang, Mang, Cheung, Sen and Song, UC Berkeley RDI, "How We Broke
Top AI Agent Benchmarks: And What Comes Next", April 2026), applied to `probes.data`.

Each forgery is a pull request; some are found by computing figures again, the others because the evidence is somebody's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import entry
from proposals import SHIPPED, copy_row
from safetensors.numpy import load_file, save_file

from benchmark.review.duplicates import find_overlap, read_row
from benchmark.submit.command import main

GPT, LSTM = "2026-11-26_gpt-small-laptop", "2026-11-26_lstm-laptop"
Arrays = dict[str, np.ndarray]


def alter(change: Callable[[Arrays], Arrays]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        save_file(change(load_file(folder / "probes.data")), folder / "probes.data")

    return edit


def scaled(arrays: Arrays, prefix: str, factor: float) -> Arrays:
    return {name: array * np.float32(factor) if name.startswith(prefix) and array.dtype == np.float32 else array
            for name, array in arrays.items()}  # fmt: skip


def of_another(folder: Path) -> None:
    shutil.copyfile(SHIPPED / GPT / "probes.data", folder / "probes.data")


FORGERIES = {
    "model's losses halved": alter(lambda arrays: scaled(arrays, "model.", 0.5)),
    "controls made worse": alter(lambda arrays: scaled(arrays, "random-init.", 2.0)),
    "record of tokens made worse": alter(lambda arrays: scaled(arrays, "recorder.", 1.5)),
    "one array alone": alter(lambda arrays: scaled(arrays, "model.probe", 0.5)),
    "another row's arrays": of_another,
    "a better verdict": entry("meaning.verdict", "REPRESENTS", "record.json"),
    "a better delta": entry(
        "meaning.features.facing.delta", {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9712}, "record.json"
    ),
    "states that were not measured": entry("meaning.test_states", 10**6, "record.json"),
    "no controls": alter(
        lambda arrays: {name: array for name, array in arrays.items() if not name.startswith("recorder.")}
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_figures_that_the_evidence_does_not_give_are_found(name, tmp_path, capsys):
    folder = copy_row(LSTM, tmp_path / LSTM)
    FORGERIES[name](folder)
    assert main(["verify", str(folder), "--incoming"]) in (3, 4)
    capsys.readouterr()


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.9995])
def test_evidence_of_another_row_is_recognised_whatever_its_scale(factor, tmp_path):
    """All figures fit this evidence; but it is not the row's."""
    folder = copy_row(LSTM, tmp_path / "2026-11-27_mine")
    save_file(scaled(load_file(SHIPPED / GPT / "probes.data"), "model.", factor), folder / "probes.data")
    record = json.loads((SHIPPED / GPT / "record.json").read_text())
    entry("meaning", record["meaning"], "record.json")(folder)
    overlap = find_overlap(read_row(folder), [read_row(SHIPPED / GPT)])
    assert any("the same evidence" in reason for reason in overlap.refusals)


def test_weights_of_another_row_are_recognised_under_another_name(tmp_path):
    folder = copy_row(LSTM, tmp_path / "2026-11-27_mine")
    for path, value in (("name", "mine"), ("authors", ["Somebody"]), ("digest", "f" * 64)):
        entry(path, value)(folder)
    overlap = find_overlap(read_row(folder), [read_row(SHIPPED / LSTM)])
    assert any("the same weights, the same samples, the same evidence" in reason for reason in overlap.refusals)
