"""Probes on a device: the same results as on the processor, sums of each fold once, and operations by count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.probing.device.device_probes import fit_probes_on
from benchmark.probing.device.probe_cost import (
    BlindRows,
    ProbeShape,
    source_operations,
    training_operations,
    whitening_operations,
)
from benchmark.probing.device.trainer import trainer_on
from benchmark.probing.device.whitening_sums import shared_parts, whiten_seeds
from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probe_fit import fit_in_process
from benchmark.probing.probes import _whitening, fit_probes
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD

WIDTH, ROWS, FOLDS = 12, 300, 5
PROTOCOL = replace(ROTATION_STANDARD, steps=20, batch=32, hidden=8, folds=FOLDS, checks=2)
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


def split_of(seed: int, budget: int | None = None) -> Split:
    fold = np.arange(ROWS) % FOLDS
    test, validation = seed % FOLDS, (seed + 1) % FOLDS
    train = np.flatnonzero((fold != test) & (fold != validation))[:budget]
    return Split(train, np.flatnonzero(fold == validation), np.flatnonzero(fold == test))


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    random = np.random.default_rng(0)
    mixed = random.normal(size=(ROWS, WIDTH - 1)) @ random.normal(size=(WIDTH - 1, WIDTH - 1)) + 3
    return np.concatenate([mixed, np.full((ROWS, 1), 7.0)], 1).astype(np.float32)


@pytest.fixture(scope="module")
def targets(states) -> np.ndarray:
    labels = np.stack([states[:, :4].argmax(1), states[:, 2:6].argmax(1)]).astype(np.int16)
    labels[1, :40] = MISSING
    return np.stack([labels, labels[::-1]])


def fit(trainer, states, targets, **options):
    splits = [split_of(seed) for seed in range(3)]
    arguments = ([states] * 3, targets, np.array([4, 4]), splits, [PROTOCOL.hidden], range(3), PROTOCOL)
    return trainer(*arguments, inits=[0, 1], with_posterior=True, **options)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_device_computes_what_the_processor_does(states, targets, device) -> None:
    expected = fit(fit_probes, states, targets, matmul_dtype=torch.float32)

    def on_device(*arguments, **options):
        return fit_probes_on(torch.device(device), *arguments, **options, matmul_dtype=torch.float32)

    measured = fit(on_device, states, targets)
    tolerance = 1e-4 if device == "cpu" else 5e-3
    np.testing.assert_allclose(measured.validation, expected.validation, atol=tolerance)
    for name in ("log_prob", "log_posterior"):
        for ours, theirs in zip(getattr(measured, name), getattr(expected, name), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, atol=10 * tolerance)
    for ours, theirs in zip(measured.predicted, expected.predicted, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours == theirs).mean() > 0.99


def test_the_processor_keeps_its_trainer_and_its_bytes(states, targets) -> None:
    assert trainer_on("cpu") is trainer_on("mps") is fit_in_process
    ours, theirs = fit(trainer_on("cpu"), states, targets), fit(fit_probes, states, targets)
    assert ours.validation.tobytes() == theirs.validation.tobytes()
    assert [part.tobytes() for part in ours.log_prob] == [part.tobytes() for part in theirs.log_prob]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_has_another_trainer(states, targets) -> None:
    measured = fit(trainer_on("cuda"), states, targets)
    expected = fit(fit_probes, states, targets)
    np.testing.assert_allclose(measured.validation, expected.validation, atol=0.05)


@pytest.mark.parametrize("budget", [None, 101])
def test_sums_of_shared_parts_whiten_as_those_of_each_seed(states, budget) -> None:
    splits = [split_of(seed, budget) for seed in range(FOLDS)]
    tensor = torch.from_numpy(states)
    for whitening, split in zip(whiten_seeds([tensor] * FOLDS, splits, 1e-4), splits, strict=True):
        mean, axes = _whitening(states, split.train, 1e-4)
        torch.testing.assert_close(whitening.mean, mean)
        assert whitening.axes.shape == axes.shape == (WIDTH, WIDTH - 1)
        # Axes have no sign.
        torch.testing.assert_close(whitening.axes @ whitening.axes.T, axes @ axes.T)


def test_each_row_is_summed_once() -> None:
    splits = [split_of(seed) for seed in range(FOLDS)]
    parts = shared_parts([split.train for split in splits], ROWS)
    assert len(parts) == FOLDS
    assert np.sort(np.concatenate([rows for rows, _ in parts])).tolist() == list(range(ROWS))
    for q, split in enumerate(splits):
        of_seed = np.concatenate([rows for rows, seeds in parts if q in seeds])
        assert np.sort(of_seed).tolist() == split.train.tolist()


def test_states_of_several_copies_are_summed_apart(states) -> None:
    first, second = torch.from_numpy(states), torch.from_numpy(2 * states + 1)
    splits = [split_of(seed) for seed in range(3)]
    whitenings = whiten_seeds([first, second, first], splits, 1e-4)
    torch.testing.assert_close(whitenings[1].mean, second[splits[1].train].double().mean(0))
    torch.testing.assert_close(whitenings[2].mean, first[splits[2].train].double().mean(0))


@pytest.mark.parametrize("widths", [[], [8]])
@pytest.mark.parametrize("with_posterior", [False, True])
def test_counted_operations_are_those_of_torch(states, targets, widths, with_posterior) -> None:
    one_check = replace(PROTOCOL, checks=1)
    splits = [split_of(seed) for seed in range(2)]
    with FlopCounterMode(display=False) as counter:
        fit_probes_on(
            torch.device("cpu"), [states] * 2, targets, np.array([4, 4]), splits, widths, range(2), one_check,
            with_posterior=with_posterior,
        )  # fmt: skip
    axes, rows = WIDTH - 1, [len(split.train) for split in splits]
    shape = ProbeShape(len(targets), 8, 2, widths[0] if widths else 0)
    fits = training_operations(shape, axes + 1, ROWS // FOLDS, ROWS // FOLDS, one_check, with_posterior).times(2)
    used = len(np.union1d(splits[0].train, splits[1].train))
    total = fits + whitening_operations(WIDTH, ROWS, rows, used, axes)
    eigen = 2 * 9 * WIDTH**3
    assert counter.get_total_flops() == total.single + total.double - eigen


def test_shared_sums_save_all_seeds_but_one() -> None:
    rows = BlindRows.of_length(6, 7)
    assert (rows.states, rows.training, rows.tested) == (42_000, 30_000, 6_000)
    alone = whitening_operations(4096, rows.states, [rows.training] * 7)
    shared = whitening_operations(4096, rows.states, [rows.training] * 7, rows.states)
    assert alone.double - shared.double == 2 * (7 * 30_000 - 42_000) * 4096**2
    assert alone.single == shared.single


def test_width_4096_is_less_than_a_minute_of_a_large_gpu() -> None:
    total = source_operations(4096, BlindRows.of_length(6, 7), 7, 2)
    # A tenth of the peak of an H100: 67 and 990 TFLOP/s; a third of its 3.35 TB/s.
    seconds = total.double / 6.7e12 + total.single / 99e12 + total.bytes / 1.1e12
    assert 1 < seconds < 60
