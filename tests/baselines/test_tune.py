"""Fine-tuning: what is trained is what is asked, never the same pair; rows of texts equal texts; a resumed run is the same."""

from __future__ import annotations

import json
import signal
from importlib.util import find_spec

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_tuner import TOKENIZER, open_tuner, save_tiny_llama
from transformers import LlamaForCausalLM

import baselines.tune
from baselines.tuning import tuner as tuning
from baselines.tuning import tuning_texts
from baselines.tuning.prefix_tree import Text, pack
from baselines.tuning.text_batch import TextBatch, batch_texts
from baselines.tuning.tree_attention import BLOCK
from baselines.tuning.tuner import Tuner, tune
from baselines.tuning.tuning_texts import ExecuteTexts, WriteTexts, asked_pairs, pair_texts
from benchmark.causal.execution.heading_tasks import ANSWERS, derive_heading_tasks
from benchmark.ladder.ladder_tasks import describe, draw_ladder
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec
from benchmark.models.token_alignment import align_tokens
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.suite import load_suite
from benchmark.tasks.task_sets import TaskSets
from karel_env.syntax.dialects import DIALECTS, parse_program
from karel_env.world import world_texts

LAPTOP = load_suite("laptop")
HEADINGS = "^>v<"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny network with a sub-word tokenizer."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def read_text(text: Text) -> tuple[str, str]:
    """Prompt and answer, decoded."""
    prompt, answer = (TOKENIZER.decode(ids) for ids in (text.ids[: text.num_given], text.ids[text.num_given :]))
    assert answer.endswith("<end>")
    return prompt, answer.removesuffix("<end>")


def walk(world: str, actions: list[str]) -> tuple[int, int, str, bool]:
    """Row, column, heading and whether there is a wall ahead, by a robot that knows nothing of the package."""
    cells = [line.split() for line in world.splitlines()]
    row, column = next((r, c) for r, line in enumerate(cells) for c, cell in enumerate(line) if cell[0] in HEADINGS)
    way = HEADINGS.index(cells[row][column][0])

    def ahead() -> tuple[int, int, bool]:
        r, c = row + (0, 0, 1, 0)[way] - (way == 0), column + (0, 1, 0, -1)[way]
        return r, c, not (0 <= r < len(cells) and 0 <= c < len(cells[0])) or cells[r][c] == "#"

    for action in actions:
        if action == "move" and not ahead()[2]:
            row, column, _ = ahead()
        way = (way + (action == "turn_right") - (action == "turn_left")) % 4
    return row + 1, column + 1, ("north", "east", "south", "west")[way], ahead()[2]


def test_answers_are_those_of_a_plain_robot():
    groups = ExecuteTexts(LAPTOP, TOKENIZER, 1).groups(range(16))
    questions = set()
    for text in (text for group in groups for text in group):
        prompt, answer = read_text(text)
        is_sentence = prompt.endswith("} the robot faces")
        first, second = ("\n\ninput\n", "\nprogram\n") if is_sentence else ("\n\nWorld:\n", "\nProgram:\n")
        world, _, after = prompt.rpartition(first)[2].partition(second)
        program, _, question = after.removeprefix("def run() {").partition("}")
        actions = [word.removesuffix("();") for word in program.split()]
        row, column, heading, is_wall = walk(world, actions)
        start = walk(world, [])[2]
        turn = ["none", "right", "around", "left"][
            (["north", "east", "south", "west"].index(heading) - ["north", "east", "south", "west"].index(start)) % 4
        ]
        right = {
            "Which action stands last": actions[-1], "How often does move": str(actions.count("move")),
            "In all, has the robot": turn, "Which way does": heading, "In which row": str(row),
            "In which column": str(column), "Is there a wall": "yes" if is_wall else "no", "the robot faces": heading,
        }  # fmt: skip
        (name,) = [name for name in right if question.strip().removeprefix("Question: ").startswith(name)]
        questions.add(name)
        assert answer == f" {right[name]}", prompt
    assert questions == set(right)


