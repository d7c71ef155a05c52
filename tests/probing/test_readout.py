"""The readout is that of the first seed's probes; an inconsistent file is refused."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from quick_protocol import QUICK, SMALL_SUITE

from benchmark.artifacts import READINGS
from benchmark.errors import SubmissionError, VerificationError
from benchmark.probing.labels import MISSING
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.readout import NUM_PROGRAMS, compute_readout, load_readout, pack_readout
from benchmark.probing.verdict import blind_probe_set
from benchmark.tasks.suite import load_suite
from karel_env.features import FEATURES

FACING = FEATURES.index("facing")


@pytest.fixture(scope="module")
def probe_set():
    return blind_probe_set(load_suite(SMALL_SUITE), QUICK)


@pytest.fixture(scope="module")
def fits(probe_set):
    """Two views with figures drawn by chance; the second is the better one under the original and the worse elsewhere."""
    rng = np.random.default_rng(1)
    shape = (len(probe_set.semantics), len(FEATURES))
    rows = [len(probe_set.split(seed).test) for seed in QUICK.seeds]

    def fit(validation: np.ndarray) -> ProbeFit:
        log_prob = [np.log(rng.random((*shape, n))).astype(np.float32) for n in rows]
        predicted = [rng.integers(0, 4, (*shape, n)).astype(np.int16) for n in rows]
        return ProbeFit(np.repeat(validation[None], len(QUICK.seeds), 0), log_prob, predicted)

    first, second = np.full(shape, 1.0), np.full(shape, 1.2)
    second[0] = 0.8
    return [fit(first), fit(second)]


@pytest.fixture(scope="module")
def readout(probe_set, fits):
    validation = np.full((len(probe_set.semantics), len(FEATURES)), 1.1)
    validation[1] = 0.9
    baseline = SimpleNamespace(priors=[SimpleNamespace(validation=validation)])
    return compute_readout(probe_set, baseline, fits, ("mean", "last"), probe_set.semantics[:-1], QUICK)


def test_readout_is_of_the_selected_view(probe_set, fits, readout):
    split = probe_set.split(QUICK.seeds[0])
    assert readout.task == np.unique(probe_set.program[split.test])[:NUM_PROGRAMS].tolist()
    assert [semantics_readout.semantics for semantics_readout in readout.by_semantics] == list(probe_set.semantics[:-1])
    for s, semantics_readout in enumerate(readout.by_semantics):
        assert semantics_readout.view == ("last" if s == 0 else "mean")
        assert semantics_readout.prior == (s == 1)
        fit = fits[s == 0]
        for i, task in enumerate(readout.task):
            rows = np.flatnonzero(probe_set.program[split.test] == task)
            label = probe_set.classes[s, FACING, split.test[rows]]
            assert (label != MISSING).all()
            assert semantics_readout.true[i] == label.tolist()
            assert semantics_readout.read[i] == fit.predicted[0][s, FACING, rows].tolist()
            np.testing.assert_allclose(
                semantics_readout.probability[i], np.exp(fit.log_prob[0][s, FACING, rows]), atol=6e-5
            )


def test_tokens_that_are_never_executed_are_missing(probe_set, fits, readout):
    classes = probe_set.classes_by_offset.copy()
    row = probe_set.split(0).test[0]
    classes[:, :, :, row] = MISSING
    validation = np.zeros((len(probe_set.semantics), len(FEATURES)))
    baseline = SimpleNamespace(priors=[SimpleNamespace(validation=validation)])
    masked = compute_readout(
        replace(probe_set, classes_by_offset=classes), baseline, fits, ("mean", "last"), ("original",), QUICK
    )
    (semantics_readout,) = masked.by_semantics
    assert semantics_readout.true[0][0] is semantics_readout.read[0][0] is semantics_readout.probability[0][0] is None
    assert semantics_readout.true[0][1:] == readout.by_semantics[0].true[0][1:]


def test_readout_round_trip(tmp_path, probe_set, readout):
    assert load_readout(tmp_path, probe_set) is None
    (tmp_path / READINGS).write_bytes(pack_readout(readout))
    assert load_readout(tmp_path, probe_set) == readout
    assert pack_readout(readout) == pack_readout(readout)
    assert len(pack_readout(readout)) < 200_000


def test_a_run_stores_its_readout(undisturbed, probe_set):
    readout = load_readout(Path(undisturbed), probe_set)
    assert readout is not None
    assert readout.seed == QUICK.seeds[0]
    assert len(readout.task) > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda r: r["by_semantics"][1]["true"][0].__setitem__(0, (r["by_semantics"][1]["true"][0][0] + 1) % 4),
            "labels",
        ),
        (lambda r: r["by_semantics"][0]["probability"][0].__setitem__(0, 1.5), "less than or equal to 1"),
        (lambda r: r["by_semantics"][0]["probability"][0].pop(), "expected one value per labelled token"),
        (lambda r: r["by_semantics"][0]["read"][0].__setitem__(0, None), "expected one value per labelled token"),
        (lambda r: r["by_semantics"][0]["read"][0].__setitem__(0, 4), "out of range"),
        (lambda r: r["by_semantics"][0].update(semantics="<b>"), "unknown semantics"),
        (lambda r: r["task"].__setitem__(0, 10**9), "outside the blind set"),
        (lambda r: r.update(feature="obstacle"), "obstacle"),
        (lambda r: r.update(more=1), "more"),
    ],
)
def test_a_readout_of_another_set_is_refused(tmp_path, probe_set, readout, change, says):
    stored = json.loads(readout.model_dump_json())
    change(stored)
    (tmp_path / READINGS).write_bytes(gzip.compress(json.dumps(stored).encode()))
    with pytest.raises(VerificationError, match=says) as refused:
        load_readout(tmp_path, probe_set)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"not gzip", gzip.compress(b"{}", mtime=0)[:-9], gzip.compress(b" " * 5_000_000, mtime=0)]
)
def test_a_damaged_or_oversized_file_is_refused(tmp_path, probe_set, content):
    (tmp_path / READINGS).write_bytes(content)
    with pytest.raises(SubmissionError, match=READINGS):
        load_readout(tmp_path, probe_set)
