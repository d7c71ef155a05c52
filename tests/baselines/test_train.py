"""Training: a stopped run resumed equals one that was never stopped, several processes equal one; Muon is orthogonal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event
from worlds import WORLDS_SUITE

import baselines.speed
import baselines.train
import baselines.trainer
from baselines.encoding import IGNORE_INDEX, encode
from baselines.muon import Muon, orthogonalize
from baselines.recipe import RECIPES, Recipe, find_recipe, load_recipe
from baselines.speed import measure_speed
from baselines.tokenizer import END, vocabulary
from baselines.trainer import Trainer, build_batch, build_optimizers, split_batch
from benchmark.errors import UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec
from benchmark.tasks.suite import load_suite, training_tasks
from benchmark.tasks.task_sets import TaskSets
from karel_env.language import WORDS

RECIPE = """
suite: smoke
architecture:
  class: LlamaForCausalLM
  config: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 192}
optimizer:
  {batch: 4, tasks: 24, muon_lr: 0.02, adam_lr: 0.003, weight_decay: 0.01, warmup: 0.1, decay: 0.5, clip: 1.0}
seed: 3
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_resumed_training_is_the_same_training(recipe, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ["--threads", "1", "--save-every", "2"]
    assert baselines.train.main([str(recipe), "--out", str(whole), *words]) == 0
    real = baselines.trainer.Trainer.train_step

    def stopped(self):
        if self.step == 5:
            signal.raise_signal(signal.SIGINT)
        return real(self)

    monkeypatch.setattr(baselines.trainer.Trainer, "train_step", stopped)
    assert baselines.train.main([str(recipe), "--out", str(broken), *words]) == 1
    assert not (broken / "model.safetensors").exists()
    monkeypatch.setattr(baselines.trainer.Trainer, "train_step", real)
    assert baselines.train.main([str(recipe), "--out", str(broken), *words]) == 0
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    facts = json.loads((whole / "training.json").read_text())
    assert facts["tasks_seen"] == 24
    assert facts["log"][-1]["step"] == 6
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(whole))))
    assert len(model.generate(["program\ndef run() {"], 4)) == 1


@pytest.mark.parametrize("left", ["state.new", "state.old"])
def test_a_run_killed_while_its_state_is_replaced_goes_on(recipe, tmp_path, left):
    words = [str(recipe), "--out", str(tmp_path / "run"), "--threads", "1"]
    assert baselines.train.main(words) == 0
    (tmp_path / "run" / "state").rename(tmp_path / "run" / left)
    run = baselines.trainer.Trainer(load_recipe(recipe), tmp_path / "run", False, "no")
    run.resume()
    assert run.step == 6
    run.save_state()
    assert [path.name for path in (tmp_path / "run").glob("state*")] == ["state"]


def test_a_state_replaces_the_last_one_when_all_have_written_theirs(recipe, tmp_path, monkeypatch):
    """What lies in the folder whenever processes wait for each other."""
    run, seen = Trainer(load_recipe(recipe), tmp_path, False, "no"), []
    look = lambda: seen.append(sorted(path.name for path in tmp_path.glob("state*")))  # noqa: E731
    run.save_state()
    monkeypatch.setattr(run.accelerator, "wait_for_everyone", look)
    run.save_state()
    assert (seen[0], seen[-2], seen[-1]) == (["state"], ["state", "state.new"], ["state"])


def test_saving_a_model_draws_no_bar(recipe, tmp_path):
    transformers.utils.logging.enable_progress_bar()
    assert (
        baselines.train.main([str(recipe), "--output-dir", str(tmp_path / "model"), "--set", "optimizer.tasks=4"]) == 0
    )
    assert not transformers.utils.logging.is_progress_bar_enabled()