def test_what_is_trained_begins_as_what_is_asked_token_for_token(monkeypatch):
    """The texts of the tasks that the measurements draw, made by the trainer, are the measurements' own."""
    ladder, headings = draw_ladder(LAPTOP, 1, 0), derive_heading_tasks(LAPTOP, 20, num_shots=0)
    asked = set()
    for question in ladder.questions:
        for prompt, answer in zip(ladder.prompts(question), question.answer(ladder.tests), strict=True):
            given = tuple(prompt_ids(TOKENIZER, prompt))
            asked.add((given, tuple(align_tokens(TOKENIZER, prompt, question.choices[answer]).ids)))
    for prompt, text, heading in zip(headings.prompts, headings.texts, headings.heading, strict=True):
        ids = align_tokens(TOKENIZER, prompt, f"{text} {ANSWERS[heading]}").ids
        answer = TOKENIZER(ANSWERS[heading].rpartition("faces")[2])["input_ids"]
        asked.add(((*prompt_ids(TOKENIZER, prompt), *ids[: -len(answer)]), tuple(answer)))
    texts = ExecuteTexts(LAPTOP, TOKENIZER, 1)
    texts.asked = frozenset()
    monkeypatch.setattr(tuning_texts, "QUESTIONS_PER_PROGRAM", len(ladder.questions))
    monkeypatch.setattr(texts, "executions", lambda numbers: (ladder.tests, torch.zeros(6, dtype=int).numpy()))
    trained = {(text.ids[: text.num_given], text.ids[text.num_given : -1]) for g in texts.groups([0]) for text in g}
    assert len(trained & asked) == 6 * len(ladder.questions)
    monkeypatch.undo()
    monkeypatch.setattr(tuning_texts, "draw_executed", lambda *_: tuning_texts.draw_tasks(LAPTOP, 20))
    trained = {
        (text.ids[: text.num_given], text.ids[text.num_given : -1]) for g in texts.groups(range(20)) for text in g
    }
    assert len(trained & asked) == 20


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 4, 5, 6]), (3, [0, 6]), (4, [0, 4]), (100, [0]), (0, [])])
def test_the_questions_are_asked_about_every_nth_task_and_the_sentence_about_all(every, expected):
    numbers = [0, 4, 5, 6]
    worlds = {n: ExecuteTexts(LAPTOP, TOKENIZER, 1).executions([n])[0].inputs for n in numbers}
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for text in (
        text for group in ExecuteTexts(LAPTOP, TOKENIZER, 1, ladder_every=every).groups(numbers) for text in group
    ):
        prompt, _ = read_text(text)
        (number,) = [n for n in numbers if world_texts(worlds[n], LAPTOP.show_under_robot)[0] in prompt]
        found[text.question == "heading sentence"].add(number)
    assert found == {True: set(numbers), False: set(expected)}


def test_no_pair_that_is_asked_is_trained():
    texts = ExecuteTexts(LAPTOP, TOKENIZER, 1)
    ladder = draw_ladder(LAPTOP, 60, 12)
    pairs = {pair for part in (ladder.tests, ladder.shots) for pair in pair_texts(part.programs, part.inputs)}
    tasks = tuning_texts.draw_tasks(LAPTOP, 404)
    pairs |= set(pair_texts(tasks.programs, tasks.inputs[:, 0]))
    assert pairs <= asked_pairs(LAPTOP) == texts.asked
    executions, task_of = texts.executions(range(30))
    trained = pair_texts(executions.programs, executions.inputs)
    assert len(trained) == 180
    # Were one of them asked, it would be left out, and the others of its task would stay.
    texts.asked = texts.asked | {trained[7]}
    remaining, remaining_of = texts.executions(range(30))
    assert pair_texts(remaining.programs, remaining.inputs) == trained[:7] + trained[8:]
    assert remaining_of.tolist() == [*task_of[:7].tolist(), *task_of[8:].tolist()]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_programs_with_control_flow_and_as_python_are_asked_about_as_the_ladder_does(monkeypatch, dialect):
    monkeypatch.setattr(tuning_texts, "NUM_ASKED", 3)
    suite = load_suite("control")
    description = describe(dialect, suite.show_under_robot, has_control_flow=True)
    groups = ExecuteTexts(suite, TOKENIZER, 1, dialect).groups(range(3))
    for text in (text for group in groups for text in group):
        prompt, _ = read_text(text)
        world, program = prompt.removeprefix(f"{description}\n\nWorld:\n").split("\nProgram:\n")
        assert world.count("\n") == suite.recipe.height[0] - 3
        parse_program(program.partition("\nQuestion: ")[0], dialect)
        assert prompt.endswith("\nAnswer:")


