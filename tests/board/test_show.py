"""`karel-bench show`: outcomes of a run, and one task with its worlds, answer and steps."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil

import pytest
from whole_runs import ROOT

from benchmark.board.player import build_player_tasks
from benchmark.board.terminal import show
from benchmark.board.terminal.show import format_task, main, outcome_of, read_shown_run
from benchmark.errors import UsageError
from benchmark.run import describe_next
from benchmark.runner.record import read_record
from karel_env.syntax.dialects import PYTHON, program_bodies

LLAMA = "2026-11-23_llama-laptop"


@pytest.fixture(scope="module")
def run():
    return read_shown_run(str(ROOT / "submissions" / LLAMA))


def test_the_summary_counts_every_task_once(run, capsys):
    assert main([str(run.folder)]) == 0
    out = capsys.readouterr().out
    counts = [
        int(line.split(" tasks ")[0].split()[-1].replace(",", ""))
        for line in out.splitlines()
        if " tasks " in line and line.startswith("  ")
    ]
    assert sum(counts) == run.record.suite.tasks
    assert counts[0] == round(run.record.accuracy.both.value * 1000)


def test_a_task_shows_prompt_worlds_answer_and_steps(run, capsys):
    assert main([str(run.folder), "--task", "0", "--prompt"]) == 0
    out = capsys.readouterr().out
    prompt = "\n".join(
        line.removeprefix("  ") for line in out.split("prompt:\n")[1].split("\nreference")[0].splitlines()
    )
    assert hashlib.sha256(prompt.encode()).hexdigest() == run.samples[0]["prompt"]
    assert "answer     move(); turn_left(); move(); }" in out
    assert out.count(": right") == 6
    assert out.splitlines()[-4:] == [
        "  start          row 3, column 3, facing west", "  move();        row 3, column 2, facing west",
        "  turn_left();   row 3, column 2, facing south", "  move();        row 4, column 2, facing south",
    ]  # fmt: skip


def test_right_and_wrong_are_those_of_the_record(run):
    for number in range(40):
        text, sample = format_task(run, number), run.samples[number]
        examples = [line for line in text.splitlines() if line.startswith("example ")]
        right = [": right" in line for line in examples]
        assert all(right[: run.suite.shown]) == sample["shown"]
        assert all(right[run.suite.shown :]) == sample["held_out"]
        assert text.startswith(f"task {number}: {outcome_of(sample)}")


def test_failed_shows_the_first_that_are_not_solved(run, capsys):
    assert main([str(run.folder), "--failed", "--count", "2"]) == 0
    out = capsys.readouterr().out
    first = [n for n, sample in enumerate(run.samples) if not (sample["shown"] and sample["held_out"])][:2]
    assert [line for line in out.splitlines() if line.startswith("task ")] == [
        f"task {n}: {outcome_of(run.samples[n])}" for n in first
    ]
    assert ": wrong" in out


def with_texts(folder, tmp_path, texts):
    """A copy of a run whose samples have other texts, and the outcome of one that does not parse."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    rows = [json.loads(line) for line in gzip.decompress((copy / "samples.jsonl.gz").read_bytes()).splitlines()]
    for row, text in zip([row for row in rows if row["stage"] == "test"], texts, strict=False):
        row |= {"text": text, "outcome": "unparsable", "shown": False, "held_out": False}
    content = gzip.compress("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
    (copy / "samples.jsonl.gz").write_bytes(content)
    record = json.loads((copy / "record.json").read_text())
    record["samples_sha256"] = hashlib.sha256(content).hexdigest()
    (copy / "record.json").write_text(json.dumps(record))
    return copy


def test_an_answer_that_is_no_program_tells_why_and_cannot_harm_a_terminal(run, tmp_path):
    copy = read_shown_run(str(with_texts(run.folder, tmp_path, ["move(; \x1b[31m", "fly(); }" + "x" * 5000])))
    text = format_task(copy, 0)
    assert "no program: " in text
    assert "\x1b" not in text
    assert "reached" not in text
    assert "(5,008 characters)" in format_task(copy, 1)


def test_a_model_without_a_program_gets_its_answers_and_a_hint(undisturbed, capsys, tmp_path):
    count = read_record(undisturbed / "record.json").suite.tasks
    from quick_protocol import SMALL_SUITE

    copy = with_texts(undisturbed, tmp_path, ["hello world"] * count)
    record = json.loads((copy / "record.json").read_text())
    record["accuracy"]["valid"]["value"] = 0.0
    (copy / "record.json").write_text(json.dumps(record))
    assert main([str(copy), "--suite", SMALL_SUITE]) == 0
    out = capsys.readouterr().out
    assert out.count("hello world") == 3
    assert "--track fewshot" in out


def test_an_answer_in_python_text_is_executed_too(run, tmp_path):
    """Few-shot answers may be Python text, which begins with a line break."""
    reference = run.tasks.take([0]).programs
    copy = with_texts(run.folder, tmp_path, program_bodies(reference, PYTHON))
    record = json.loads((copy / "record.json").read_text())
    record["frame"] = {"sha256": "0" * 64, "shots": 4, "chat_template": False, "dialect": PYTHON}
    (copy / "record.json").write_text(json.dumps(record))
    text = format_task(read_shown_run(str(copy)), 0)
    assert "no program" not in text
    assert text.count(": right") == 6
    suite = run.suite
    (entry,) = build_player_tasks(suite, [{**run.samples[0], "text": program_bodies(reference, PYTHON)[0]}])
    assert [example["right"] for example in entry["examples"]] == [True] * 6


def test_a_wrong_answer_is_shown_with_the_steps_of_the_reference(run):
    number = next(n for n, sample in enumerate(run.samples) if sample["outcome"] == "wrong output")
    text = format_task(run, number)
    assert text.index("steps of the answer in example") < text.index("steps of the reference in example")
    assert "steps of the reference" not in format_task(run, 0)


def test_worlds_are_in_line_where_the_robot_is_on_markers(run):
    """The glyph of the robot on a marker is longer than others, such as `<1`."""
    number = next(n for n in range(100) if any(f"{robot}1" in format_task(run, n) for robot in "<>^v"))
    drawn = [line for line in format_task(run, number).splitlines() if set(line) <= set(" .#123<>^v") and line.strip()]
    cells = [[start for start, sign in enumerate(line) if sign != " " and line[start - 1] == " "] for line in drawn]
    per_example = [cells[i : i + 4] for i in range(0, len(cells), 4)]
    assert all(row == example[0] for example in per_example for row in example)


def test_the_summary_names_the_commands_that_show_more(run, capsys):
    assert main([str(run.folder)]) == 0
    out = capsys.readouterr().out
    assert f"python -m {show.MODULE} {run.folder} --task N" in out
    assert show.__spec__.name == show.MODULE
    assert f"board {run.folder} --open" in out


def test_a_run_ends_with_what_to_do_next(tmp_path):
    lines = describe_next(tmp_path, is_official=False).splitlines()
    assert [line[12:] for line in lines] == [
        f"python -m {show.MODULE} {tmp_path} --failed", f"python -m benchmark.board {tmp_path} --open",
    ]  # fmt: skip
    assert describe_next(tmp_path, is_official=True).endswith(f"python -m benchmark.submit new --run {tmp_path}")


def test_steps_of_a_loop_have_conditions_and_are_limited(run, monkeypatch):
    from karel_env.syntax.parser import parse

    monkeypatch.setattr(show, "MAX_SHOWN_STEPS", 4)
    world = run.tasks.inputs[0, 0]
    lines = show._steps(parse("def run() { while(front_is_clear()) { move(); }; turn_left(); }"), world)
    assert any(line.endswith("true") for line in lines)
    assert lines[-1].endswith(" more")


@pytest.mark.parametrize("number", [1000, 5000])
def test_a_task_that_is_not_there_is_refused(run, number):
    with pytest.raises(UsageError, match="expected a number from 0 to 999"):
        format_task(run, number)


def test_a_suite_with_other_tasks_is_refused(run, tmp_path, capsys):
    path = tmp_path / "other.yaml"
    text = (ROOT / "benchmark/tasks/suites/laptop.yaml").read_text().replace("wall: 0.1", "wall: 0.2")
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("sha256")))
    assert main([str(run.folder), "--suite", str(path)]) == 4
    assert "--suite" in capsys.readouterr().err


def test_a_folder_without_a_record_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no record.json" in capsys.readouterr().err