def test_training_lowers_the_loss(recipe, tmp_path):
    recipe.write_text(RECIPE.replace("tasks: 24", "tasks: 320"))
    run = baselines.trainer.Trainer(load_recipe(recipe), tmp_path, False, "no")
    losses = [run.train_step() for _ in range(60)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_weight_of_a_program_is_that_of_its_tokens_in_the_mean(recipe, tmp_path):
    training = load_recipe(recipe, ["program_weight=5"])
    run = Trainer(training, tmp_path / "run", False, "no")
    tokens, labels = build_batch(run.task_sets, training, 0)
    with torch.no_grad():
        log_prob = run.raw_model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
    targets = labels[:, 1:]
    ours = -log_prob.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    ids = vocabulary()
    program = torch.isin(targets, torch.tensor([ids[END], *(ids[word] for word in WORDS)]))
    assert program.sum(1).tolist() == [len(text.split()) - 2 for text in program_texts(run.suite, training)]
    weights = torch.where(program, 5.0, 1.0) * (targets != IGNORE_INDEX)
    expected = (weights * ours).sum() / weights.sum()
    assert float(run.train_step()) == pytest.approx(float(expected), rel=1e-5)
    plain = Trainer(load_recipe(recipe), tmp_path / "plain", False, "no")
    assert float(plain.train_step()) == pytest.approx(float(ours[targets != IGNORE_INDEX].mean()), rel=1e-5)


def program_texts(suite, training):
    return training_tasks(suite, training.task_numbers(0), training.seed).programs.texts()


def test_a_wrong_recipe_names_its_file(recipe):
    recipe.write_text(RECIPE.replace("clip: 1.0", "clap: 1.0"))
    with pytest.raises(UsageError, match=r"recipe\.yaml.*clap"):
        load_recipe(recipe)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (1, 20, 6)])
def test_orthogonalized_singular_values_are_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), steps=8))
    assert values.max() < 1.4
    assert values.min() > 0.4


def test_parts_of_a_matrix_are_updated_as_matrices_of_their_own():
    torch.manual_seed(1)
    values, gradients = torch.randn(12, 6), torch.randn(3, 12, 6)
    whole, *blocks = (each.clone().requires_grad_() for each in (values, *values.split(4)))
    together = Muon([{"params": [whole], "parts": 3}], lr=0.1, weight_decay=0.1)
    apart = Muon(blocks, lr=0.1, weight_decay=0.1)
    for gradient in gradients:
        whole.grad = gradient
        for block, part in zip(blocks, gradient.split(4), strict=True):
            block.grad = part
        together.step()
        apart.step()
    torch.testing.assert_close(whole, torch.cat(blocks))


def test_a_recipe_names_the_matrices_that_have_parts(recipe):
    training = load_recipe(recipe, ["optimizer.muon_parts={q_proj: 2, gate: 4}"])
    model = baselines.trainer.build_model(training)
    muon = build_optimizers(model, training)[0]
    found = {group["parts"]: [tuple(p.shape) for p in group["params"]] for group in muon.param_groups}
    assert (found[2], found[4]) == ([(16, 16)], [(32, 16)])
    assert len(found[1]) == 5
    for wrong in ("{q_proj: 3}", "{no_such: 2}"):
        with pytest.raises(UsageError, match="muon_parts"):
            build_optimizers(model, load_recipe(recipe, [f"optimizer.muon_parts={wrong}"]))


class OneOfTwo:
    """The accelerator of one of two processes that exchange nothing: keeps its gradients of a step."""

    def __init__(self, alone: Accelerator, rank: int) -> None:
        self.alone, self.num_processes, self.process_index = alone, 2, rank
        self.gradients: list[torch.Tensor] = []

    def __getattr__(self, name: str):
        return getattr(self.alone, name)

    def clip_grad_norm_(self, parameters, most: float) -> None:
        self.gradients = [parameter.grad.clone() for parameter in parameters]


@pytest.mark.parametrize("micro", [0, 1])
def test_gradients_of_two_processes_average_to_those_of_one(recipe, tmp_path, micro):
    """Each takes its share of a step's tasks, and of its share a few at a time; losses add up."""
    changes = [f"micro={micro}", "program_weight=3"]
    gradients, losses = [], []
    for rank in range(2):
        run = Trainer(load_recipe(recipe, changes), tmp_path / str(rank), False, "no")
        run.accelerator = process = OneOfTwo(run.accelerator, rank)
        losses.append(float(run.train_step()))
        gradients.append(process.gradients)
    run = Trainer(load_recipe(recipe, changes[1:]), tmp_path / "one", False, "no")
    expected: list[torch.Tensor] = []
    run.accelerator.clip_grad_norm_ = lambda parameters, most: expected.extend(p.grad.clone() for p in parameters)
    assert sum(losses) == pytest.approx(float(run.train_step()), rel=1e-5)
    assert min(losses) > 0
    assert not torch.allclose(gradients[0][0], gradients[1][0])
    for first, second, both in zip(*gradients, expected, strict=True):
        torch.testing.assert_close((first + second) / 2, both, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_several_processes_make_the_model_that_one_makes(recipe, tmp_path):
    """Each takes its share of a step's tasks, and of each share a few at a time; a state waits for the slower one."""
    recipe.write_text(RECIPE + "micro: 1\ncheckpoints: 2\n")
    words = [str(recipe), "--threads", "1", "--save-every", "3", "--out", str(tmp_path / "two")]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "tests/helpers/slow_process.py",
        *words,
    ]
    subprocess.run(launcher, env=environment, check=True, cwd=root)
    recipe.write_text(recipe.read_text().replace("micro: 1", "micro: 0"))
    assert baselines.train.main([str(recipe), "--out", str(tmp_path / "one"), "--threads", "1"]) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name].float(), value.float(), atol=1e-2, rtol=1e-2)
    facts = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("one", "two")]
    assert [each["processes"] for each in facts] == [1, 2]
    assert facts[0]["log"][-1]["loss"] == pytest.approx(facts[1]["log"][-1]["loss"], rel=1e-3)
    assert len(list((tmp_path / "two" / "checkpoints").iterdir())) == 3
    assert len(list((tmp_path / "two" / "state").glob("random_states_*"))) == 2