def test_programs_to_be_written_follow_the_prompts_of_the_trained_track():
    texts = WriteTexts(LAPTOP, TOKENIZER, 3)
    task_sets = TaskSets(LAPTOP)
    tasks = task_sets.training(range(4), 3)
    assert not set(tasks.key.tolist()) & set(task_sets.evaluation_keys().tolist())
    outputs = world_texts(tasks.outputs[:, : LAPTOP.shown].reshape(-1), LAPTOP.show_under_robot)
    for (text,), prompt, i in zip(texts.groups(range(4)), render_prompts(LAPTOP, tasks), range(4), strict=True):
        scored = TOKENIZER.decode([text.ids[position] for position in text.outputs])
        assert "".join(scored.split()) == "".join("".join(outputs[LAPTOP.shown * i : LAPTOP.shown * (i + 1)]).split())
        assert list(text.ids[: text.num_given]) == prompt_ids(TOKENIZER, prompt)
        assert f"def run() {{{read_text(text)[1]}" == tasks.programs.texts()[i]


def test_texts_in_one_row_have_the_logits_that_they_have_alone(folder, tmp_path):
    tuner = open_tuner(folder, tmp_path)
    assert tuner.has_tree_attention
    assert tuner.has_rows
    groups = tuner.texts.groups(range(2))
    (row,) = pack(groups, 10_000)
    texts = [text for group in groups for text in group]
    assert BLOCK < len(row) < sum(len(text.ids) for text in texts) / 5
    with torch.no_grad():
        alone = [plain_logits(tuner, text) for text in texts]
        torch.testing.assert_close(tuner.logits(row), torch.cat(alone), atol=1e-4, rtol=1e-4)
        tuner.has_tree_attention = False
        torch.testing.assert_close(tuner.logits(row), torch.cat(alone), atol=1e-4, rtol=1e-4)
    questions = [text.question for text in texts for _ in text.ids[text.num_given :]]
    assert {"heading sentence"} < set(questions) == set(row.questions)
    assert row.questions == questions
    assert row.targets.tolist() == [token for text in texts for token in text.ids[text.num_given :]]


