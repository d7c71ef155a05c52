"""The ladder on answerers whose answers are known, and its answers against those of a plain robot."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from agreement import loaded
from byte_pairs import byte_pairs
from families import save
from same_process import stay_in_process
from transformers import AutoTokenizer

from benchmark.ladder import ladder_tasks, measurement
from benchmark.ladder.answerers import Chance, Interpreter
from benchmark.ladder.choice_scores import generate_answers, score_choices
from benchmark.ladder.command import main
from benchmark.ladder.ladder_tasks import draw_ladder
from benchmark.ladder.measurement import (
    count_rungs,
    first_word,
    floor_answers,
    measure_ladder,
    measure_rung,
)
from benchmark.ladder.questions import BEFORE, IN_ORDER, LAST_ACTION, MAJORITY
from benchmark.ladder.report import format_ladder
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import Generation, ModelSpec
from benchmark.models.loading import load_model
from benchmark.tasks import chat_template
from benchmark.tasks.suite import load_suite
from karel_env.language import ACTIONS
from karel_env.syntax.dialects import DIALECTS, PYTHON

SUITE = load_suite("laptop")
STEPS = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}
STATE = ("net turn", "heading", "row", "column", "wall ahead")
CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


@pytest.fixture(autouse=True)
def few_fitted(monkeypatch) -> None:
    """Fewer tasks from which floors are learned, which take most of the time."""
    monkeypatch.setattr(ladder_tasks, "NUM_FITTED", 400)


@pytest.fixture(scope="module")
def tasks():
    return draw_ladder(SUITE, 12, 8)


def walk(cells, robot, actions) -> dict[str, str]:
    """The right answers, by a robot that knows nothing of the package."""
    row, column, way = robot
    ways = list(STEPS)
    for action in actions:
        if action == "turn_left":
            way = (way + 3) % 4
        if action == "turn_right":
            way = (way + 1) % 4
        down, right = STEPS[ways[way]]
        if action == "move" and cells[row + down][column + right] >= 0:
            row, column = row + down, column + right
    down, right = STEPS[ways[way]]
    turned = (actions.count("turn_right") - actions.count("turn_left")) % 4
    return {
        "last action": actions[-1], "moves": str(actions.count("move")),
        "net turn": ["none", "right", "around", "left"][turned], "heading": ways[way], "row": str(row), "column": str(column),
        "wall ahead": "yes" if cells[row + down][column + right] < 0 else "no",
    }  # fmt: skip


def test_answers_are_those_of_a_plain_robot(tasks) -> None:
    answers = {question.name: question.answer(tasks.tests) for question in tasks.questions}
    for i in range(len(tasks.tests)):
        actions = [ACTIONS[action] for action in tasks.tests.actions[i]]
        expected = walk(tasks.tests.inputs.cells[i].tolist(), tasks.tests.inputs.robot[i].tolist(), actions)
        named = {question.name: question.choices[answers[question.name][i]] for question in tasks.questions}
        assert named == expected, tasks.texts[i]


TOKEN = re.compile(r"\w+|[{}]")
TURNS = {"front_is_clear": 0, "left_is_clear": 3, "right_is_clear": 1}


def execute(text, cells, robot) -> list[int]:
    """The robot after a program, by an interpreter that knows nothing of the package: it reads words and brackets."""
    words, state, cells = TOKEN.findall(text)[2:], list(robot), [list(row) for row in cells]

    def is_free(turn) -> bool:
        down, right = list(STEPS.values())[(state[2] + turn) % 4]
        return cells[state[0] + down][state[1] + right] >= 0

    def act(word) -> None:
        here = cells[state[0]]
        if word == "move" and is_free(0):
            down, right = list(STEPS.values())[state[2]]
            state[:2] = state[0] + down, state[1] + right
        elif word in ("turn_left", "turn_right"):
            state[2] = (state[2] + (3 if word == "turn_left" else 1)) % 4
        elif word == "put_marker":
            here[state[1]] += 1
        elif word == "pick_marker" and here[state[1]]:
            here[state[1]] -= 1

    def holds(condition) -> bool:
        *negation, word = condition
        markers = cells[state[0]][state[1]] > 0
        value = is_free(TURNS[word]) if word in TURNS else markers == (word == "markers_present")
        return value != bool(negation)

    def end_of(start) -> int:
        depth = 0
        for index in range(start, len(words)):
            depth += (words[index] == "{") - (words[index] == "}")
            if not depth:
                return index
        raise AssertionError(text)

    def block(start, stop) -> None:
        while start < stop:
            word, opening = words[start], words.index("{", start) if "{" in words[start:] else 0
            if word in ACTIONS:
                act(word)
                start += 1
                continue
            condition, closing = words[start + 1 : opening], end_of(opening)
            start = closing + 1
            if word == "ifelse":
                other = (start + 1, end_of(start + 1))
                start = other[1] + 1
                block(*((opening + 1, closing) if holds(condition) else (other[0] + 1, other[1])))
            elif word == "if" and holds(condition):
                block(opening + 1, closing)
            while word == "while" and holds(condition):
                block(opening + 1, closing)
            for _ in range(int(condition[0]) if word == "repeat" else 0):
                block(opening + 1, closing)

    block(1, end_of(0))
    return state


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("suite", "lengths"), [("laptop", range(1, 7)), ("control", range(3, 11))])
def test_the_interpreter_reads_all_that_it_needs_from_the_prompt(suite, lengths, dialect) -> None:
    tasks = draw_ladder(load_suite(suite), 6, 5, dialect)
    results = list(measure_ladder(lambda preamble: Interpreter(dialect), tasks, 7))
    assert all(result.accuracy.value == result.generated.value == 1 for result in results)
    assert count_rungs(results) == len(results) == 7
    assert all(list(result.by_length) == list(lengths) for result in results)
    assert {result.n for result in results} == {6 * len(lengths)}


def test_answers_after_control_flow_are_those_of_a_second_interpreter() -> None:
    tasks = draw_ladder(load_suite("control"), 4, 2)
    answers = {question.name: question.answer(tasks.tests) for question in tasks.questions}
    for i in range(len(tasks.tests)):
        world = tasks.tests.inputs[i]
        cells, robot = world.cells.astype(int).tolist(), world.robot.tolist()
        row, column, way = execute(tasks.tests.programs.texts()[i], cells, robot)
        named = {question.name: question.choices[answers[question.name][i]] for question in tasks.questions}
        down, right = list(STEPS.values())[way]
        assert named["heading"] == list(STEPS)[way], tasks.texts[i]
        assert (named["row"], named["column"]) == (str(row), str(column))
        assert named["net turn"] == ["none", "right", "around", "left"][(way - robot[2]) % 4]
        assert named["wall ahead"] == ("yes" if cells[row + down][column + right] < 0 else "no")


def test_actions_in_order_are_a_floor_of_control_flow(tasks) -> None:
    control = draw_ladder(load_suite("control"), 20, 0)
    assert all((IN_ORDER in question.floors) == (question.name in STATE) for question in control.questions)
    assert not any(IN_ORDER in question.floors for question in tasks.questions)
    heading = control.questions[3]
    floor, right = floor_answers(heading, control)[IN_ORDER], heading.answer(control.tests)
    is_straight = np.array(["{" not in text.partition("{")[2] for text in control.tests.programs.texts()])
    assert (floor == right)[is_straight].all()
    assert not (floor == right)[~is_straight].all()


def test_chance_is_at_chance_and_reaches_nothing() -> None:
    results = list(measure_ladder(lambda preamble: Chance(), draw_ladder(SUITE, 80, 2), 100))
    for result in results:
        assert result.accuracy.value == pytest.approx(1 / result.choices, abs=4 * np.sqrt(0.25 / result.n))
        assert not result.is_reached
    assert count_rungs(results) == 0
    assert "0 of 7 rungs reached, n = 480 tasks" in format_ladder(results)


class Floor:
    """Gives the answers of a floor, in the order of the tasks."""

    def __init__(self, prompts, choices, answers) -> None:
        self.answers = {prompt: choices[answer] for prompt, answer in zip(prompts, answers, strict=True)}

    def log_likelihoods(self, prompts, programs):
        return [(float(self.answers[prompt] == choice), 1) for prompt, choice in zip(prompts, programs, strict=True)]

    def generate(self, prompts, max_new_words):
        return [Generation(f"\n The {self.answers[prompt]}", 2, True) for prompt in prompts]


@pytest.mark.parametrize("floor", [MAJORITY, BEFORE, LAST_ACTION])
def test_who_answers_as_a_floor_is_not_above_it(tasks, floor) -> None:
    for question in tasks.questions:
        if floor in question.floors:
            answers = floor_answers(question, tasks)[floor]
            answerer = Floor(tasks.prompts(question), question.choices, answers)
            result = measure_rung(answerer, question, tasks, 50)
            assert result.accuracy.value == result.floors[floor] <= result.floors[result.best_floor]
            assert not result.is_reached
            assert result.generated.value == 0


def test_the_floors_are_what_they_are_called(tasks) -> None:
    """One action: the last action and the heading before it determine the heading; of two, they do not."""
    heading = next(question for question in tasks.questions if question.name == "heading")
    right, lengths = heading.answer(tasks.tests), tasks.tests.lengths
    floors = floor_answers(heading, tasks)
    assert (floors[LAST_ACTION] == right)[lengths == 1].all()
    assert not (floors[LAST_ACTION] == right)[lengths > 2].all()
    np.testing.assert_array_equal(floors[BEFORE], tasks.tests.inputs.robot[:, 2])
    assert len(set(floors[MAJORITY].tolist())) == 1


def test_no_task_is_asked_shown_and_learned_from(tasks) -> None:
    shown = set(tasks.shot_texts)
    assert len(shown) == len(tasks.shot_texts) == 8
    assert not shown & set(tasks.texts)
    assert tasks.texts == draw_ladder(SUITE, 12, 8).texts
    python = draw_ladder(SUITE, 12, 8, PYTHON)
    assert python.texts[0].startswith(tasks.texts[0].partition("Program:")[0])
    assert "def run():\n    " in python.texts[0]


def test_rungs_are_counted_from_the_bottom(tasks) -> None:
    result = measure_rung(Interpreter("karel"), tasks.questions[1], tasks, 50)
    missed = replace(result, above=replace(result.above, low=-0.1))
    assert [count_rungs(r) for r in ([result, result], [result, missed, result], [missed, result])] == [2, 1, 0]


@pytest.mark.parametrize(
    ("text", "word"), [(" north", "north"), ("**North**.\n", "north"), ("", ""), ("\n\n", ""), ("(2) rows", "2")]
)
def test_the_first_word_is_the_answer(text, word) -> None:
    assert first_word(text) == word


@pytest.mark.parametrize("question", [3, 6], ids=["several tokens", "few choices"])
def test_choices_are_scored_as_in_a_plain_pass(question, tasks, tmp_path) -> None:
    """With and without a shared preamble, against one pass per prompt and choice."""
    folder = save("llama", tmp_path)
    asked = tasks.questions[question]
    prompts, choices = tasks.prompts(asked)[:3], asked.choices
    plain = loaded(folder)
    expected = [[value for value, _ in plain.log_likelihoods([prompt] * len(choices), choices)] for prompt in prompts]
    for model in (plain, loaded(folder, preamble=tasks.frame(asked)[0])):
        np.testing.assert_allclose(score_choices(model, prompts, choices), expected, atol=1e-3)


def test_choices_of_one_token_are_scored_in_one_pass(tiny_folder, monkeypatch) -> None:
    model = load_model(open_checkpoint(ModelSpec("path", str(tiny_folder))), "float32", "cpu")
    prompts, words = ["def run() {", "def run() { move();"], ("move();", "turn_left();", "}")
    expected = [[value for value, _ in model.log_likelihoods([prompt] * 3, words)] for prompt in prompts]
    monkeypatch.setattr(type(model), "log_likelihoods", None)
    np.testing.assert_allclose(score_choices(model, prompts, words), expected, atol=1e-5)
    texts = generate_answers(model, prompts, words)
    whole = [model.decode(row) for row in model.new_tokens(prompts, 8)]
    for text, longer in zip(texts, whole, strict=True):
        assert longer.split()[: len(text.split())] == text.split()
        assert len(text.split()) <= 2, "one token of an answer, and the next"


def test_the_command(tmp_path, capsys, recorded_progress) -> None:
    words = ["--tasks", "5", "--shots", "2", "--output-dir", str(tmp_path)]
    assert main(["--model", "baseline:interpreter", "--dialect", "python", *words]) == 0
    assert "7 of 7 rungs reached, n = 30 tasks" in capsys.readouterr().out
    assert recorded_progress.stages == {"prompts of all questions": (210, 210)}
    assert len(recorded_progress.lines) == 7
    stored = json.loads((tmp_path / "interpreter-laptop-python-ladder.json").read_text())
    assert stored["rungs"] == 7
    assert [entry["accuracy"]["value"] for entry in stored["questions"]] == [1.0] * 7
    assert main(["--model", "baseline:search", *words]) == 3
    assert main(["--model", "baseline:chance", "--suite", "control", *words]) == 0
    assert (tmp_path / "chance-control-karel-ladder.json").exists()
    assert main(words) == 2
    assert "expected --model SPEC" in capsys.readouterr().err


def test_a_stopped_command_continues_with_the_question_that_is_missing(tmp_path, monkeypatch, capsys) -> None:
    words = ["--model", "baseline:chance", "--tasks", "5", "--shots", "2", "--output-dir"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    ask, asked = measurement.measure_rung, []

    def ask_three(answerer, question, *rest):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(question.name)
        return ask(answerer, question, *rest)

    monkeypatch.setattr(measurement, "measure_rung", ask_three)
    assert main([*words, str(tmp_path / "parts")]) == 1
    assert "run the same command again to continue" in capsys.readouterr().err
    (path,) = (tmp_path / "parts").glob("*.json")
    assert "rungs" not in json.loads(path.read_text()), "not all questions were asked"
    monkeypatch.setattr(measurement, "measure_rung", lambda answerer, question, *rest: (
        asked.append(question.name) or ask(answerer, question, *rest)
    ))  # fmt: skip
    assert main([*words, str(tmp_path / "parts")]) == 0
    assert "3 of 7 questions are answered" in capsys.readouterr().err
    assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    assert len(asked) == len(set(asked)) == 7
    assert main([*words, str(tmp_path / "parts"), "--shots", "1"]) == 0
    assert json.loads(path.with_name(f"{path.stem}-2.json").read_text())["settings"]["shots"] == 1


def test_a_chat_template_makes_examples_turns_of_a_conversation(tmp_path, capsys, monkeypatch) -> None:
    """The last turn begins as an answer does, so that the answer follows as in plain prompts."""
    # 16 conversations, each of which is rendered in a process of its own.
    stay_in_process(monkeypatch.setattr, chat_template)
    tokenizer = byte_pairs()
    tokenizer.chat_template = CHAT
    chat = draw_ladder(SUITE, 2, 2, tokenizer=tokenizer)
    plain = draw_ladder(SUITE, 2, 2)
    question = chat.questions[3]
    before, after = chat.frame(question)
    assert before.count("[user]") == 3
    assert before.count("[assistant]") == 2
    assert after == "\n[assistant]\nAnswer:"
    for turn in ("[user]\n", "[assistant]\n"):
        before = before.replace(turn, "")
    expected = plain.frame(question)[0]
    assert before.split() == expected.split()
    assert chat.prompts(question)[0].endswith(f"{question.text}{after}")
    folder = save("llama", tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr(
        measurement, "measure_ladder", lambda _, *rest: measure_ladder(lambda preamble: Chance(), *rest)
    )
    words = ["--model", f"path:{folder}", "--tasks", "5", "--shots", "1", "--output-dir", str(tmp_path)]
    for options, name in (((), "*-karel-chat-ladder.json"), (("--plain",), "*-karel-ladder.json")):
        assert main([*words, *options]) == 0
        assert ("with its chat template" in capsys.readouterr().out) == (not options)
        (written,) = tmp_path.glob(name)
        assert json.loads(written.read_text())["settings"]["chat_template"] == (not options)
