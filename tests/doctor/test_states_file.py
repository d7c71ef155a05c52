"""The doctor compares a states file with transformers, and names what was planted in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from quick_protocol import SHORT_SUITE
from safetensors.numpy import load_file, save_file

import benchmark as kb
from benchmark.doctor import command as doctor
from benchmark.files import read_safetensors_metadata
from benchmark.models.huggingface import HuggingFaceModel


@pytest.fixture(scope="module")
def probes() -> kb.BlindProbeSet:
    return kb.blind_probe_set(SHORT_SUITE, 40)


@pytest.fixture(scope="module")
def hidden(tiny_folder, probes) -> np.ndarray:
    """float32 [R, L, D], the states that an engine without a fault gives."""
    return kb.hidden_states(kb.load_model(f"path:{tiny_folder}"), probes)


@pytest.fixture
def diagnose(tiny_folder, probes, tmp_path, capsys):
    """Write states to a file and return the doctor's exit code and its line on them."""

    def written(states: np.ndarray) -> tuple[int, str]:
        path = kb.write_states(tmp_path / "states.safetensors", probes, states)
        metadata = read_safetensors_metadata(path) | {"suite": SHORT_SUITE}
        save_file(load_file(path), path, metadata)
        words = ["--model", f"path:{tiny_folder}", "--states", str(path), "--load-deadline", "0"]
        code = doctor.main(words)
        lines = capsys.readouterr().out.splitlines()
        return code, next(line for line in lines if "states file" in line)

    return written


def test_states_without_a_fault(diagnose, hidden) -> None:
    code, line = diagnose(hidden)
    assert code == 0, line
    assert line.startswith("ok")
    assert "rows equal transformers in 3 layers" in line


def test_one_layer_and_the_mean_are_named(diagnose, hidden) -> None:
    assert "rows equal layer 2 of transformers" in diagnose(hidden[:, 2])[1]
    code, line = diagnose(hidden.mean(1))
    assert (code, "equal the mean over layers" in line) == (0, True)
    assert diagnose(hidden[:, 1] + 1)[0] == 3


def before_norm(folder: Path, probes: kb.BlindProbeSet, hidden: np.ndarray) -> np.ndarray:
    """The states without the final norm in the last layer, by a model whose norm does nothing."""
    real = HuggingFaceModel._adapt

    def without_norm(self, model, *arguments):
        model.base_model.norm = torch.nn.Identity()
        real(self, model, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HuggingFaceModel, "_adapt", without_norm)
        return kb.hidden_states(kb.load_model(f"path:{folder}"), probes)


def plant(fault: str, folder: Path, probes: kb.BlindProbeSet, hidden: np.ndarray) -> np.ndarray:
    states = hidden.copy()
    if fault == "layer index":
        return states[:, [1, 2, 2]]
    if fault == "final norm":
        return before_norm(folder, probes, hidden)
    if fault == "batch mixing":
        # Neighbouring prompts of a batch are exchanged.
        order = np.arange(len(probes)) ^ 1
        order[order >= len(probes)] = len(probes) - 1
        for program, other in enumerate(order):
            own, source = (np.flatnonzero(probes.row_program == p) for p in (program, other))
            states[own] = hidden[source[: len(own)]]
        return states
    if fault == "zeros":
        states[-5:] = 0
    if fault == "NaN":
        states[7, 1, 3] = np.nan
    if fault == "off by one":
        return kb.hidden_states(kb.load_model(f"path:{folder}"), probes, "emit")
    return states


FAULTS = ("layer index", "final norm", "batch mixing", "zeros", "NaN", "off by one")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault, diagnose, tiny_folder, probes, hidden) -> None:
    code, line = diagnose(plant(fault, tiny_folder, probes, hidden))
    assert code == 3
    assert line.startswith("fail"), line
    assert fault in line
    assert not [other for other in FAULTS if other != fault and other in line], line


def test_faults_of_a_part_of_the_rows_are_named(diagnose, tiny_folder, probes, hidden) -> None:
    for fault in ("off by one", "batch mixing"):
        planted = plant(fault, tiny_folder, probes, hidden)
        part = hidden.copy()
        part[probes.row_program < 4] = planted[probes.row_program < 4]
        code, line = diagnose(part)
        assert (code, fault in line) == (3, True), line


def test_missing_layers_and_another_model(diagnose, hidden) -> None:
    assert "layer index: 2 layers, transformers has 3" in diagnose(hidden[:, 1:])[1]
    assert (
        "another model" in diagnose(hidden + np.random.default_rng(0).normal(size=hidden.shape).astype(np.float32))[1]
    )
