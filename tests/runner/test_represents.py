"""The measurement of protocol 4 as items: equal for every partition, cached per architecture, and concluded from arrays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.control_gap import INCONCLUSIVE, RANDOM_INIT
from benchmark.probing.version4 import suite_controls
from benchmark.probing.version4.rotation_evidence import RotationEvidence, merge_evidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_sources import probe_rotation
from benchmark.runner.evidence_cache import cache_folder, read_cached, untrained_copy_key, write_cached
from benchmark.runner.measurements import represents
from benchmark.runner.measurements.represents import RepresentsMeasurement, copy_item, read_views, seeds_of_copy
from benchmark.runner.plan import GenerationOptions, Job
from benchmark.runner.worker import RANDOM_INIT_SEED
from benchmark.tasks.suite import load_suite

PROTOCOL = replace(
    ROTATION_STANDARD, folds=3, seeds=(0, 1, 2), random_inits=2, steps=8, checks=2, hidden=8, batch=64, units=12,
    resamples=50, prompts=30, read_skill=0.0,
)  # fmt: skip
MEASUREMENT = RepresentsMeasurement(PROTOCOL)


@pytest.fixture
def job(tiny_folder, tmp_path, monkeypatch) -> Job:
    """The tiny model on `smoke`, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(suite_controls, "SCREEN_SAMPLE", 1000)
    return Job(load_suite("smoke"), open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")), "float32", "cpu", 2)


def collect_all(job: Job) -> dict[str, dict[str, np.ndarray]]:
    collector = MEASUREMENT.open(job)
    (items,) = MEASUREMENT.phases(job)
    return {item: collector.collect(item, lambda name: {}, 1.0) for item in items}


def test_items_and_their_conclusion(job) -> None:
    arrays = collect_all(job)
    assert set(arrays) == {"model", "random-0", "random-1", "suite"}
    conclusion = MEASUREMENT.conclude(job, arrays.__getitem__)
    result = conclusion.entries["rotation"]
    assert result.verdict == INCONCLUSIVE
    assert "rows with unseen prefixes" in result.reason
    assert set(result.control_gaps) == {"token-history", "random-init", "record-places", "record-counts", "record-sums"}
    assert [point.position for point in result.curve] == [0, 1, 2, 3, 4, 5]
    assert all(array.dtype == np.float32 for array in conclusion.evidence.values())
    assert not any(name.startswith("token-history") for name in conclusion.evidence)
    assert "settings of protocol 4" in conclusion.unofficial[0]
    again = collect_all(job)
    for item, stored in arrays.items():
        for name, array in stored.items():
            assert array.tobytes() == again[item][name].tobytes(), name


def test_evidence_of_subsets_of_seeds_is_that_of_all(job) -> None:
    judged = MEASUREMENT.open(job).judged
    views = read_views(job, judged, None)
    everything = probe_rotation(judged.probe_set, judged.judged_rows, [views], PROTOCOL)
    subsets = [[0, 2], [1]]
    parts = [
        (seeds, probe_rotation(judged.probe_set, judged.judged_rows.select(seeds), [views], PROTOCOL))
        for seeds in subsets
    ]
    merged = merge_evidence(parts, PROTOCOL.seeds)
    for name, array in vars(merged).items():
        assert array.dtype == np.float32
        assert array == pytest.approx(vars(everything)[name], rel=1e-6), name


def test_copies_of_one_architecture_are_read_once(job, tmp_path, monkeypatch) -> None:
    collector = MEASUREMENT.open(job)
    first = collector.collect(copy_item(1), lambda name: {}, 1.0)
    # Other weights, same architecture and tokenizer.
    other = tmp_path / "other"
    shutil.copytree(job.checkpoint.folder, other)
    weights = next(other.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(represents, "load_model", lambda *_: pytest.fail("a cached copy needs no model"))
    other_job = replace(job, checkpoint=open_checkpoint(ModelSpec.parse(f"path:{other}")))
    assert other_job.checkpoint.digest != job.checkpoint.digest
    second = MEASUREMENT.open(other_job).collect(copy_item(1), lambda name: {}, 1.0)
    assert {name: array.tobytes() for name, array in first.items()} == {n: a.tobytes() for n, a in second.items()}
    evidence = RotationEvidence.from_arrays(second, RANDOM_INIT)
    assert len(evidence.rotation_by_seed) == len(seeds_of_copy(PROTOCOL, 1)) == 1


def test_the_key_of_a_copy_holds_what_it_depends_on(job, tmp_path) -> None:
    key = untrained_copy_key(job, PROTOCOL, RANDOM_INIT_SEED)
    config = json.loads((job.checkpoint.folder / "config.json").read_text())
    changed = tmp_path / "changed"
    shutil.copytree(job.checkpoint.folder, changed)
    (changed / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    others = [
        untrained_copy_key(job, PROTOCOL, RANDOM_INIT_SEED + 1),
        untrained_copy_key(job, replace(PROTOCOL, steps=9), RANDOM_INIT_SEED),
        untrained_copy_key(replace(job, dtype="bfloat16"), PROTOCOL, RANDOM_INIT_SEED),
        untrained_copy_key(replace(job, suite=replace(job.suite, seed=8)), PROTOCOL, RANDOM_INIT_SEED),
        untrained_copy_key(
            replace(job, checkpoint=replace(job.checkpoint, folder=changed)), PROTOCOL, RANDOM_INIT_SEED
        ),
    ]
    assert len({key, *others}) == 6
    (changed / "config.json").write_text(json.dumps({**config, "_name_or_path": "elsewhere"}))
    for name in ("record.json", "represents.json", "uses.json", "status.json", "training.json"):
        (changed / name).write_text("{}")
    renamed = replace(job, checkpoint=replace(job.checkpoint, folder=changed))
    assert untrained_copy_key(renamed, PROTOCOL, RANDOM_INIT_SEED) == key
    (changed / "tokenizer_config.json").write_text("{}")
    assert untrained_copy_key(renamed, PROTOCOL, RANDOM_INIT_SEED) != key
    custom = replace(job, checkpoint=replace(job.checkpoint, spec="py:module:factory"))
    assert untrained_copy_key(custom, PROTOCOL, RANDOM_INIT_SEED) is None


def test_a_torn_or_altered_cache_file_is_missing(job) -> None:
    arrays = {"a": np.arange(5, dtype=np.float32)}
    assert read_cached("key") is None
    write_cached("key", arrays)
    path = cache_folder() / "key.data"
    content = path.read_bytes()
    stored = read_cached("key")
    assert stored is not None
    assert (stored["a"] == arrays["a"]).all()
    for damaged in (content[:-3], content[:70] + b"x" + content[71:], b""):
        path.write_bytes(damaged)
        assert read_cached("key") is None
    assert [file.name for file in cache_folder().iterdir()] == ["key.data"]


def test_a_cache_that_cannot_be_written_is_no_error(job, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    write_cached("key", {"a": np.zeros(1, np.float32)})
    assert read_cached("key") is None


def test_runs_that_have_no_such_measurement(job) -> None:
    assert MEASUREMENT.skip_reason(job) is None
    without = replace(job, generation=GenerationOptions(states=False))
    assert "hidden states" in str(MEASUREMENT.skip_reason(without))
