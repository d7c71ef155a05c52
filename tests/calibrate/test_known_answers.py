"""The instrument against pseudo-models whose verdict is known: a small version of the calibration gate.

The default suite runs the gate at a budget at which every verdict is decided once the margin is three times as wide;
`pytest -m slow` runs what only the budget and the margin of a run can show.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_pair import PAIR_SUITE

from benchmark.calibrate.calibration import (
    EXPECTED_OUTCOMES,
    _CalibrationRun,
    calibrate,
    check_falling_delta,
    format_table,
)
from benchmark.calibrate.command import NUM_ALTERNATIVES, main
from benchmark.calibrate.pseudo_models import DEGRADED_SHARES, PseudoModelInputs
from benchmark.probing import control_gap as semantic_content
from benchmark.probing.control_gap import RECORD_ONLY, REPRESENTS, Evidence, sum_by_program
from benchmark.probing.full_grid import NUM_ALL_ALTERNATIVES
from benchmark.probing.labels import DROPPED, LeakError, build_probe_set, check_leaks, list_semantics
from benchmark.probing.prior import fit_step_prior
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import STANDARD
from benchmark.probing.semantic_content import GeneratedPrograms, compute_hits, summarize_hits
from benchmark.probing.state_source import RunEvidence
from benchmark.probing.verdict import verdict_from_evidence
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import blind_tasks, load_suite
from karel_env.features import FEATURES, PAPER_FEATURES

SUITE = replace(load_suite("laptop"), probe_programs=1500)
PROTOCOL = replace(STANDARD, alternatives=4, steps=200, hidden=64, copies=2, folds=5, seeds=(0, 1, 2, 3, 4))
SMALL_SUITE = replace(PAIR_SUITE, probe_programs=700)
SMALL = replace(
    PROTOCOL, steps=60, checks=2, hidden=32, batch=128, copies=1, seeds=(0, 1, 2), random_inits=2, margin=0.1
)  # fmt: skip
SMALLEST = replace(SMALL, steps=50, random_inits=1)


@pytest.fixture(scope="module")
def probe_set():
    tasks = blind_tasks(SUITE)
    return build_probe_set(tasks.programs, first_inputs(tasks), list_semantics(PROTOCOL), PROTOCOL)


def measure_cells(pair):
    """Every pseudo-model through the code that measures a model, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.calibrate.calibration.cached_trained_pair", lambda *_: pair)
        return {cell["pseudo-model"]: cell for cell in calibrate(SMALL_SUITE, SMALL, seed=0)}


@pytest.fixture(scope="module")
def cells(brief_pair):
    """The pair is hardly trained, so nothing is asked of its two cells."""
    return measure_cells(brief_pair)


@pytest.mark.slow
def test_a_trained_tracker_represents_and_a_trained_copier_does_not(small_pair):
    cells = measure_cells(small_pair)
    tracker, copier = (cells[f"trained to {task}"] for task in ("track", "copy"))
    assert tracker["found"] == tracker["expected"] == REPRESENTS
    assert tracker["skill"] > 0.5
    assert tracker["delta"][1] > SMALL.margin > STANDARD.margin
    assert copier["found"] == RECORD_ONLY
    assert copier["delta"][1] < STANDARD.margin
    assert copier["widest"] < SMALL.margin
    assert tracker["right"]
    assert copier["right"]


@pytest.mark.slow
def test_noise_knows_nothing(cells):
    assert cells["noise"]["right"]
    assert abs(cells["noise"]["skill"]) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["oracle", "oracle + recorder"])
def test_the_oracle_represents(cells, name):
    assert cells[name]["found"] == cells[name]["expected"] == REPRESENTS
    assert cells[name]["right"]
    assert cells[name]["skill"] > 0.5
    assert cells[name]["delta"][1] > SMALL.margin > STANDARD.margin


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noise", "recorder", "recorder + outputs", "random-init"])
def test_who_keeps_no_state_is_not_found_to_represent(cells, name):
    assert cells[name]["found"] == RECORD_ONLY
    assert cells[name]["right"]
    assert cells[name]["delta"][1] < STANDARD.margin
    assert cells[name]["widest"] < SMALL.margin


