"""The frozen settings of protocol 4, and the pinned token history of the shipped suites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.errors import VerificationError
from benchmark.probing.version4 import suite_controls
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, VERDICT_SETTINGS
from benchmark.probing.version4.suite_controls import (
    PINNED,
    SuiteControls,
    compute_suite_controls,
    file_name,
    shipped_suite_controls,
    suite_controls_key,
)
from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.probing.version4.turn_pairs import MARKER_PAIRS, POSE_PAIRS
from benchmark.tasks.prompt_template import FEWSHOT, TRAINED
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import load_suite

DIGEST = "dd1e7cece03528058ac215071ae867bcebbe8210c2c45aa3679c38c1f6c46116"


def test_the_settings_of_protocol_4_are_frozen() -> None:
    assert ROTATION_STANDARD.digest() == DIGEST
    assert replace(ROTATION_STANDARD, prompts=1751).digest() != DIGEST


def test_evidence_does_not_depend_on_the_bounds_of_the_verdict() -> None:
    digest = ROTATION_STANDARD.evidence_digest()
    for name in VERDICT_SETTINGS:
        changed = replace(ROTATION_STANDARD, **{name: 7})
        assert changed.evidence_digest() == digest
        assert changed.digest() != DIGEST
    assert replace(ROTATION_STANDARD, hidden=7).evidence_digest() != digest


def test_every_shipped_suite_has_pinned_controls_that_keep_all_labels() -> None:
    for name in SUITES:
        controls = shipped_suite_controls(load_suite(name), ROTATION_STANDARD)
        assert controls is not None, name
        assert controls.kept_pairs(ROTATION_STANDARD) == (MARKER_PAIRS, POSE_PAIRS)
        assert controls.token_history.rotation_by_seed.shape[0] == len(ROTATION_STANDARD.seeds)
    few_programs = rotation_protocol(FEWSHOT)
    assert few_programs == rotation_protocol(TRAINED, few_programs=True)
    for name in SUITES:
        controls = shipped_suite_controls(load_suite(name), few_programs)
        assert controls is not None, name
        assert controls.kept_pairs(few_programs) == (MARKER_PAIRS, POSE_PAIRS)
    assert len(PINNED) == 2 * len(SUITES)


SUITES = ("smoke", "laptop", "icml24", "colm24", "control", "generalize")


def test_another_suite_or_protocol_has_no_shipped_controls() -> None:
    smoke = load_suite("smoke")
    assert shipped_suite_controls(replace(smoke, seed=8), ROTATION_STANDARD) is None
    assert shipped_suite_controls(smoke, replace(ROTATION_STANDARD, steps=7)) is None
    assert suite_controls_key(replace(smoke, tasks=9, batch=3), ROTATION_STANDARD) == suite_controls_key(
        smoke, ROTATION_STANDARD
    )


def test_an_altered_or_missing_file_is_refused(tmp_path, monkeypatch) -> None:
    smoke = load_suite("smoke")
    name = file_name(smoke, ROTATION_STANDARD)
    content = bytearray((suite_controls.FOLDER / name).read_bytes())
    monkeypatch.setattr(suite_controls, "FOLDER", tmp_path)
    with pytest.raises(VerificationError, match="No such file"):
        shipped_suite_controls(smoke, ROTATION_STANDARD)
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VerificationError, match="SHA-256"):
        shipped_suite_controls(smoke, ROTATION_STANDARD)


def test_the_first_prompts_do_not_depend_on_how_many_are_drawn() -> None:
    suite = replace(load_suite("laptop"), probe_programs=400)
    few, many = (shared_prompts(suite, pairs) for pairs in (1200, 1600))
    first = many.take_prompts(300)
    assert (few.tasks.inputs.cells == first.tasks.inputs.cells).all()
    assert (few.tasks.programs.words == first.tasks.programs.words).all()
    assert (few.group == first.group).all()


def test_arrays_of_controls_are_read_back(monkeypatch) -> None:
    monkeypatch.setattr(suite_controls, "SCREEN_SAMPLE", 1000)
    protocol = replace(ROTATION_STANDARD, folds=3, seeds=(0, 1, 2), steps=5, hidden=4, prompts=90)
    smoke = load_suite("smoke")
    controls = compute_suite_controls(smoke, protocol)
    again = SuiteControls.from_arrays(controls.arrays())
    assert again.derivability == controls.derivability
    for name, array in vars(again.token_history).items():
        assert (array == vars(controls.token_history)[name]).all()
    assert judge_suite(smoke, protocol).blind.num_prompts == 90


@pytest.mark.slow
def test_the_pinned_controls_are_what_the_command_computes() -> None:
    smoke = load_suite("smoke")
    shipped, computed = (
        shipped_suite_controls(smoke, ROTATION_STANDARD),
        compute_suite_controls(smoke, ROTATION_STANDARD),
    )
    assert shipped is not None
    assert shipped.derivability == pytest.approx(computed.derivability)
    first, second = (controls.token_history.rotation.sum((1, 2)) for controls in (shipped, computed))
    assert np.abs(first / second - 1).max() < 0.03
