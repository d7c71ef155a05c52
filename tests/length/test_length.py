"""States that keep, lose, move or only record the rotation in longer programs get the figures that they must."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmark.calibrate import planners
from benchmark.calibrate.planners import PLANNER, UNREAD, Planner, PlannerWorld
from benchmark.causal.pairs import STANDARD_PAIRS, derive_pairs
from benchmark.errors import UsageError
from benchmark.length import measurement
from benchmark.length.command import main
from benchmark.length.context_limit import ContextLimit, read_limit
from benchmark.length.long_programs import LABELS, check_suite, draw_long_programs
from benchmark.length.longer_prefixes import long_prefix_suite, measure_long_prefixes
from benchmark.length.longer_tasks import draw_longer_tasks, needs_longer, score_longer_tasks
from benchmark.length.measurement import curves
from benchmark.length.skills import list_stretches
from benchmark.length.word_losses import LengthProbes
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import Generation, ModelSpec
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.turn_pairs import NUM_ROTATIONS
from benchmark.tasks.suite import load_suite
from karel_env.language import HEADER_TEXT

SMOKE = load_suite("smoke")
BASE, WORDS = 6, 12
PROTOCOL = replace(
    ROTATION_STANDARD, folds=4, steps=60, hidden=24, batch=128, checks=1, resamples=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def programs():
    return draw_long_programs(SMOKE, WORDS // BASE, 100)


@pytest.fixture(scope="module")
def kinds(programs):
    """Curves and carried curve by kind of states."""
    random = np.random.default_rng(0)
    rotation = programs.labels[0].astype(int)
    is_late = programs.step >= BASE
    one_hot = np.eye(NUM_ROTATIONS)
    moved = np.concatenate([one_hot[rotation] * ~is_late[:, None], one_hot[rotation] * is_late[:, None]], 1)
    lost = one_hot[np.where(is_late, random.integers(NUM_ROTATIONS, size=len(rotation)), rotation)]
    states = {
        "kept": one_hot[rotation],
        "lost": lost,
        "moved": moved,
        "record": programs.history_states()[:, : 5 * WORDS],
    }
    probes = LengthProbes(programs, PROTOCOL, (0,))
    results = {}
    for name, columns in states.items():
        mixing = random.normal(size=(columns.shape[1],) * 2) / np.sqrt(columns.shape[1])
        noise = 0.01 * random.normal(size=columns.shape)
        views = {"model": [(columns @ mixing + noise).astype(np.float32)]}
        results[name] = curves(probes, views, [BASE, WORDS] if name == "kept" else [WORDS], BASE)
    return results


def figures(curve, name):
    return [stretch.figures[name] for stretch in curve.stretches]


def test_a_state_that_is_kept_is_read_at_every_word_by_the_probes_of_the_first(kinds):
    rotation, carried = kinds["kept"]
    for curve in rotation:
        assert all(e.low > 0.9 for e in figures(curve, "model skill"))
        assert all(e.low > 0.3 for e in figures(curve, "surplus"))
        assert all(e.low > 0.9 for e in figures(curve, "model gap"))
    assert all(e.low > 0.9 for e in figures(carried, "model carried skill"))
    assert all(e.low > 0.97 for e in figures(carried, "model carried accuracy"))
    # The probes of both are the same, and so are their figures where they are tested on the same words.
    same = [curve.stretches[0].figures for curve in (rotation[0], carried)]
    assert same[0]["model skill"].value == pytest.approx(same[1]["model carried skill"].value, abs=1e-6)


def test_a_state_that_is_lost_after_the_training_length_is_not_read_there(kinds):
    (curve,), carried = kinds["lost"]
    first, later = figures(curve, "model skill")
    assert first.value > 0.5
    assert abs(later.value) < 0.05
    first, later = figures(carried, "model carried accuracy")
    assert first.low > 0.97
    assert later.high < 0.35


def test_a_code_that_changes_is_read_by_probes_of_that_length_only(kinds):
    (curve,), carried = kinds["moved"]
    assert all(e.low > 0.9 for e in figures(curve, "model skill"))
    first, later = figures(carried, "model carried accuracy")
    assert first.low > 0.97
    assert later.high < 0.5


def test_of_a_record_the_execution_is_read_as_well_as_the_rotation(kinds):
    (curve,), _ = kinds["record"]
    assert all(e.high < 0.02 for e in figures(curve, "surplus"))
    assert figures(curve, "record skill")[0].low > 0.5


def test_curves_have_a_figure_per_word_with_its_interval(kinds):
    (curve,), carried = kinds["lost"]
    assert [(s.first, s.last) for s in curve.stretches] == [(1, 6), (7, 12)]
    assert [(s.first, s.last) for s in carried.by_word] == [(word, word) for word in range(1, WORDS + 1)]
    estimate = curve.by_word[3].figures["model skill"]
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 25


def test_stretches_end_where_the_length_doubles():
    assert list_stretches(24, 6) == [(1, 6), (7, 12), (13, 24)]
    assert list_stretches(6, 6) == [(1, 6)]


def test_programs_are_uniform_long_and_apart_by_prompt(programs):
    assert programs.words.shape == (400, WORDS)
    shares = np.bincount(programs.words.ravel()) / programs.words.size
    assert np.abs(shares - 0.2).max() < 0.03
    assert programs.labels.shape == (len(LABELS), 400 * WORDS)
    row = 5 * WORDS + 7
    turns = [{1: -1, 2: 1}.get(word, 0) for word in programs.words[5, :8].tolist()]
    assert programs.labels[0, row] == sum(turns) % NUM_ROTATIONS
    split = programs.split(1, 4, BASE)
    prompts = [set(programs.blind.group[rows // WORDS]) for rows in vars(split).values()]
    assert not prompts[0] & prompts[2]
    assert not prompts[1] & prompts[2]
    assert all(programs.step[rows].max() == BASE - 1 for rows in vars(split).values())


def test_longer_tasks_are_scored_and_those_that_short_programs_solve_are_told():
    tasks = draw_longer_tasks(SMOKE, 2, 40)
    is_beyond = needs_longer(SMOKE, tasks)
    assert 0.2 < is_beyond.mean() < 0.8
    assert not needs_longer(SMOKE, draw_longer_tasks(SMOKE, 1, 40)).any()
    assert needs_longer(load_suite("icml24"), tasks) is None
    answers = iter(tasks.programs.texts())

    class Reference:
        def generate(self, prompts, max_new_words):
            assert max_new_words == 2 * SMOKE.max_new_words
            return [Generation(next(answers).removeprefix(HEADER_TEXT), 1, True) for _ in prompts]

    result = score_longer_tasks(Reference(), SMOKE, 2, 40)
    assert (result.words, result.shown.value, result.held_out.value, result.longer.value) == (12, 1, 1, 1)
    assert result.beyond.n == is_beyond.sum()
    assert result.within.n == 40 - result.beyond.n
    assert result.mean_words == 12


@pytest.mark.parametrize(("kind", "verdict"), [(PLANNER, "USES"), (UNREAD, "NOT SHOWN")])
def test_use_after_prefixes_of_21_words_is_that_of_the_planner(kind, verdict, monkeypatch):
    monkeypatch.setattr(planners, "WIDTH", 160)  # room for the features of 21 words
    suite = load_suite("laptop")
    longer = long_prefix_suite(suite, 4)
    planner = Planner(PlannerWorld(longer, replace(STANDARD_PAIRS, tasks=300)), kind, 0)
    result = measure_long_prefixes(planner, None, suite, 4, 300)
    assert result.words == derive_pairs(longer, replace(STANDARD_PAIRS, tasks=300)).prefix.shape[1] == 21
    assert result.use.verdict == verdict
    assert result.solved == 1


def test_prefixes_that_cannot_be_numbered_are_told():
    result = measure_long_prefixes(None, None, load_suite("icml24"), 4)
    assert result.use.verdict == "N/A"
    assert result.use.reason == "prefixes of 37 words; expected at most 22"


def test_programs_with_control_flow_are_refused():
    with pytest.raises(UsageError, match="control flow"):
        check_suite(load_suite("control"))


def test_what_does_not_fit_into_the_context_has_its_reason(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    limit = read_limit(open_checkpoint(ModelSpec.parse(f"path:{folder}")), SMOKE, (1, 2))
    assert limit.context == config["max_position_embeddings"]
    assert limit.needed[2] == limit.needed[1] + BASE
    short = replace(limit, context=limit.needed[1])
    assert short.reason(1) == ""
    needed, context = limit.needed[2], short.context
    assert short.reason(2) == f"does not fit: {needed} tokens of prompt and program, the model takes {context}"
    assert "longest answer" in short.reason(1, is_written=True)
    assert ContextLimit(None, {}, {}).reason(64) == ""


def test_the_command_measures_what_fits_and_draws_records(
    tiny_folder, tmp_path, monkeypatch, capsys, recorded_progress
):
    small = replace(PROTOCOL, steps=2, hidden=4)
    settings = measurement.LengthSettings
    monkeypatch.setattr(measurement, "LengthSettings", lambda *values: replace(settings(*values), protocol=small))
    folder = shutil.copytree(tiny_folder, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 106 + 13}))
    options = ["--prompts", "20", "--seeds", "1", "--tasks", "4", "--prefix-tasks", "20", "--suite", "smoke"]
    assert main(["--model", str(folder), *options, "--output-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "programs x4: does not fit: 131 tokens" in out
    assert list(recorded_progress.stages)[:3] == ["reading the model", "reading an untrained copy", "probing 6 words"]
    (path,) = tmp_path.glob("short-smoke-length.json")
    content = json.loads(path.read_text())
    assert [curve["words"] for curve in content["rotation"]] == [6, 12]
    assert content["carried"]["trained_words"] == 6
    assert not content["tasks"]
    assert content["prefixes"]["2"]["verdict"] == "N/A"
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert main([str(path), "--output-dir", str(tmp_path)]) == 0
    assert "short, suite smoke" in capsys.readouterr().out
    assert "skill of rotation" in (tmp_path / "length.svg").read_text()


def test_a_model_or_records_must_be_named(tmp_path, capsys):
    assert main([]) == 2
    for content in ("{}", "[]", "not JSON"):
        (tmp_path / "other.json").write_text(content)
        assert main([str(tmp_path / "other.json"), "--output-dir", str(tmp_path)]) == 2
        assert "expected a file that this command has written" in capsys.readouterr().err