@pytest.mark.slow
@pytest.mark.parametrize("name", ["future oracle", "planted layer"])
def test_the_place_of_the_state_is_found(cells, name):
    assert cells[name]["found"] == cells[name]["expected"]
    gaps = cells[name]["gaps"]
    values = sorted(gaps.values() if isinstance(gaps, dict) else gaps)
    assert values[-1] > 0.5
    assert values[-1] > 1.5 * values[-2]


@pytest.mark.slow
def test_at_the_full_budget_a_recorder_is_found_to_be_one():
    """The standard protocol at 5,000 programs, as calibrated; a smaller budget is INCONCLUSIVE, since it cannot tell.

    Its sibling in the default suite is the recorder of `cells`, within a margin that a smaller budget can decide.
    """
    protocol = replace(STANDARD, alternatives=NUM_ALTERNATIVES)
    bench = _CalibrationRun(replace(load_suite("laptop"), seed=99, sha256="", official=False), protocol, 3)
    cell = bench.measure_cell("recorder", [[bench.content.pseudo_models()["recorder"]]], bench.controls())
    assert cell["found"] == cell["expected"] == EXPECTED_OUTCOMES["recorder"] == RECORD_ONLY
    assert cell["right"]
    assert cell["widest"] < STANDARD.margin
    assert cell["skill"] > 0.4


GRIDS = (STANDARD.alternatives, NUM_ALL_ALTERNATIVES)
"""Alternatives of the verdict in the standard and in the full grid."""


def verdicts(suite, protocol, counts, names):
    """For each number of alternatives, the verdicts of the pseudo-models of these names.

    The probes are fitted once, with all alternatives: a network of one semantics does not depend on those beside it
    (`test_fewer_alternatives_are_a_part_of_more`), so that fewer alternatives are a part of the evidence.
    """
    bench = _CalibrationRun(suite, replace(protocol, alternatives=max(counts)), 3)
    pseudo_models, controls = bench.content.pseudo_models(), bench.controls()
    evidence = {name: evidence_of({"model": bench.read_source([[pseudo_models[name]]]), **controls}) for name in names}
    results = []
    for count in counts:
        smaller = replace(protocol, alternatives=count)
        columns = [bench.probe_set.semantics.index(semantics.name) for semantics in list_semantics(smaller)]
        probe_set, tested = part_of(bench.probe_set, columns, smaller)
        parts = {name: columns_of(sources, columns) for name, sources in evidence.items()}
        results.append(
            {name: verdict_from_evidence(probe_set, tested, parts[name], smaller, ["view 0"]).verdict for name in names}
        )
    return results


def part_of(probe_set, columns, protocol):
    """The labels and the prior of some of the semantics."""
    names = tuple(probe_set.semantics[column] for column in columns)
    part = replace(probe_set, classes_by_offset=probe_set.classes_by_offset[:, columns], semantics=names)
    return part, semantic_content.PriorBaseline.from_probe_set(part, protocol)


def evidence_of(sources):
    """The evidence of probed sources, by name."""
    return {name: source.evidence for name, source in sources.items()}


def columns_of(evidence, columns):
    """The evidence of some of the semantics: [S, F, U] of a source's sums, [Q, S, F] of its other arrays."""
    return {
        name: Evidence(source.probe[columns], source.totals[:, columns], source.pool[:, columns])
        for name, source in evidence.items()
    }


