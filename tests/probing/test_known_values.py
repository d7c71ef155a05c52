"""Folds, intervals, scores, differences and readouts on small inputs with known values."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from benchmark.board.comparison import ComparedRun, compare_pass_rate
from benchmark.probing.control_gap import gather_evidence, select_pool
from benchmark.probing.labels import DROPPED, ProbeSet, drop_shared, prefix_in_training
from benchmark.probing.prior import LabelPrior
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import STANDARD
from benchmark.statistics import wilson
from benchmark.tasks.scoring import score_programs, summarize
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env import screen
from karel_env.execution.interpreter import run
from karel_env.features import FEATURES
from karel_env.language import HEADER_TEXT, Programs
from karel_env.syntax.parser import parse
from karel_env.world import Worlds, parse_world

FOLDS, PROGRAMS = 5, 23


@pytest.fixture(scope="module")
def probe_set() -> ProbeSet:
    """23 programs of two tokens; program i is in fold i modulo 5, the last one is dropped."""
    fold = (np.arange(PROGRAMS) % FOLDS).astype(np.int8)
    fold[-1] = DROPPED
    rows = 2 * PROGRAMS
    return ProbeSet(
        program=np.repeat(np.arange(PROGRAMS), 2),
        word=np.tile([0, 1], PROGRAMS),
        step=np.tile([0, 1], PROGRAMS),
        classes_by_offset=np.zeros((1, 1, len(FEATURES), rows), np.int16),
        offsets=(0,),
        counts=np.full(len(FEATURES), 2),
        fold=fold,
        folds=FOLDS,
        is_seen=np.zeros(rows, bool),
        semantics=("original",),
    )


def programs_of(probe_set: ProbeSet, rows: np.ndarray) -> list[int]:
    """The programs of these rows, of which both tokens must be included."""
    programs, counts = np.unique(probe_set.program[rows], return_counts=True)
    assert (counts == 2).all()
    return programs.tolist()


@pytest.mark.parametrize("seed", range(2 * FOLDS))
def test_each_fold_has_one_role_per_seed(probe_set, seed):
    """One fold is for testing, the next for validation, and all others for training."""
    split = probe_set.split(seed)
    in_fold = {k: [i for i in range(PROGRAMS - 1) if i % FOLDS == k % FOLDS] for k in range(FOLDS)}
    test, validation = seed % FOLDS, (seed + 1) % FOLDS
    training_folds = sorted(i for k in range(FOLDS) if k not in (test, validation) for i in in_fold[k])
    assert programs_of(probe_set, split.test) == in_fold[test]
    assert programs_of(probe_set, split.validation) == in_fold[validation]
    assert programs_of(probe_set, split.train) == training_folds
    assert len(split.train) + len(split.validation) + len(split.test) == 2 * (PROGRAMS - 1)


def test_as_many_seeds_as_folds_test_every_program_once(probe_set):
    tested = np.concatenate([probe_set.split(seed).test for seed in range(FOLDS)])
    assert sorted(tested.tolist()) == list(range(2 * (PROGRAMS - 1)))
    limited = replace(probe_set, budget=7)
    trained = {tuple(programs_of(limited, limited.split(seed).train)) for seed in range(FOLDS)}
    assert {len(programs) for programs in trained} == {7}
    assert {i for programs in trained for i in programs} == set(range(PROGRAMS - 1)), "seeds share few programs"


def test_is_seen_if_a_training_fold_has_the_prefix():
    """Not counted: the token's own fold, the validation fold of its test, and dropped programs."""
    fold = np.array([0, 1, 2, DROPPED, 4, 0, 3], np.int8)
    for training_folds, expected in (
        ([1], False),
        ([2], True),
        ([3], False),
        ([4], True),
        ([5], False),
        ([1, 6], True),
    ):
        prefixes = [b"a" if row == 0 or row in training_folds else bytes([row]) for row in range(len(fold))]
        assert prefix_in_training(prefixes, fold, FOLDS)[0] == expected, training_folds


def test_the_later_fold_drops_a_program_with_a_shared_prefix():
    cells = np.zeros((4, 1, 1), np.int16)
    cells[3] = 1
    worlds = Worlds(cells, np.zeros((4, 3), np.int16), np.ones((4, 2), np.int16))
    fold = np.array([1, 0, 1, 2], np.int8)
    dropped = drop_shared([b"a", b"a", b"b", b"a"], worlds, np.arange(4), fold, FOLDS)
    assert dropped.tolist() == [DROPPED, 0, 1, 2], "the last has the prefix in another world"