SMALL = {"vocab_size": len(TOKENIZER), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = {"num_key_value_heads": 1, "intermediate_size": 64}
OTHER_FAMILIES = {
    "positions that are learned": (transformers.GPT2Config(**SMALL, n_positions=2048), True, True),
    "scores that are capped": (transformers.Gemma2Config(**SMALL, **GROUPED, head_dim=16), False, True),
    "a window shorter than a text": (transformers.MistralConfig(**SMALL, **GROUPED, sliding_window=64), True, False),
    "distances in place of positions": (transformers.BloomConfig(**SMALL), False, False),
}


@pytest.mark.parametrize("task", ["execute", "write"])
@pytest.mark.parametrize("name", OTHER_FAMILIES)
def test_models_of_other_families_give_each_text_the_logits_that_it_has_alone(name, task, tmp_path):
    config, has_tree_attention, honours_masks = OTHER_FAMILIES[name]
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    tuner = open_tuner(tmp_path, tmp_path, task=task, batch=3)
    assert (tuner.has_tree_attention, tuner.honours_masks) == (has_tree_attention, honours_masks)
    assert tuner.has_rows == (honours_masks and task == "execute")
    texts = [text for group in tuner.texts.groups(range(3)) for text in group]
    if not tuner.has_rows:
        texts.sort(key=lambda text: len(text.ids))
    batches = tuner.batches(0)
    assert sum(map(len, batches)) <= sum(len(text.ids) for text in texts)
    with torch.no_grad():
        alone = [plain_logits(tuner, text) for text in texts]
        together = torch.cat([tuner.logits(batch) for batch in batches])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    assert [token for batch in batches for token in batch.targets.tolist()] == [
        text.ids[position] for text in texts for position in text.targets
    ]


def plain_logits(tuner: Tuner, text: Text) -> torch.Tensor:
    """The logits before each target of a text."""
    return tuner.head.logits(torch.tensor([text.ids]), torch.tensor([position - 1 for position in text.targets]))


def test_a_model_that_ignores_masks_gets_no_texts_in_one_row(folder, tmp_path, monkeypatch):
    forward = LlamaForCausalLM.forward
    monkeypatch.setattr(LlamaForCausalLM, "forward", forget(forward))
    tuner = open_tuner(folder, tmp_path)
    assert not tuner.honours_masks
    batches = tuner.batches(0)
    assert all(isinstance(batch, TextBatch) for batch in batches)
    assert sum(len(batch.ids) for batch in batches) == 12


def test_texts_of_a_batch_are_padded_at_their_end():
    texts = [Text((*range(1, 6), *[n] * n), 5, str(n)) for n in (30, 1, 12, 3)]
    batches = batch_texts(texts, most_tokens=64)
    assert [batch.ids.shape for batch in batches] == [(2, 16), (1, 32), (1, 48)]
    assert [len(batch) for batch in batches] == [6 + 8, 17, 35]
    first = batches[0]
    assert first.ids[0].tolist() == [1, 2, 3, 4, 5, 1, *[0] * 10]
    assert first.sources.tolist() == [4, 16 + 4, 16 + 5, 16 + 6]
    assert first.targets.tolist() == [1, 3, 3, 3]
    assert first.questions == ["1", "3", "3", "3"]
    # Padding does not exceed the positions that a model has.
    assert [batch.ids.shape for batch in batch_texts(texts, context=36, most_tokens=64)] == [(2, 16), (1, 32), (1, 36)]
    # A text that is longer than a batch may be has one of its own.
    assert [batch.ids.shape for batch in batch_texts(texts, most_tokens=1)] == [(1, 16), (1, 16), (1, 32), (1, 48)]


def forget(forward):
    """The forward pass of a model that ignores the mask and the positions that it gets."""

    def run(self, attention_mask=None, position_ids=None, blocks=None, causal_mask=None, **kwargs):
        return forward(self, **kwargs)

    return run


def test_rows_are_filled_in_order_up_to_their_limit():
    groups = [[Text((1, 2, 3, n), 3), Text((1, 2, 4, n), 3)] for n in (5, 6, 7)]
    assert [len(row) for row in pack(groups, 8)] == [8, 6]
    assert [row.targets.tolist() for row in pack(groups, 1)] == [[5, 5], [6, 6], [7, 7]]
    (row,) = pack(groups[:1], 8)
    assert row.positions.tolist() == [0, 1, 2, 3, 2, 3]
    assert row.mask()[5].tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_training_lowers_the_loss(folder, tmp_path, precision):
    tuner = open_tuner(folder, tmp_path, task="write", steps=12, learning_rate=0.02, precision=precision)
    losses = [tuner.train_step() for _ in range(12)]
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


def test_bfloat16_weights_have_positions_in_float32(folder, tmp_path):
    tuner = open_tuner(folder, tmp_path, precision="bf16")
    assert {p.dtype for p in tuner.model.parameters()} == {torch.bfloat16}
    buffers = dict(tuner.model.named_buffers())
    plain = dict(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).named_buffers())
    assert buffers
    assert all(torch.equal(buffers[name], plain[name]) for name in plain)