def test_fewer_alternatives_are_a_part_of_more():
    """Exactly: labels, controls, evidence and verdict of a bench with 3 alternatives, from one with 18 that holds them."""
    tiny = replace(SMALLEST, steps=6, checks=1, hidden=8, copies=2)
    few, many = (
        _CalibrationRun(replace(SMALL_SUITE, probe_programs=150), replace(tiny, alternatives=n), 3) for n in (3, 18)
    )
    columns = [many.probe_set.semantics.index(name) for name in few.probe_set.semantics]
    assert columns != [0, 1, 2, 3]
    probe_set, tested = part_of(many.probe_set, columns, tiny)
    np.testing.assert_array_equal(probe_set.classes_by_offset, few.probe_set.classes_by_offset)
    states = few.content.random_init(1)
    evidence = [evidence_of({"model": bench.read_source([[states]]), **bench.controls()}) for bench in (few, many)]
    parts = columns_of(evidence[1], columns)
    stored = RunEvidence(parts).to_arrays()
    for name, array in RunEvidence(evidence[0]).to_arrays().items():
        np.testing.assert_array_equal(stored[name], array, err_msg=name)
    again = verdict_from_evidence(probe_set, tested, parts, tiny, ["view 0"])
    assert again == verdict_from_evidence(few.probe_set, few.tested, evidence[0], tiny, ["view 0"])


@pytest.mark.slow
def test_the_verdicts_of_both_grids_agree_on_who_represents():
    """At this budget what does not is INCONCLUSIVE or RECORD-ONLY."""
    standard, full = verdicts(SMALL_SUITE, SMALLEST, GRIDS, ("recorder", "oracle + recorder"))
    assert standard["oracle + recorder"] == full["oracle + recorder"] == REPRESENTS
    assert REPRESENTS not in (standard["recorder"], full["recorder"])


@pytest.mark.slow
def test_the_verdicts_of_both_grids_agree():
    """At the budget and with the settings of a run."""
    names = ("noise", "recorder", "oracle", "oracle + recorder", f"oracle degraded {DEGRADED_SHARES[0]:.0%}")
    standard, full = verdicts(load_suite("laptop"), STANDARD, GRIDS, names)
    assert standard == full
    assert standard["recorder"] == standard["noise"] == RECORD_ONLY
    assert standard["oracle"] == REPRESENTS


@pytest.mark.slow
def test_the_oracle_of_an_alternative_has_a_negative_gap_for_it(cells):
    (cell,) = (cell for name, cell in cells.items() if name.startswith("oracle of "))
    assert cell["right"]
    assert cell["found"] != REPRESENTS
    assert cell["delta"][0] < 0


@pytest.mark.slow
def test_delta_falls_as_the_oracle_is_degraded(cells):
    deltas = [cells[name]["delta"][0] for name in ("oracle", *(f"oracle degraded {p:.0%}" for p in DEGRADED_SHARES))]
    assert deltas == sorted(deltas, reverse=True)
    assert deltas[0] > 2 * max(deltas[-1], 0)
    assert all(cells[f"oracle degraded {p:.0%}"]["right"] for p in DEGRADED_SHARES)


@pytest.mark.slow
def test_a_judgement_can_be_wrong(cells):
    """Positive control: an oracle that falls short of REPRESENTS, and a delta that rises, are counted as wrong."""
    oracle, degraded = dict(cells["oracle"]), dict(cells["oracle degraded 25%"])
    shown = format_table([oracle | {"found": "INCONCLUSIVE", "right": False}])
    assert "0/1" in shown
    assert "INCONCLUSIVE 1" in shown
    rising = [
        oracle,
        degraded | {"delta": [9.0, 9.0, 9.0]},
        *(dict(cells[f"oracle degraded {p:.0%}"]) for p in DEGRADED_SHARES[1:]),
    ]
    assert [cell["right"] for cell in check_falling_delta(rising)[1:]] == [False, True, True]


@pytest.mark.slow
def test_the_command_computes_a_seed_once(monkeypatch, tmp_path, capsys, cells):
    called = []
    monkeypatch.setattr(
        "benchmark.calibrate.calibration.calibrate", lambda *a: called.append(a[2]) or list(cells.values())
    )
    for _ in range(2):
        assert main(["--seeds", "2", "--programs", "1500", "--out", str(tmp_path)]) == 0
    assert called == [0, 1]
    out = capsys.readouterr().out
    assert "2/2" in out
    assert "false REPRESENTS: 0" in out
    assert main(["--seeds", "0", "--out", str(tmp_path)]) == 2
    assert main(["--programs", "5", "--out", str(tmp_path)]) == 2
    assert main(["--alternatives", "1", "--out", str(tmp_path)]) == 2
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["false_represents"] == [0, 12]
    assert len(stored["cells"]) == 2 * len(cells)