# Newcombe 1998, Table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29 by the score method without continuity correction.
@pytest.mark.parametrize(
    ("successes", "n", "low", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_the_published_table(successes, n, low, upper):
    estimate = wilson(successes, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, upper), abs=5e-5)
    assert (estimate.value, estimate.n) == (successes / n, n)


@pytest.mark.parametrize(("level", "z"), [(0.90, 1.6448536269514722), (0.95, 1.959963984540054)])
def test_wilson_matches_the_closed_form(level, z):
    for n in (1, 2, 7, 40, 1000):
        for successes in {0, 1, n // 3, n - 1, n}:
            p = successes / n
            centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
            half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
            estimate = wilson(successes, n, level)
            assert estimate.value == pytest.approx(p, abs=1e-15)
            assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half), abs=1e-9)
            assert estimate.n == n


def test_shown_and_held_out_are_scored_by_their_own_examples():
    """Reference programs against outputs that are altered in shown or in held-out examples only."""
    suite = load_suite("smoke")
    tasks = tasks_of(suite).take(np.arange(3))
    texts = [text.removeprefix(HEADER_TEXT) for text in tasks.programs.texts()]
    headings = tasks.outputs.robot.copy()
    headings[0, : suite.shown, 2] = (headings[0, : suite.shown, 2] + 1) % 4
    headings[1, suite.shown :, 2] = (headings[1, suite.shown :, 2] + 1) % 4
    altered = replace(tasks, outputs=replace(tasks.outputs, robot=headings))
    scores = score_programs(suite, altered, texts)
    assert scores.shown.tolist() == [False, True, True]
    assert scores.shown_state.tolist() == [False, True, True]
    assert scores.held_out.tolist() == [True, False, True]
    summary = summarize(replace(scores, held_out=np.array([False, False, True])))
    assert (summary.shown.value, summary.held_out.value, summary.both.value) == pytest.approx((2 / 3, 1 / 3, 1 / 3))


def test_difference_is_first_minus_second():
    """40 tasks with distinct programs: 12 are solved by the first only, 2 by the second only."""
    first, second = np.zeros(40, bool), np.zeros(40, bool)
    first[:20], second[12:22] = True, True
    one, other = (ComparedRun(None, None, {"held_out": hits}) for hits in (first, second))
    contrast = compare_pass_rate("held_out", one, other, np.arange(40), replace(STANDARD, resamples=200))
    assert (contrast.first, contrast.second) == (0.5, 0.25)
    assert contrast.difference.value == pytest.approx(0.25)
    assert contrast.discordant == (12, 2)
    assert 0 < contrast.difference.low < 0.25 < contrast.difference.high
    back = compare_pass_rate("held_out", other, one, np.arange(40), replace(STANDARD, resamples=200))
    assert (back.difference.value, back.discordant, back.p) == (-contrast.difference.value, (2, 12), contrast.p)


def test_view_selection_and_fallback_to_the_prior(probe_set):
    """One semantics, two seeds; of two views one is better with the first seed, and none beats the prior with the other."""
    protocol = replace(STANDARD, seeds=(0, 1), folds=FOLDS)
    rows = [len(probe_set.split(seed).test) for seed in protocol.seeds]
    shape = (1, len(FEATURES))

    def fit(validation: tuple[float, float], nats: float) -> ProbeFit:
        return ProbeFit(
            np.stack([np.full(shape, value) for value in validation]),
            [np.full((*shape, n), -nats) for n in rows],
            [np.zeros((*shape, n), np.int16) for n in rows],
        )

    fits = [fit((0.9, 1.3), 3.0), fit((0.5, 1.2), 2.0)]
    pool = select_pool(fits)
    assert (pool == 1).all()
    priors = [
        LabelPrior(np.full(shape, 1.0), np.full((*shape, n), -7.0), np.zeros((*shape, n), bool)) for n in rows
    ]  # fmt: skip
    totals = gather_evidence(fits, pool, probe_set, _Priors(priors), protocol).totals
    assert totals[0] == pytest.approx(np.full(shape, 2.0 * rows[0]))
    assert totals[1] == pytest.approx(np.full(shape, 7.0 * rows[1]))


class _Priors:
    """The part of `PriorBaseline` that `gather_evidence` uses."""

    def __init__(self, priors: list[LabelPrior]) -> None:
        self.priors = priors


def test_the_budget_ends_an_execution_before_the_next_event():
    programs = Programs.of([parse("def run() { turn_left(); turn_left(); turn_left() }")])
    for budget, status, left in ((3, 0, 3), (2, 2, 2), (0, 2, 0)):
        execution = run(programs, parse_world("> .")[None], max_events=budget)
        assert execution.status.tolist() == [status]
        assert execution.events.tolist() == [left]
        assert execution.worlds.robot[0, 2] == (1 - left) % 4


def test_the_screen_keeps_alternatives_below_the_threshold(monkeypatch):
    skills = {"under": screen.THRESHOLD - 1e-4, "at": screen.THRESHOLD, "over": screen.THRESHOLD + 0.5}
    monkeypatch.setattr(screen, "table", lambda: {name: dict.fromkeys(FEATURES, v) for name, v in skills.items()})
    assert screen.valid_alternatives("facing") == ("under",)
