"""The evidence of the default model's randomly initialised copies is shipped, and is what a run computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmark.errors import VerificationError
from benchmark.installation.paths import DEFAULT_MODEL
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.version4 import suite_controls
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.rotation_evidence import RotationEvidence, merge_evidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.evidence_cache import SHIPPED_COPIES, shipped_copy
from benchmark.runner.measurements import represents
from benchmark.runner.measurements.represents import (
    RepresentsMeasurement,
    collect_copy,
    copy_item,
    read_views,
    rotation_suite,
    seeds_of_copy,
)
from benchmark.runner.plan import Job
from benchmark.runner.worker import RANDOM_INIT_SEED
from benchmark.tasks.suite import load_suite

ROOT = Path(__file__).parents[2]
COPIES = range(ROTATION_STANDARD.random_inits)
SUITES = ("laptop", "smoke")
"""Suites on which they are shipped."""


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    """The default model on its suite, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint = open_checkpoint(ModelSpec.parse(f"path:{ROOT / DEFAULT_MODEL}"))
    return Job(load_suite("laptop"), checkpoint, "float32", "cpu", 3)


def test_shipped_copies_are_those_of_the_measured_row(job) -> None:
    parts = []
    for copy in COPIES:
        arrays = shipped_copy(job, ROTATION_STANDARD, RANDOM_INIT_SEED + copy)
        assert arrays is not None
        parts.append((seeds_of_copy(ROTATION_STANDARD, copy), RotationEvidence.from_arrays(arrays, RANDOM_INIT)))
    merged = merge_evidence(parts, ROTATION_STANDARD.seeds)
    stored = load_file(ROOT / DEFAULT_MODEL / "rotation.data")
    for name, array in merged.arrays(RANDOM_INIT).items():
        assert array.tobytes() == stored[name].tobytes(), name
    assert len(SHIPPED_COPIES) == len(SUITES) * len(COPIES)


@pytest.mark.parametrize("suite", SUITES)
def test_the_default_model_reads_no_copy(job, monkeypatch, suite) -> None:
    job = replace(job, suite=load_suite(suite))
    monkeypatch.setattr(represents, "load_model", lambda *_: pytest.fail("a shipped copy needs no model"))
    collector = RepresentsMeasurement().open(job)
    for copy in COPIES:
        arrays = collector.collect(copy_item(copy), lambda name: {}, 1.0)
        assert len(arrays[f"{RANDOM_INIT}.rotation_by_seed"]) == len(seeds_of_copy(ROTATION_STANDARD, copy))


def test_other_settings_have_no_shipped_copy(job) -> None:
    others = [
        replace(job, dtype="bfloat16"), replace(job, device="cuda"), replace(job, suite=replace(job.suite, seed=8)),
        replace(job, suite=replace(job.suite, batch=1)),
    ]  # fmt: skip
    assert all(shipped_copy(other, ROTATION_STANDARD, RANDOM_INIT_SEED) is None for other in others)
    assert shipped_copy(job, replace(ROTATION_STANDARD, steps=7), RANDOM_INIT_SEED) is None
    assert shipped_copy(job, ROTATION_STANDARD, RANDOM_INIT_SEED + len(COPIES)) is None


def test_an_altered_file_is_refused(job, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(suite_controls, "FOLDER", tmp_path)
    with pytest.raises(VerificationError, match="reinstall the release"):
        shipped_copy(job, ROTATION_STANDARD, RANDOM_INIT_SEED)
    for name in SHIPPED_COPIES:
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(VerificationError, match=r"SHA-256 d9298a10d1b0; expected [0-9a-f]{12}"):
        shipped_copy(job, ROTATION_STANDARD, RANDOM_INIT_SEED)


@pytest.mark.slow
def test_a_shipped_copy_is_what_is_computed(job) -> None:
    copy = 2
    judged = judge_suite(rotation_suite(job.suite), ROTATION_STANDARD)
    views = read_views(job, judged, copy)
    computed = collect_copy(judged, views, ROTATION_STANDARD, seeds_of_copy(ROTATION_STANDARD, copy))
    shipped = shipped_copy(job, ROTATION_STANDARD, RANDOM_INIT_SEED + copy)
    assert shipped is not None
    assert set(computed) == set(shipped)
    # Products are bfloat16 on some processors and float32 on others.
    rows = judged.judged_rows.num_rows.sum()
    for name, array in shipped.items():
        assert np.abs(computed[name].sum() - array.sum()) <= 0.02 * max(float(array.sum()), 0.01 * rows), name
