"""The player of edits: stored words, in worlds that the interpreter gives, of pairs that are selected whatever was written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from measured_rows import FEW, LAPTOP, planned
from safetensors.numpy import save

from benchmark.artifacts import CAUSAL_EVIDENCE, DETAIL_EVIDENCE
from benchmark.board.steering_player import MAX_PAIRS, build_steering_player, read_programs, select_prefixes
from benchmark.causal.detail.detail_evidence import detail_rows, empty_detail
from benchmark.causal.rotation import net_rotation
from benchmark.causal.targets import END, NEXT_WORDS
from benchmark.errors import SubmissionError
from karel_env.execution.interpreter import run
from karel_env.language import Programs
from karel_env.syntax.parser import parse

MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("evidence")
    (target / CAUSAL_EVIDENCE).write_bytes(save(planned()[1].to_arrays()))
    return target


@pytest.fixture(scope="module")
def player(folder):
    return build_steering_player(folder, LAPTOP, "block 1", FEW)


def apply(world, steps):
    """World of JSON after steps of JSON."""
    height, width, cells, robot = world
    cells = list(cells)
    for _, moved, changed, _ in steps:
        robot = moved
        for index, content in changed:
            cells[index] = content
    return [height, width, cells, robot]


def executed(text, world):
    """World of JSON after a program, by the parser and the interpreter."""
    height, width, cells, robot = world
    from karel_env.world import Worlds

    worlds = Worlds(
        np.array(cells, np.int16).reshape(1, height, width),
        np.array([robot], np.int16),
        np.array([[height, width]], np.int16),
    )
    done = run(Programs.of([parse(f"def run() {{ {text} }}")]), worlds).worlds
    return [height, width, done.cells[0].ravel().tolist(), done.robot[0].tolist()]


def test_worlds_are_those_of_the_interpreter(player):
    assert len(player["prefixes"]) > 5
    for entry in player["prefixes"]:
        prefix = " ".join(NEXT_WORDS[word] for word in entry["prefix"])
        for example, world in enumerate(entry["inputs"]):
            steps = entry["steps"][example]
            assert len(steps) == len(entry["prefix"])
            reached = apply(world, steps)
            assert reached == executed(prefix, world)
            for turn, written in [("0", entry["unedited"]), *entry["turns"].items()]:
                robot = written["robots"][example]
                assert robot == [*reached[3][:2], (reached[3][2] + int(turn)) % 4]
                turned = [*reached[:3], robot]
                text = "" if written["word"] == END else NEXT_WORDS[written["word"]]
                assert apply(turned, [written["steps"][example]]) == (executed(text, turned) if text else turned)


def test_words_and_probabilities_are_stored_ones(player):
    pairs, evidence = planned()
    keys = {
        (int(t), tuple(p), int(d)): i
        for i, (t, p, d) in enumerate(zip(pairs.task, pairs.prefix.tolist(), pairs.turn, strict=True))
    }
    for entry in player["prefixes"]:
        for turn, written in entry["turns"].items():
            row = keys[entry["task"], tuple(entry["prefix"]), int(turn)]
            assert written["word"] == evidence.steered[0, row]
            assert entry["unedited"]["word"] == evidence.unedited[row]
            assert written["target"] == pairs.target[row] == np.argmax(written["probability"])
            np.testing.assert_allclose(written["probability"], pairs.posterior[row, int(turn)], atol=6e-4)
            np.testing.assert_allclose(entry["unedited"]["probability"], pairs.posterior[row, 0], atol=6e-4)
            assert written["strict"] == pairs.is_strict[row]
            assert (net_rotation(pairs.prefix[row : row + 1])[0] + int(turn)) % 4 in range(4)


def test_a_closing_bracket_tells_whether_the_output_is_reached(player):
    ends = [written for entry in player["prefixes"] for written in entry["turns"].values() if written["word"] == END]
    assert ends
    # The target is reached by a program, so where it is the closing bracket every world is the output.
    assert all(all(written["ends"]) for written in ends if written["target"] == END)
    others = [entry["unedited"] for entry in player["prefixes"] if entry["unedited"]["word"] != END]
    assert all(written["ends"] is None for written in others)


def test_pairs_are_selected_before_anything_is_known_of_the_edit():
    pairs, evidence = planned()
    rows = np.concatenate(select_prefixes(pairs, evidence))
    assert 0 < len(rows) <= MAX_PAIRS
    assert len(np.unique(rows)) == len(rows)
    assert pairs.is_report[rows].all()
    assert evidence.is_solved[rows].all()
    other = replace(evidence, steered=np.where(evidence.steered < 0, -1, 0).astype(np.int8))
    np.testing.assert_array_equal(np.concatenate(select_prefixes(pairs, other)), rows)
    hits = evidence.steered[0, rows] == pairs.target[rows]
    assert hits.any()
    assert not hits.all()


def test_the_data_of_a_row_are_small(player):
    assert len(json.dumps(player, separators=(",", ":"))) < MOST_BYTES


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arrays: arrays | {"unedited": arrays["unedited"][:-1]}, "expected those of"),
        (lambda arrays: arrays | {"steered": np.full_like(arrays["steered"], 9)}, "expected those of"),
        (lambda arrays: {name: a for name, a in arrays.items() if name != "clamped"}, "no array clamped"),
    ],
)
def test_evidence_of_other_pairs_is_refused(tmp_path, change, says):
    (tmp_path / CAUSAL_EVIDENCE).write_bytes(save(change(planned()[1].to_arrays())))
    with pytest.raises(SubmissionError, match=says):
        build_steering_player(tmp_path, LAPTOP, "block 1", FEW)
    (tmp_path / CAUSAL_EVIDENCE).write_bytes(b"no tensors")
    with pytest.raises(SubmissionError, match="expected a file of safetensors"):
        build_steering_player(tmp_path, LAPTOP, "block 1", FEW)


@pytest.fixture(scope="module")
def with_programs(folder, tmp_path_factory):
    """A folder with whole programs: the next words of the measurement, then fixed words, some of which never end."""
    target = tmp_path_factory.mktemp("programs")
    (target / CAUSAL_EVIDENCE).write_bytes((folder / CAUSAL_EVIDENCE).read_bytes())
    evidence, rows = planned()[1], detail_rows(LAPTOP, FEW)
    arrays = empty_detail(rows, 2)
    for t, row in enumerate(rows.report[rows.programs]):
        for condition, word in ((0, evidence.unedited[row]), (1, evidence.steered[0, row])):
            words = [int(word), 0, 1, END] if t % 2 else [int(word), *[0] * (rows.num_words - 1)]
            words = words[: words.index(END) + 1] if END in words else words
            arrays["programs"][condition, t, : len(words)] = words
    (target / DETAIL_EVIDENCE).write_bytes(save(arrays))
    return target


def test_whole_programs_are_executed_in_every_world(with_programs):
    player = build_steering_player(with_programs, LAPTOP, "block 1", FEW)
    ended, unended = 0, 0
    for entry in player["prefixes"]:
        prefix = " ".join(NEXT_WORDS[word] for word in entry["prefix"])
        for turn, written in [("0", entry["unedited"]), *entry["turns"].items()]:
            if "rest" not in written:
                continue
            rest = written["rest"]
            actions = [word for word in [written["word"], *rest["words"]] if word != END]
            text = " ".join(NEXT_WORDS[word] for word in actions)
            for example, world in enumerate(entry["inputs"]):
                reached = executed(prefix, world)
                turned = [*reached[:3], [*reached[3][:2], (reached[3][2] + int(turn)) % 4]]
                final = apply(turned, [written["steps"][example], *rest["steps"][example]])
                assert final == executed(text, turned)
                if rest["words"][-1] == END:
                    assert rest["ends"][example] == (final == entry["expected"][example])
            ended += rest["words"][-1] == END
            unended += rest["ends"] is None
    assert ended
    assert unended


def test_prefixes_with_programs_come_first(with_programs):
    pairs, evidence = planned()
    programs = read_programs(with_programs, LAPTOP, FEW)
    assert programs
    rows = select_prefixes(pairs, evidence, programs)
    played = sum(any(int(row) in programs for row in group) for group in rows)
    before = sum(any(int(row) in programs for row in group) for group in select_prefixes(pairs, evidence))
    assert played >= before
    assert played > 0


def test_programs_of_other_pairs_are_refused(with_programs, tmp_path):
    rows = detail_rows(LAPTOP, FEW)
    (tmp_path / CAUSAL_EVIDENCE).write_bytes((with_programs / CAUSAL_EVIDENCE).read_bytes())
    arrays = empty_detail(rows, 2)
    (tmp_path / DETAIL_EVIDENCE).write_bytes(save(arrays | {"programs": arrays["programs"][:, :-1]}))
    with pytest.raises(SubmissionError, match="expected words of shape"):
        build_steering_player(tmp_path, LAPTOP, "block 1", FEW)