def test_pseudo_models_hold_what_is_said(probe_set):
    """Least squares recovers the state from the oracle exactly, from the recorder the words, from noise nothing."""
    tasks = blind_tasks(SUITE)
    content = PseudoModelInputs(tasks.programs, first_inputs(tasks), probe_set, 3)
    made = content.pseudo_models()
    state = np.eye(4)[probe_set.classes[0, FEATURES.index("facing")]]
    last = np.eye(5)[tasks.programs.words[tasks.programs.offsets[probe_set.program] + 3 + probe_set.word]]

    def explained(states: np.ndarray, wanted: np.ndarray) -> float:
        columns = np.concatenate([states, np.ones((len(states), 1))], 1)
        rest = wanted - columns @ np.linalg.lstsq(columns, wanted, rcond=None)[0]
        return 1 - float((rest**2).sum() / ((wanted - wanted.mean(0)) ** 2).sum())

    assert explained(made["oracle"], state) > 0.99
    assert explained(made["recorder"], last) < 0.99 < explained(made["recorder"], first_word(tasks, probe_set))
    assert explained(made["recorder"], state) < 0.5
    assert explained(made["noise"], state) < 0.05
    assert explained(made["random-init"], last) > 0.5
    shares = [explained(made[f"oracle degraded {p:.0%}"], state) for p in DEGRADED_SHARES]
    assert shares == sorted(shares, reverse=True)
    again = PseudoModelInputs(tasks.programs, first_inputs(tasks), probe_set, 3).pseudo_models()
    assert list(made) == list(again)
    for name, states in made.items():
        np.testing.assert_array_equal(states, again[name])


def first_word(tasks, probe_set) -> np.ndarray:
    return np.eye(5)[tasks.programs.words[tasks.programs.offsets[probe_set.program] + 3]]


def test_every_program_is_tested_once_and_no_prefix_in_its_world_was_trained_on(probe_set):
    tasks = blind_tasks(SUITE)
    worlds = first_inputs(tasks)

    def prefix(row: int) -> tuple[bytes, bytes, bytes]:
        b = probe_set.program[row]
        words = tasks.programs.program(b)[: 4 + probe_set.word[row]]
        return words.tobytes(), worlds.cells[b].tobytes(), worlds.robot[b].tobytes()

    tested = []
    for seed in range(PROTOCOL.folds):
        split = probe_set.split(seed)
        others = {prefix(row) for row in (*split.train, *split.validation)}
        assert not others & {prefix(row) for row in split.test}
        assert not {prefix(row) for row in split.train} & {prefix(row) for row in split.validation}
        programs = [set(probe_set.program[rows]) for rows in (split.train, split.validation, split.test)]
        assert sum(map(len, programs)) == len(set.union(*programs))
        assert len(programs[0]) > 2.5 * len(programs[2])
        tested += programs[2]
    kept = np.flatnonzero(probe_set.fold != DROPPED)
    assert sorted(tested) == kept.tolist()
    assert len(kept) > 0.97 * len(probe_set.fold)


def test_seen_prefixes_are_those_of_the_training_programs(probe_set):
    programs = blind_tasks(SUITE).programs
    split = probe_set.split(2)

    def prefix(row: int) -> bytes:
        return programs.program(probe_set.program[row])[: 4 + probe_set.word[row]].tobytes()

    trained = {prefix(row) for row in split.train}
    expected = [prefix(row) in trained for row in split.test]
    assert probe_set.is_seen[split.test].tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_a_leak_is_an_error(probe_set):
    tasks = blind_tasks(SUITE)
    worlds = [w.tobytes() for w in first_inputs(tasks).cells]
    with pytest.raises(LeakError, match="shares an action prefix"):
        check_leaks([b"x", b"x"], [worlds[0], worlds[0]], np.array([0, 1]), np.array([0, 1], np.int8))
    check_leaks([b"x", b"x"], [worlds[0], worlds[0]], np.array([0, 1]), np.array([0, DROPPED], np.int8))


