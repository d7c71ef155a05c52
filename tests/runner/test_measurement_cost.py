"""The estimate of a run counts its measurements, and tokens that are read rather than the longest that could be written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agreement import loaded

from benchmark.causal.measurement import measure_use
from benchmark.causal.pairs import PairSettings
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.models.steering import open_steerable
from benchmark.probing.protocol import STANDARD
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner import preflight
from benchmark.runner.evidence_cache import untrained_copy_key, write_cached
from benchmark.runner.measurements import cost
from benchmark.runner.measurements.cost import ModelCost, estimate_measurements, list_missing_copies
from benchmark.runner.measurements.registry import MEASUREMENTS
from benchmark.runner.measurements.represents import seeds_of_copy
from benchmark.runner.plan import GenerationOptions, Job
from benchmark.runner.preflight import check_fits, describe_plan, describe_start
from benchmark.runner.worker import RANDOM_INIT_SEED
from benchmark.tasks.prompt_template import FEWSHOT
from benchmark.tasks.suite import load_suite

COST = ModelCost(1e-5, 0.0, 100.0, 6.0, 128, 1e11, True, True)
SLOW_PROBES = replace(COST, probe_flops=COST.probe_flops / 2)


@pytest.fixture
def job(tiny_folder, tmp_path, monkeypatch) -> Job:
    """The tiny model on `smoke`, with an empty cache and a speed that is no machine's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "matmul_flops", lambda dtype: 5e10)
    return Job(load_suite("smoke"), open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")), "float32", "cpu", 3)


def test_every_measurement_of_the_run_has_an_estimate_and_is_told(job, tmp_path) -> None:
    plain, with_all = check_fits(job, STANDARD), check_fits(job, STANDARD, tuple(MEASUREMENTS.values()))
    assert plain.measurement_seconds == {}
    assert set(with_all.measurement_seconds) == set(MEASUREMENTS)
    assert all(seconds > 0 for seconds in with_all.measurement_seconds.values())
    assert with_all.seconds == pytest.approx(plain.seconds + sum(with_all.measurement_seconds.values()))
    text = describe_plan(job.checkpoint, job, with_all)
    assert f", Represents {with_all.measurement_seconds['represents']:.0f} s" in text
    assert f"about {preflight.format_duration(with_all.seconds)} of processor time (" in text
    half = with_all.start_seconds + (with_all.seconds - with_all.start_seconds) / 2
    assert f"{preflight.format_duration(half)} in 2 processes on idle cores" in describe_plan(
        job.checkpoint, job, with_all, 2
    )
    assert f"start {with_all.start_seconds:.0f} s" in text
    assert preflight.format_duration(with_all.seconds) in describe_start(job, with_all, tmp_path)


def test_measurements_that_do_not_fit_the_run_are_not_counted(job) -> None:
    fewshot = replace(job, generation=GenerationOptions(track=FEWSHOT, states=False))
    assert estimate_measurements(fewshot, COST, MEASUREMENTS.values()) == {}


def test_copies_in_the_cache_are_not_read(job) -> None:
    represents = MEASUREMENTS["represents"]
    before = estimate_measurements(job, COST, [represents])["represents"]
    assert list_missing_copies(job, ROTATION_STANDARD) == [0, 1, 2, 3, 4]
    for copy in range(5):
        key = untrained_copy_key(job, ROTATION_STANDARD, RANDOM_INIT_SEED + copy)
        assert key is not None
        write_cached(key, {})
    assert list_missing_copies(job, ROTATION_STANDARD) == []
    assert estimate_measurements(job, COST, [represents])["represents"] < 0.7 * before


def test_time_follows_tokens_and_widths(job) -> None:
    for name in MEASUREMENTS:
        measurement = [MEASUREMENTS[name]]
        (base,) = estimate_measurements(job, COST, measurement).values()
        (slow,) = estimate_measurements(job, replace(COST, token_seconds=1e-2), measurement).values()
        assert slow > 2 * base, name
    alone = replace(COST, shares_prompts=False)
    assert alone.read(100, 400) > 1.5 * COST.read(100, 400)
    assert COST.fit(2, 10, 100, 10, 8) == pytest.approx(1.6 * 4 * 100 * 10 * (2 * 128 * 8 + 8 * 10) / 1e11)


def test_attention_grows_with_the_square_of_the_context() -> None:
    model = replace(COST, prompt_tokens=100.0, program_tokens=0.0, pair_seconds=1e-7)
    base, longer = (part.read(1, 0) for part in (model, replace(model, prompt_tokens=200.0)))
    products = cost.READ_FACTOR * model.token_seconds
    attention = cost.ATTENTION_FACTOR * model.pair_seconds
    assert base == pytest.approx(100 * products + 100**2 * attention)
    assert longer == pytest.approx(200 * products + 200**2 * attention)
    without = replace(model, pair_seconds=0.0)
    assert model.load() > without.load()
    assert model.write(10) > without.write(10)
    assert replace(model, prefix_tokens=50.0).prefix() == pytest.approx(50 * (model.token_seconds + 150 * attention))


def test_attention_is_counted_for_models_that_have_it(job, monkeypatch) -> None:
    costs = []
    monkeypatch.setattr(preflight, "estimate_measurements", lambda _, model, __: costs.append(model) or {})
    check_fits(job, STANDARD)
    layers, width = 2, 32
    assert costs[0].pair_seconds == pytest.approx(4 * layers * width / 5e10)
    mamba = open_checkpoint(ModelSpec.parse(f"path:{SOURCE_ROOT / 'submissions' / '2026-11-26_mamba-laptop'}"))
    check_fits(replace(job, checkpoint=mamba), STANDARD)
    assert costs[1].pair_seconds == 0


def test_written_tokens_are_those_of_programs_and_not_the_longest_possible(job, monkeypatch) -> None:
    short = check_fits(job, STANDARD).evaluation_seconds
    monkeypatch.setattr(
        preflight.HuggingFaceModel, "max_new_tokens", staticmethod(lambda tokenizer, words: 30), raising=True
    )
    assert check_fits(job, STANDARD).evaluation_seconds == short
    assert cost.NUM_VIEWS == 2


def test_a_preview_counts_neither_the_probes_of_the_record_nor_all_seeds(job) -> None:
    full = check_fits(job, STANDARD, [MEASUREMENTS["represents"]])
    preview = check_fits(replace(job, probes=False), STANDARD, [MEASUREMENTS["preview"]])
    assert preview.probing_seconds == 0 < full.probing_seconds
    assert preview.evaluation_seconds < full.evaluation_seconds
    assert preview.measurement_seconds["preview"] < full.measurement_seconds["represents"]


def test_a_copy_is_initialised_and_reads_the_shared_prefix_once(job, monkeypatch) -> None:
    preview = replace(job, probes=False)
    quick, full = check_fits(preview, STANDARD).evaluation_seconds, check_fits(job, STANDARD).evaluation_seconds
    monkeypatch.setattr(preflight, "LOAD_SECONDS", cost.LOAD_SECONDS + 10)
    assert check_fits(preview, STANDARD).evaluation_seconds == pytest.approx(quick)
    assert check_fits(job, STANDARD).evaluation_seconds == pytest.approx(full + 10 * job.random_inits)


def test_weights_that_no_cache_holds_count_once_per_step_of_a_batch() -> None:
    large = replace(COST, pass_seconds=0.1, batch=50, prefix_tokens=800.0)
    steps = 0.1 * COST.program_tokens
    shared = 800 * COST.token_seconds
    for programs, batches in ((1, 1), (50, 1), (51, 2), (1000, 20)):
        assert large.write(programs) - COST.write(programs) == pytest.approx(batches * steps + shared)
    assert large.write(0) == 0
    assert large.load() - COST.load() == pytest.approx(cost.CHECK_PASSES * shared)
    assert large.read(10, 40) == COST.read(10, 40), "a program that is read is one pass"


def test_only_a_model_that_no_cache_holds_is_measured_for_it(job, monkeypatch) -> None:
    monkeypatch.setattr(preflight, "weight_bytes_per_second", lambda dtype, rows: 1e9)
    small = check_fits(job, STANDARD).evaluation_seconds
    monkeypatch.setattr(preflight, "CACHED_BYTES", 0)
    assert check_fits(job, STANDARD).evaluation_seconds > small


def test_a_preview_counts_every_seed_of_the_copies_that_it_starts(job) -> None:
    preview = MEASUREMENTS["preview"]
    assert [len(seeds_of_copy(ROTATION_STANDARD, copy)) for copy in range(3)] == [2, 2, 1]
    empty, doubled = (estimate_measurements(job, part, [preview])["preview"] for part in (COST, SLOW_PROBES))
    fits = doubled - empty
    for copy in range(3):
        key = untrained_copy_key(job, ROTATION_STANDARD, RANDOM_INIT_SEED + copy)
        assert key is not None
        write_cached(key, {})
    empty, doubled = (estimate_measurements(job, part, [preview])["preview"] for part in (COST, SLOW_PROBES))
    # Three seeds of the model, and records, beside five of the copies.
    assert 1.4 < fits / (doubled - empty) < 1 + 5 / 3


def test_time_that_other_processes_take_is_not_counted(monkeypatch) -> None:
    clocks = {"thread_time": 0.0}
    monkeypatch.setattr(preflight.time, "thread_time", lambda: clocks["thread_time"])
    monkeypatch.setattr(preflight.time, "perf_counter", lambda: pytest.fail("wall time depends on the load"))

    def compute() -> None:
        assert torch.get_num_threads() == 1
        clocks["thread_time"] += 0.01

    assert preflight._fastest_seconds(compute) == pytest.approx(0.01)


def test_speeds_are_measured() -> None:
    assert preflight.matmul_flops(torch.float32) > 1e8
    assert preflight.weight_bytes_per_second(torch.float32, 4) > 1e6


def test_edits_grow_with_the_blocks_and_with_the_tokens_of_words(job) -> None:
    uses = [MEASUREMENTS["uses"]]
    model = replace(COST, prompt_tokens=0.0)
    base, deeper, finer, slower = (
        estimate_measurements(job, changed, uses)["uses"]
        for changed in (
            model, replace(model, num_blocks=30), replace(model, program_tokens=15.0), replace(model, few_tokens_factor=2.0),
        )
    )  # fmt: skip
    assert base < min(deeper, finer, slower)
    # A token more per block and pair that chooses: half of the blocks, under five semantics and in an untrained copy.
    assert cost._edit_passes(30) - cost._edit_passes(4) == pytest.approx(cost.CHOOSE_PAIRS * 6 * 26 / 2)


def test_edits_are_counted_as_they_are_made() -> None:
    """Tokens per task in passes over one token, in passes through all blocks, of a model that writes programs."""
    folder = SOURCE_ROOT / "submissions" / "2026-11-23_llama-laptop"
    models = loaded(folder), loaded(folder, random_seed=0)
    counts = []
    for model in models:
        for block in model.blocks:
            block.mlp.register_forward_hook(lambda _, args, __: counts.append(args[0].shape[:2]))
    trained, untrained = map(open_steerable, models)
    # Small batches, as of a large model: the first edit of a site in a batch is made twice.
    trained.batch_rows = untrained.batch_rows = 16
    num_tasks, num_blocks = 80, len(models[0].blocks)
    measure_use(trained, load_suite("laptop"), untrained, PairSettings(tasks=num_tasks))
    passes = sum(rows for rows, width in counts if width == 1) / num_blocks / num_tasks
    written = (cost.CHOOSE_PAIRS + cost.REPORT_PAIRS) * cost.WRITTEN_WORDS
    assert passes == pytest.approx(cost._edit_passes(num_blocks) + written, rel=0.2)
