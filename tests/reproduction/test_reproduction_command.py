"""The command on the shipped model: its table, its result file with the floors beside the model, and its stages."""

from __future__ import annotations

import json

import pytest
from quick_protocol import QUICK

from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing import protocol
from benchmark.probing.written.content import DEPTHS, MODEL
from benchmark.probing.written.content_labels import FRAMES
from benchmark.reproduction.command import main

SHIPPED = SOURCE_ROOT / "submissions" / "2026-11-25_gpt-laptop"


@pytest.mark.parametrize("floors_only", [False, True])
def test_the_command_measures_the_content_beside_its_floors(
    floors_only, tmp_path, capsys, monkeypatch, recorded_progress
):
    monkeypatch.setattr(protocol, "STANDARD", QUICK)
    words = ["--model", f"path:{SHIPPED}", "--suite", "laptop", "--programs", "100", "--ahead", "1"]
    words += ["--output-dir", str(tmp_path), *(["--floors-only"] if floors_only else [])]
    assert main(words) == 0
    printed = capsys.readouterr().out
    content = json.loads(next(tmp_path.glob("*-laptop.json")).read_text())
    assert 90 <= content["programs"] <= 100
    assert f"{content['programs']} valid programs" in printed
    assert "State after the word, 1 ahead:" in printed
    figures = content["figures"]
    assert {(figure["offset"], figure["frame"]) for figure in figures} == {
        (n, frame) for n in (0, 1) for frame in FRAMES
    }
    depths = {figure["depth"] for figure in figures if figure["source"] == MODEL}
    assert depths == (set() if floors_only else set(DEPTHS))
    assert all(0 <= figure["content"]["low"] <= figure["content"]["high"] <= 1 for figure in figures)
    assert content["settings"]["floors_only"] is floors_only
    first, *fits = recorded_progress.stages
    assert first == "writing programs"
    assert fits
