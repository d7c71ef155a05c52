"""Rows of stored states, bits of a block, diagnostics and limits of a folder, on inputs that are counted by hand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.artifacts import MAX_FOLDER_BYTES
from benchmark.errors import SubmissionError
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing.diagnostics import collect_diagnostic_evidence
from benchmark.probing.labels import DROPPED, MISSING, ProbeSet
from benchmark.probing.mdl import growing_blocks, uniform_bits
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import STANDARD
from benchmark.runner.store import MemmapStates
from benchmark.submit.folder import screen_folder
from karel_env.features import FEATURES

PROGRAMS, WORDS, FOLDS = 6, 3, 3


@pytest.fixture(scope="module")
def probe_set() -> ProbeSet:
    """6 programs of 3 words; program i is in fold i modulo 3, the last in none; every third label is missing."""
    rows = PROGRAMS * WORDS
    fold = (np.arange(PROGRAMS) % FOLDS).astype(np.int8)
    fold[-1] = DROPPED
    classes = np.zeros((1, 1, len(FEATURES), rows), np.int16)
    classes[..., ::WORDS] = MISSING
    return ProbeSet(
        program=np.repeat(np.arange(PROGRAMS), WORDS), word=np.tile(np.arange(WORDS), PROGRAMS),
        step=np.tile(np.arange(WORDS), PROGRAMS), classes_by_offset=classes, offsets=(0,), counts=2 ** np.arange(1, len(FEATURES) + 1),
        fold=fold, folds=FOLDS, is_seen=np.arange(rows) % WORDS == 1, semantics=("original",),
    )  # fmt: skip


@pytest.mark.parametrize(
    "rows", [slice(None), slice(2, 5), np.array([5, 0, 2, 3, 3, 1])], ids=["all", "slice", "places"]
)
def test_rows_of_several_files_are_those_of_one(rows):
    combined = np.arange(12, dtype=np.float32).reshape(6, 2)
    parts = [combined[:2], combined[2:2], combined[2:3], combined[3:]]
    stored = MemmapStates(parts)
    assert (len(stored), stored.shape) == (6, (6, 2))
    assert np.array_equal(stored[rows], combined[rows])


def test_the_first_block_costs_as_many_bits_as_its_classes_take(probe_set):
    """Of 2^n classes a label costs n bits; two of a program's three words have one."""
    bits = uniform_bits(probe_set, np.array([0, 3]))
    expected = np.zeros((1, len(FEATURES), PROGRAMS - 1))
    expected[0, :, [0, 3]] = 2.0 * np.arange(1, len(FEATURES) + 1)
    assert np.array_equal(bits, expected)


def test_blocks_hold_every_program_once(probe_set):
    num_programs = replace(probe_set, fold=np.where(np.arange(33) == 4, DROPPED, 0).astype(np.int8))
    blocks = growing_blocks(num_programs, 5)
    assert [len(block) for block in blocks] == [2, 2, 4, 8, 16]
    assert sorted(np.concatenate(blocks).tolist()) == [i for i in range(33) if i != 4]


def test_diagnostics_count_states_and_those_whose_prefix_is_new(probe_set):
    """Class 0 is the label of two words in three; seed 0 says it everywhere, seed 1 says 1; the middle word was seen."""
    protocol = replace(STANDARD, seeds=(0, 1), folds=FOLDS)
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    shape = (1, len(FEATURES))
    log_prob = [np.where(probe_set.classes[0][:, split.test] == MISSING, 0.0, -1.0)[None] for split in splits]
    predicted = [np.full((*shape, len(split.test)), seed, np.int16) for seed, split in enumerate(splits)]
    fit = ProbeFit(np.zeros((2, *shape)), log_prob, predicted)
    evidence = collect_diagnostic_evidence([fit], np.zeros((2, *shape), int), probe_set, protocol)
    # Folds 0 and 1 have two programs each, so 4 labels a seed, and of each program one word is labelled and not seen.
    assert evidence.confusion[:, 0, :2].tolist() == [[4, 4]] * len(FEATURES)
    assert evidence.confusion.sum() == 8 * len(FEATURES)
    assert evidence.unseen.tolist() == [4.0] * len(FEATURES)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A submission that is small enough."""
    path = tmp_path / "2026-11-25_search-icml24"
    shutil.copytree(SOURCE_ROOT / "submissions" / path.name, path)
    return path


def test_a_folder_has_a_limited_number_of_files(folder):
    num_files = len(screen_folder(folder))
    (folder / "figures").mkdir(exist_ok=True)
    svg = '<svg xmlns="http://www.w3.org/2000/svg"/>'
    for number in range(100 - num_files):
        (folder / "figures" / f"{number}.svg").write_text(svg)
    assert len(screen_folder(folder)) == 100
    (folder / "figures" / "more.svg").write_text(svg)
    with pytest.raises(SubmissionError, match=r"files; a submission has at most 100$"):
        screen_folder(folder)


def test_a_folder_has_a_limited_size(folder, monkeypatch):
    assert MAX_FOLDER_BYTES == 64_000_000
    size = sum(path.stat().st_size for path in screen_folder(folder))
    monkeypatch.setattr("benchmark.submit.folder.MAX_FOLDER_BYTES", size)
    screen_folder(folder)
    monkeypatch.setattr("benchmark.submit.folder.MAX_FOLDER_BYTES", size - 1)
    with pytest.raises(
        SubmissionError, match=f"^{size:,} bytes in all; at most {size - 1:,}: put the weights on a hub"
    ):
        screen_folder(folder)