def test_tensorboard_reads_the_logs(recipe, tmp_path):
    assert baselines.train.main([str(recipe), "--out", str(tmp_path / "run"), "--threads", "1"]) == 0
    content = next((tmp_path / "run" / "logs").rglob("events.*")).read_bytes()
    tags, place = set(), 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 8], "little")
        event = Event.FromString(content[place + 12 : place + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        place += 16 + length
    assert {"loss", "rate", "tasks_per_second"} <= tags


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_steps(path, tmp_path):
    training = load_recipe(path, ["optimizer.batch=2", "optimizer.tasks=4", "micro=0", "checkpoints=0"])
    if path.stem == "icml24-paper":
        training = load_recipe(path, [
            "optimizer.batch=2", "optimizer.tasks=4", "micro=0", "checkpoints=0", "architecture.config.n_layer=1",
            "architecture.config.n_embd=64", "architecture.config.n_head=4", "architecture.config.rotary_dim=16",
        ])  # fmt: skip
    run = baselines.trainer.Trainer(training, tmp_path, False, "no")
    first = float(run.train_step())
    assert np.isfinite(first)
    assert 1 < first < 10


def test_a_pool_is_seen_whole_each_epoch_in_another_order():
    training = Recipe("smoke", "x", {}, 4, 40, 0, 0, 0, 0, 0, 1, 7, pool=10)
    seen = np.concatenate([training.task_numbers(step) for step in range(10)])
    epochs = seen.reshape(4, 10)
    assert (np.sort(epochs, 1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_checkpoints_are_dense_at_the_beginning():
    training = Recipe("smoke", "x", {}, 1, 100, 0, 0, 0, 0, 0, 1, 7, checkpoints=10)
    assert training.checkpoint_steps() == [0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100]


def test_checkpoints_are_evenly_spaced_in_the_logarithm_of_steps(recipe):
    training = Recipe("smoke", "x", {}, 1, 640, 0, 0, 0, 0, 0, 1, 7, checkpoints=7, spacing="log")
    assert training.checkpoint_steps() == [0, 10, 20, 40, 80, 160, 320, 640]
    assert load_recipe(recipe, ["spacing=log"]).spacing == "log"
    for spacing in ("linear", "0"):
        with pytest.raises(UsageError, match="expected a number above 0, or log"):
            load_recipe(recipe, [f"spacing={spacing}"])


def test_entries_are_changed_by_name(recipe):
    assert load_recipe(recipe, ["optimizer.batch=8", "seed=9"]).batch == 8
    for change, said in (("optimizer.batch", "NAME=VALUE"), ("nothing.batch=1", "nothing"), ("loss=none", "none")):
        with pytest.raises(UsageError, match=said):
            load_recipe(recipe, [change])


def test_an_unknown_recipe_is_named_with_the_known_ones(capsys):
    assert baselines.train.main(["nothing", "--out", "x"]) == 2
    assert "llama-laptop" in capsys.readouterr().err
    assert find_recipe("llama-laptop").is_file()


def test_products_are_counted_as_the_formula_says(recipe):
    """Three passes of two operations a weight and token, and the attention's two products."""
    recipe.write_text(RECIPE.replace("suite: smoke", f"suite: {WORLDS_SUITE}"))
    training = load_recipe(recipe)
    found = measure_speed(training, False, "no", 1)
    suite = load_suite(training.suite)
    length = build_batch(TaskSets(suite), training, 0)[0].shape[1]
    width, inner, words = 16, 32, len(vocabulary())
    weights = 4 * width * width + 3 * width * inner + width * words
    attention = 2 * 2 * length * length * width
    # Attention is counted once more where its backward pass computes the scores again.
    low = 3 * (2 * weights * length + attention)
    assert low * 0.8 <= found.operations <= low + attention
    assert 0 < found.share < 1


def test_the_throughput_is_that_of_the_faster_dtype(recipe, monkeypatch, capsys):
    recipe.write_text(RECIPE.replace("suite: smoke", f"suite: {WORLDS_SUITE}"))
    monkeypatch.setattr(baselines.speed, "CPU_MATRIX_SIZE", 64)
    for slowdown, dtype in ((38.0, "float32"), (0.5, "bfloat16")):
        monkeypatch.setattr(baselines.speed, "measure_slowdown", lambda _, slowdown=slowdown: slowdown)
        assert baselines.speed.main([str(recipe), "--steps", "1"]) == 0
        assert f"({dtype})" in capsys.readouterr().out


@pytest.fixture
def new_precision():
    """Accelerate keeps one precision a process; here it forgets it before and after."""
    AcceleratorState._reset_state()
    PartialState._reset_state()
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


@pytest.mark.usefixtures("new_precision")
def test_speed_is_measured_in_the_precision_that_was_asked_for(recipe, capsys):
    assert baselines.speed.main([str(recipe), "--steps", "1", "--precision", "bf16"]) == 0
    assert "tasks/s" in capsys.readouterr().out
    assert AcceleratorState().mixed_precision == "bf16"


def test_products_of_an_lstm_are_counted(tmp_path):
    """Its layers are one operation of oneDNN each, in which torch counts nothing."""
    path = tmp_path / "lstm.yaml"
    path.write_text(
        "{suite: smoke, architecture: {class: LstmForCausalLM, config: {hidden_size: 48, num_hidden_layers: 2}}, seed: 1,\n"
        " optimizer: {batch: 8, tasks: 8, muon_lr: 0, adam_lr: 0.003, weight_decay: 0, warmup: 0.1, decay: 0.5, clip: 1.0}}\n"
    )
    training = load_recipe(path)
    length = build_batch(TaskSets(load_suite(training.suite)), training, 0)[0].shape[1]
    width = training.config["hidden_size"]
    weights = 2 * 8 * width * width + width * len(vocabulary())
    assert measure_speed(training, False, "no", 1).operations == pytest.approx(6 * weights * length, rel=0.15)


def test_parts_of_a_step_are_no_longer_than_they_need():
    lengths = [100, 300, 20, 290, 130]
    tokens = torch.zeros((5, 310), dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = length
    parts = split_batch(tokens, tokens + 1, 2, pad=0)
    assert [part.shape[1] for part, _ in parts] == [310, 192, 64]
    assert [row[0].item() for part, _ in parts for row in part] == [300, 290, 130, 100, 20]
    assert all((labels == part + 1).all() for part, labels in parts)
    # Of about one length, the order stays.
    ((part, _),) = split_batch(tokens[[0, 4]], tokens[[0, 4]], 2, pad=0)
    assert part[:, 0].tolist() == [100, 130]
    assert part.shape[1] == 192


@pytest.mark.parametrize("micro", [0, 2])
def test_a_step_of_worlds_of_several_sizes_has_the_loss_of_its_tasks(recipe, tmp_path, micro):
    """Padding and the order of parts do not matter: the loss is that of each task alone, weighted by its targets."""
    training = load_recipe(recipe, ["suite=control", "pairs=true", "optimizer.batch=4", f"micro={micro}"])
    trainer = Trainer(training, tmp_path, False, "no")
    task_sets = TaskSets(load_suite("control"))
    sums, count = 0.0, 0
    with torch.no_grad():
        for number in range(4):
            tasks = task_sets.training(np.array([number]), training.seed)
            ids, labels = encode(tasks, 5, True, pairs=True, line_ends=True)
            logits = trainer.raw_model(input_ids=torch.from_numpy(ids)).logits[0, :-1]
            targets = torch.from_numpy(labels[0, 1:])
            sums += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            count += int((targets != IGNORE_INDEX).sum())
    assert float(trainer.train_step()) == pytest.approx(sums / count, rel=1e-5)
