"""Rotation and displacement with sampled records: labels, controls and verdicts on programs with control flow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from worlds import WORLDS_SUITE

from benchmark.calibrate.relative.calibration import calibration_protocol, format_table, measure_cell, random_networks
from benchmark.calibrate.relative.kinds import ControlKinds
from benchmark.errors import UsageError
from benchmark.probing.control_gap import REPRESENTS
from benchmark.probing.labels import MISSING
from benchmark.probing.token_history import token_history_states
from benchmark.probing.version4.measure_rotation import prefix_history_states, relative_probe_set
from benchmark.probing.version4.readable_record import RECORDS
from benchmark.probing.version4.rotation_evidence import judge_rows
from benchmark.probing.version4.rotation_interval import compute_skills
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_sources import execute_records
from benchmark.probing.version4.turn_pairs import ALL_PAIRS
from benchmark.relative import measure
from benchmark.relative.blind_programs import draw_blind_programs, draw_screen_programs
from benchmark.relative.command import main
from benchmark.relative.conditions import condition_probe_set
from benchmark.relative.control_labels import FIRST_JUDGED, SEMANTICS, build_control_probe_set
from benchmark.relative.measure import RelativeSuite
from benchmark.relative.sampled_records import sample_records
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import SUITE_FOLDER, load_suite
from karel_env.execution.interpreter import run
from karel_env.language import FIRST_CONDITION, FIRST_COUNT, HEADER

PROTOCOL = replace(
    ROTATION_STANDARD, prompts=80, folds=3, seeds=(0, 1, 2), units=45, min_unseen=50, steps=50, batch=64, hidden=16,
    checks=1, resamples=200, random_inits=2,
)  # fmt: skip
CONTROL = load_suite("control")
SMALL = replace(CONTROL, recipe=replace(CONTROL.recipe, height=(6, 6), width=(6, 6)), blind_length=9)


@pytest.fixture(scope="module")
def suite() -> RelativeSuite:
    """A small suite whose token history has the action words only: that of all words has 1,800 columns."""
    suite = RelativeSuite(SMALL, PROTOCOL, num_samples=8, screen_programs=1500)
    words = (suite.probe_set.prefixes[..., None] == np.arange(5)).reshape(len(suite.probe_set.row), -1)
    vars(suite)["history"] = suite.probe([[words.astype(np.float32)]])
    return suite


@pytest.fixture(scope="module")
def kinds(suite) -> ControlKinds:
    return ControlKinds(suite, 0)


def test_labels_of_straight_line_programs_are_those_of_protocol_4() -> None:
    blind = shared_prompts(load_suite(WORLDS_SUITE))
    expected = relative_probe_set(blind, PROTOCOL, 400)
    tasks = blind.tasks
    measured = build_control_probe_set(tasks.programs, tasks.inputs[:, 0], blind.group, PROTOCOL, 400)
    for name in ("program", "word", "step", "prefixes", "classes", "start_heading", "counts", "cluster"):
        assert (getattr(measured, name) == getattr(expected, name)).all(), name
    split = measured.split(1)
    assert (measured.is_unseen(split, split.test) == expected.is_unseen(split, split.test)).all()
    assert measured.num_words == measured.num_executed == len(measured.row)


def test_prompts_with_control_flow_are_shared_and_distinct(suite) -> None:
    blind = draw_blind_programs(SMALL, PROTOCOL)
    texts = blind.tasks.programs.texts()
    assert len(set(texts)) == len(texts) == 4 * PROTOCOL.prompts
    assert np.bincount(blind.prompt).tolist() == [4] * PROTOCOL.prompts
    worlds = [world.tobytes() for world in blind.tasks.inputs.cells]
    assert len(set(worlds)) == PROTOCOL.prompts
    assert any("while" in text for text in texts)
    assert suite.blind.tasks.programs.texts() == texts


def test_judged_words_have_texts_and_actions_of_their_own(suite) -> None:
    probe_set = suite.probe_set
    split = probe_set.split(0)
    is_unseen = probe_set.is_unseen(split, split.test)
    texts = suite.blind.tasks.programs.texts()
    offset = len(HEADER)

    def prefix(row: int) -> tuple[str, ...]:
        words = texts[probe_set.program[row]].replace("(not ", "(not~").split()
        return tuple(words[: probe_set.word[row] + offset + 1])

    trained = {prefix(row) for row in split.train}
    for row, unseen in zip(split.test, is_unseen, strict=True):
        before = probe_set.step[row] >= FIRST_JUDGED
        if not any("(not~" in word for word in prefix(row)):
            assert unseen == (before and prefix(row) not in trained)
    assert 0 < is_unseen.sum() < len(is_unseen)


def test_every_row_has_all_labels_and_prefixes_are_in_the_order_of_the_text(suite) -> None:
    probe_set = suite.probe_set
    assert (probe_set.classes[: len(SEMANTICS)] != MISSING).all()
    assert (probe_set.classes[:, 0] != MISSING).all()
    assert len(probe_set.row) < probe_set.num_executed < probe_set.num_words
    words = probe_set.words(np.arange(len(probe_set.row)))
    flat = suite.blind.tasks.programs
    assert (flat.words[flat.offsets[words.program] + len(HEADER) + words.word] == words.action).all()


def test_values_of_conditions_are_those_of_the_interpreter(suite) -> None:
    conditions = condition_probe_set(suite.probe_set)
    programs = suite.blind.tasks.programs
    trace = run(programs, suite.blind.tasks.inputs[:, 0], max_events=SMALL.recipe.events, trace=True).trace
    for row in range(0, len(conditions.row), 7):
        b = conditions.program[row]
        at = conditions.word[row] + len(HEADER)
        events = slice(trace.offsets[b], trace.offsets[b + 1])
        first = np.flatnonzero(trace.word[events] == at)[0]
        assert conditions.classes[0, 0, row] == trace.value[events][first]
        assert trace.word[events][: first + 1].max() == at
        assert FIRST_CONDITION <= programs.program(b)[at] < FIRST_COUNT
    assert set(np.unique(conditions.classes[:, 0])) == {0, 1}


def test_a_state_is_found_and_words_are_not(kinds) -> None:
    networks = random_networks(kinds)
    cells = {name: measure_cell(kinds, name, networks) for name in ("rotation", "action words")}
    assert all(cell["right"] for cell in cells.values())
    assert cells["rotation"]["found"] == REPRESENTS
    assert "REPRESENTS" in format_table(list(cells.values()))


def test_sampled_records_are_as_good_as_exact_ones_on_straight_line_programs() -> None:
    worlds = load_suite(WORLDS_SUITE)
    protocol = replace(PROTOCOL, prompts=100, hidden=32)
    blind = shared_prompts(worlds).take_prompts(100)
    tasks = blind.tasks
    probe_set = build_control_probe_set(tasks.programs, tasks.inputs[:, 0], blind.group, protocol, 400)
    rows = judge_rows(probe_set, protocol)
    views = [prefix_history_states(probe_set, tasks.inputs[:, 0])]
    exact = execute_records(probe_set, rows, views, protocol)
    sampled = sample_records(probe_set, rows, views, protocol, num_samples=48)
    weights = np.ones((1, rows.num_rows.shape[2]))
    for name in RECORDS:
        skills = [compute_skills(source[name], rows.prior, weights).value for source in (exact, sampled)]
        # Sampled counts add up to the number of words, which the exact record does not know.
        expected = np.maximum(*skills) if name == "record-counts" else skills[0]
        assert skills[1] == pytest.approx(expected, abs=0.06), name
        assert (exact[name].heads == pytest.approx(sampled[name].heads, abs=1e-5)) or name != RECORDS[0]
        assert np.isfinite(sampled[name].displacement).all()
        assert len(skills[0]) == len(ALL_PAIRS)


def test_displacement_has_records_and_an_adjusted_p(suite, kinds) -> None:
    result = suite.measure([kinds.state.astype(np.float32)], None)
    forward, sideways = result.displacement
    assert set(forward.control_gaps) == {*RECORDS, "token-history"}
    assert forward.skill.value > 0.2
    assert forward.p_holm >= forward.p
    assert min(forward.p_holm, sideways.p_holm) == pytest.approx(2 * min(forward.p, sideways.p), rel=1e-6)
    if forward.delta.low > 0:
        assert forward.p < 0.025
    assert result.conditions is None


def test_a_suite_whose_alternatives_follow_from_the_state_is_refused(suite, kinds) -> None:
    strict = RelativeSuite(SMALL, replace(PROTOCOL, derivable=-1.0), screen_programs=300)
    with pytest.raises(UsageError, match="blind_length"):
        strict.measure([kinds.state.astype(np.float32)])


def test_the_command_measures_a_model(tiny_folder, tmp_path, capsys, monkeypatch, recorded_progress) -> None:
    from benchmark.probing.version4 import rotation_protocol

    definition = yaml.safe_load((Path(SUITE_FOLDER) / "control.yaml").read_text())
    definition["draw"] |= {"height": 6, "width": 6}
    definition |= {"sha256": "", "shown": 2}
    definition["probe"] = {"programs": 200, "blind_length": 9}
    path = tmp_path / "branches.yaml"
    path.write_text(yaml.safe_dump(definition))
    monkeypatch.setattr(rotation_protocol, "ROTATION_STANDARD", replace(PROTOCOL, steps=4, hidden=8))
    monkeypatch.setattr(measure, "token_history_states", lambda *words: token_history_states(*words)[:, ::30])
    monkeypatch.setattr(measure, "draw_screen_programs", lambda suite, count: draw_screen_programs(suite, 300))
    out = tmp_path / "out"
    options = ["--suite", str(path), "--prompts", "30", "--copies", "1", "--samples", "8", "--output-dir", str(out)]
    assert main(["--model", f"path:{tiny_folder}", *options]) == 0
    printed = capsys.readouterr().out
    assert "decides nothing" in printed
    assert list(recorded_progress.stages) == ["reading the model", "reading randomly initialised copy 0", "probing"]
    assert "values of conditions" in printed
    stored = json.loads(next(out.glob("*-branches.json")).read_text())
    assert stored["labelled"] < stored["words"]
    assert {figure["feature"] for figure in stored["displacement"]} == {"forward", "sideways"}
    assert set(stored["displacement"][0]["control_gaps"]) == {*RECORDS, "token-history", "random-init"}


@pytest.mark.slow
def test_known_answers_on_control() -> None:
    """The table of docs/protocol4.md in part: 2,400 programs."""
    kinds = ControlKinds(RelativeSuite(CONTROL, calibration_protocol(600, 3), num_samples=32), 0)
    networks = random_networks(kinds)
    for name in ("token history", "action words, keeps .90 / .60", "rotation", "state and action words"):
        assert measure_cell(kinds, name, networks)["right"], name