def test_a_resumed_run_is_the_same_run(folder, tmp_path, monkeypatch):
    names = ("entire", "stopped")
    words = ["--model", f"path:{folder}", "--task", "write", "--steps", "5", "--batch", "2", "--save-every", "2"]
    calls = {name: [*words, "--output-dir", str(tmp_path / name)] for name in names}
    assert baselines.tune.main(calls["entire"]) == 0
    train_step = Tuner.train_step

    def stop(self):
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)
        return train_step(self)

    monkeypatch.setattr(Tuner, "train_step", stop)
    assert baselines.tune.main(calls["stopped"]) == 1
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    monkeypatch.setattr(Tuner, "train_step", train_step)
    assert baselines.tune.main(calls["stopped"]) == 0
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in names)
    assert first == second
    training = json.loads((tmp_path / "stopped" / "training.json").read_text())
    assert (training["tasks_seen"], training["step"], training["recipe"]["suite"]) == (10, 5, "laptop")
    assert [list(entry["questions"]) for entry in training["log"]] == [["outputs", "write"]]
    assert training["tokens_seen"] > 2 * training["targets_seen"] > 0
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(tmp_path / "entire"))))
    assert len(model.generate(["program\ndef run() {"], 4)) == 1
    assert "prefix_tree" not in (tmp_path / "entire" / "config.json").read_text()


def test_a_run_into_a_file_is_never_silent_for_long(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "MAX_SILENT_SECONDS", 0.0)
    words = ["--model", f"path:{folder}", "--task", "write", "--steps", "3", "--batch", "1"]
    assert baselines.tune.main([*words, "--output-dir", str(tmp_path / "tuned")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert "loss" in lines[-1]


def test_other_options_do_not_resume_a_run(folder, tmp_path, capsys):
    words = [
        "--model",
        f"path:{folder}",
        "--task",
        "execute",
        "--steps",
        "1",
        "--batch",
        "1",
        "--output-dir",
        str(tmp_path),
    ]
    assert baselines.tune.main([*words, "--minutes", "0.001"]) == 0
    assert baselines.tune.main([*words, "--seed", "2"]) == 2
    assert "its training has seed 1, received 2; give the same options to resume it" in capsys.readouterr().err


def test_new_weights_are_not_the_stored_ones(folder, tmp_path):
    stored, new, again = (open_tuner(folder, tmp_path, from_scratch=scratch).masters for scratch in (False, True, True))
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(stored[name], load_file(folder / "model.safetensors")[name])
    assert not torch.allclose(stored[name], new[name])
    assert torch.equal(new[name], again[name])


@pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra tune")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_low_rank_updates_are_merged(folder, tmp_path):
    tuner = open_tuner(folder, tmp_path, lora=4, steps=2)
    assert sum(p.numel() for p in tuner.masters.values()) < 20_000
    tune(tuner, 10)
    stored, merged = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert stored.keys() == merged.keys()
    name = "model.layers.1.self_attn.q_proj.weight"
    change = merged[name].float() - stored[name]
    assert 0 < change.abs().max() < 0.1
    assert torch.equal(merged["model.embed_tokens.weight"], stored["model.embed_tokens.weight"].bfloat16())


def test_what_cannot_be_trained_is_said(folder, tmp_path, capsys, monkeypatch):
    words = ["--model", f"path:{folder}", "--output-dir", str(tmp_path)]
    monkeypatch.setattr(tuning, "find_spec", lambda name: None)
    for more, message in {
        ("--task", "write", "--lora", "4"): "--lora 4: package peft is not installed; run: pip install",
        ("--task", "write", "--lora", "4", "--from-scratch"): "new weights are all trained; leave one of them out",
        ("--task", "write", "--dialect", "python"): "the trained track has canonical programs only",
    }.items():
        assert baselines.tune.main([*words, *more]) == 2
        assert message in capsys.readouterr().err
    short = LlamaForCausalLM.from_pretrained(folder)
    short.config.max_position_embeddings = 100
    short.save_pretrained(tmp_path / "short")
    TOKENIZER.save_pretrained(tmp_path / "short")
    assert baselines.tune.main(["--model", f"path:{tmp_path / 'short'}", "--task", "write", *words[2:]]) == 3
    assert "context of 100 tokens, but a text of suite laptop has" in capsys.readouterr().err
    assert baselines.tune.main(["--model", "baseline:search", "--task", "write", "--output-dir", str(tmp_path)]) == 3
    assert "baseline:search: has no weights to train; expected path:FOLDER or hf:org/name" in capsys.readouterr().err
