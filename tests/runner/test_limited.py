"""A limited run probes with a fraction of the work, and says that it is too small for a verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.protocol import STANDARD
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.sequential_verdict import list_looks
from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.runner.measurements import preview
from benchmark.runner.measurements.limited import (
    LIMITED,
    LIMITED_ROTATION,
    MIN_PROGRAMS,
    MIN_TASKS,
    describe_small_run,
    limit_measurement,
    limit_protocol,
)
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.measurements.uses import UsesMeasurement
from benchmark.runner.plan import GenerationOptions, Job
from benchmark.runner.run import Run, RunConfig
from benchmark.tasks.prompt_template import FEWSHOT
from benchmark.tasks.suite import limit_suite, load_suite


def protocols(tiny_folder, tmp_path, **options):
    """Settings of both protocols of a run."""
    config = RunConfig("laptop", out=tmp_path, measurements=("represents",), **options)
    run = Run(config, open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")))
    (measurement,) = run.measurements()
    return run.protocol, measurement.protocol, run.suite.probe_programs


@pytest.mark.parametrize("is_preview", [True, False])
def test_a_limit_shrinks_the_probes_of_previews_and_of_all_seeds(tiny_folder, tmp_path, is_preview) -> None:
    assert protocols(tiny_folder, tmp_path, preview=is_preview) == (STANDARD, ROTATION_STANDARD, 5000)
    limited = protocols(tiny_folder, tmp_path, preview=is_preview, limit=40)
    assert limited == (LIMITED, LIMITED_ROTATION, 200)


@pytest.mark.parametrize("is_preview", [True, False])
@pytest.mark.parametrize("limit", [None, 40])
def test_few_programs_are_those_of_the_few_shot_track(tiny_folder, tmp_path, is_preview, limit) -> None:
    config = RunConfig(
        "laptop", out=tmp_path, measurements=("represents", "uses"), few_programs=True, preview=is_preview, limit=limit
    )
    run = Run(config, open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")))
    represents, uses = run.measurements()
    standard = LIMITED_ROTATION if limit else ROTATION_STANDARD
    assert represents.protocol_of(run.job) == rotation_protocol(FEWSHOT, standard)
    assert represents.protocol_of(run.job).max_programs == 1000
    assert replace(represents, few_programs=False).protocol_of(run.job) == standard
    assert represents.open(run.job).protocol == represents.protocol_of(run.job)
    assert represents.settings(run.job) != replace(represents, few_programs=False).settings(run.job)
    assert uses == UsesMeasurement()
    fewshot = Run(replace(config, generation=GenerationOptions(FEWSHOT)), run.checkpoint).measurements()[0]
    assert not fewshot.few_programs


def test_the_work_of_a_limited_run_is_a_fraction() -> None:
    for small, standard in ((LIMITED, STANDARD), (LIMITED_ROTATION, ROTATION_STANDARD)):
        work, whole = (p.steps * p.batch * p.copies * len(p.seeds) for p in (small, standard))
        assert work <= whole / 8
        assert len(small.seeds) == small.folds, "a group of prompts is tested by a single seed, as a preview needs"


def test_settings_other_than_the_standard_ones_stay() -> None:
    quick = replace(STANDARD, steps=6)
    assert limit_protocol(quick) == quick
    own = RepresentsMeasurement(replace(ROTATION_STANDARD, steps=6))
    assert limit_measurement(own) == own
    assert limit_measurement(UsesMeasurement()) == UsesMeasurement()
    assert limit_measurement(PreviewMeasurement()) == PreviewMeasurement(LIMITED_ROTATION)


def test_a_preview_of_a_small_suite_ends_at_its_first_look(tiny_folder, monkeypatch) -> None:
    monkeypatch.setattr(preview, "is_decided", lambda *_: False)
    first = list_looks(ROTATION_STANDARD)[0]
    job = Job(load_suite("smoke"), open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")), "float32", "cpu", 3)
    assert PreviewMeasurement().open(job).is_last(first, None)
    large = replace(job, suite=replace(job.suite, tasks=MIN_TASKS, probe_programs=MIN_PROGRAMS))
    assert not PreviewMeasurement().open(large).is_last(first, None)


def test_what_is_too_small_for_a_verdict_says_so() -> None:
    laptop, smoke = load_suite("laptop"), load_suite("smoke")
    assert describe_small_run(laptop, None) == ""
    text = describe_small_run(smoke, None)
    assert text.startswith("too small for a verdict: suite smoke has 40 test tasks and 200 probe programs")
    assert "--suite laptop" in text
    limited = describe_small_run(limit_suite(laptop, 40), 40)
    assert "--limit 40 leaves 40 test tasks and 200 probe programs, and 3 probe seeds of 100 steps" in limited