def test_the_prior_is_the_frequency_of_the_step(probe_set):
    split = probe_set.split(1)
    found = fit_step_prior(probe_set, split)
    f, step = FEATURES.index("facing"), 3
    label = probe_set.classes[0, f]
    counted = label[split.train[probe_set.step[split.train] == step]]
    expected = np.log((np.bincount(counted, minlength=4) + 1) / (len(counted) + 4))
    at = split.test[probe_set.step[split.test] == step]
    there = probe_set.step[split.test] == step
    np.testing.assert_allclose(found.log_prob[0, f, there], expected[label[at]])
    assert np.array_equal(found.correct[0, f, there], label[at] == expected.argmax())


def test_evidence_sums_each_program_once(probe_set):
    """Against plain sums: a program's figure is the mean over the seeds that test it, a seed's that of its fold."""
    rng = np.random.default_rng(0)
    seeds = (0, 1, 2, 3, 4, 1)
    splits = [probe_set.split(seed) for seed in seeds]
    values = [rng.normal(size=(2, len(split.test))) for split in splits]
    whole, totals = sum_by_program(values, splits, probe_set)
    sums: dict[int, list[np.ndarray]] = {}
    for value, split in zip(values, splits, strict=True):
        for b in np.unique(probe_set.program[split.test]):
            sums.setdefault(b, []).append(value[:, probe_set.program[split.test] == b].sum(1))
    expected = np.stack([np.mean(sums[b], 0) for b in sorted(sums)], 1)
    np.testing.assert_allclose(whole, expected)
    np.testing.assert_allclose(totals, [value.sum(1) for value in values])


def test_content_counts_a_feature_only_if_all_its_heads_are_right(probe_set):
    """Against plain counting, with hits of which one feature's heads differ and one distinct program in three copies."""
    rng = np.random.default_rng(4)
    splits = [probe_set.split(seed) for seed in PROTOCOL.seeds]
    heads = sum(map(len, PAPER_FEATURES))
    labels = probe_set.classes[0, [FEATURES.index(name) for group in PAPER_FEATURES for name in group]][:, None]
    correct = [rng.random((heads, 1, len(split.test))) < 0.7 for split in splits]
    said = [np.where(c, labels[..., s.test], labels[..., s.test] + 1) for c, s in zip(correct, splits, strict=True)]
    kind = np.arange(len(probe_set.fold)) // 3
    fit = ProbeFit(np.zeros((len(splits), heads, 1)), [np.zeros_like(one, float) for one in correct], said)
    probed = GeneratedPrograms(probe_set, splits, kind, len(np.unique(kind)))
    found, geometric = summarize_hits(compute_hits(fit, probed), probed, PROTOCOL)
    whole = np.concatenate([one[:, 0] for one in correct], 1)
    assert PAPER_FEATURES[1] == ("start_x", "start_y")
    expected = [whole[0].mean(), (whole[1] & whole[2]).mean(), whole[3].mean()]
    assert found.value == pytest.approx(np.mean(expected))
    assert geometric == pytest.approx(np.prod(expected) ** (1 / 3))
    kept = probe_set.fold != DROPPED
    assert found.n == len(np.unique(kind[kept]))
    assert found.high - found.low < 0.05


def test_every_semantics_has_the_same_label_frequencies(probe_set):
    """Exchangeable tokens and headings: facing is uniform under each semantics, within sampling noise."""
    f = FEATURES.index("facing")
    counts = np.stack([np.bincount(classes, minlength=4) / classes.size for classes in probe_set.classes[:, f]])
    assert np.abs(counts - 0.25).max() < 0.03
