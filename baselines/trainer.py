"""Training of a baseline: model, optimizers, batches, saved states; see `baselines.train`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from baselines.encoding import IGNORE_INDEX, encode, token_weights
from baselines.lstm import LstmForCausalLM
from baselines.muon import Muon
from baselines.recipe import Recipe
from baselines.selective_scan import install_selective_scan
from baselines.tokenizer import PAD, build_tokenizer, cell_pairs, vocabulary
from benchmark.command import note_results_kept
from benchmark.environment import gpu_name, package_versions, processor_name
from benchmark.errors import UsageError
from benchmark.models.json_files import TRAINING_FILE
from benchmark.runner.plain_progress import MAX_SECONDS as MAX_SILENT_SECONDS
from benchmark.tasks.suite import load_suite
from benchmark.tasks.task_sets import TaskSets

CUSTOM_CLASSES = {"LstmForCausalLM": LstmForCausalLM}
PACKAGES = ("torch", "transformers", "accelerate", "numpy")
LOG_INTERVAL = 50
LENGTH_STEP = 64
"""Lengths of parts are multiples of this, and sequences whose lengths differ by less are not sorted."""
STATE_FOLDERS = ("state", "state.new", "state.old")
"""Folders of saved states in order of preference; `progress.json` is written last, so a state with it is complete."""


def build_recipe_tokenizer(recipe: Recipe) -> transformers.PreTrainedTokenizerFast:
    """Build the tokenizer of a recipe; line ends are tokens in a suite whose worlds differ in size."""
    suite = load_suite(recipe.suite)
    return build_tokenizer(cell_pairs(suite.show_under_robot) if recipe.pairs else (), suite.has_several_sizes)


def build_model(recipe: Recipe) -> torch.nn.Module:
    """Build the untrained model, initialised from the recipe's seed."""
    set_seed(recipe.seed)
    tokenizer = build_recipe_tokenizer(recipe)
    model_class = CUSTOM_CLASSES.get(recipe.model_class) or getattr(transformers, recipe.model_class)
    config = model_class.config_class(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **recipe.config,
    )
    return model_class(config)


def build_optimizers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Build Muon for the matrices inside the blocks, and AdamW for embeddings, head, norms, biases and the rest."""
    embedding_ids = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}  # type: ignore[operator]
    embedding_ids |= {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embedding_ids and recipe.muon_lr > 0]
    matrix_ids = {id(p) for p in matrices}
    other_parameters = [p for p in model.parameters() if id(p) not in matrix_ids]
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in other_parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [p for p in other_parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=recipe.adam_lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    if not matrices:
        return [adam]
    named_matrices = {name: p for name, p in model.named_parameters() if id(p) in matrix_ids}
    return [
        Muon(_group_matrices(named_matrices, recipe.muon_parts), lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
        adam,
    ]


def _group_matrices(matrices: Mapping[str, torch.Tensor], parts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Parameter groups for Muon, by the number of stacked matrices."""
    groups: dict[int, list[torch.Tensor]] = {}
    for part, count in parts.items():
        rows = [len(matrix) for name, matrix in matrices.items() if part in name]
        if not rows or any(num_rows % count for num_rows in rows):
            raise UsageError(
                f"muon_parts: {part}: {count}: the matrices of that name have {rows or 'no'} rows; name matrices whose rows "
                "are divisible by it"
            )
    for name, matrix in matrices.items():
        count = next((count for part, count in parts.items() if part in name), 1)
        groups.setdefault(count, []).append(matrix)
    return [{"params": members, "parts": count} for count, members in groups.items()]


def build_batch(task_sets: TaskSets, recipe: Recipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels [batch, S] of one step."""
    tasks, suite = task_sets.training(recipe.task_numbers(step), recipe.seed), task_sets.suite
    tokens, labels = encode(
        tasks, suite.shown, suite.show_under_robot, recipe.loss, recipe.pairs, suite.has_several_sizes
    )
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def split_batch(
    tokens: torch.Tensor, labels: torch.Tensor, micro: int, pad: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Split tokens and labels [N, S] into parts of `micro` sequences, the longest first, each as long as it needs.

    Lengths are rounded up to a multiple of `LENGTH_STEP`, so that a compiled model meets few of them.
    """
    lengths = (tokens != pad).sum(1)
    if int(lengths.max() - lengths.min()) >= LENGTH_STEP:
        order = lengths.argsort(descending=True, stable=True)
        tokens, labels, lengths = tokens[order], labels[order], lengths[order]
    parts = []
    for start in range(0, len(tokens), micro):
        part = slice(start, start + micro)
        longest = -(-int(lengths[part].max()) // LENGTH_STEP) * LENGTH_STEP
        parts.append((tokens[part, :longest], labels[part, :longest]))
    return parts


class Trainer:
    """Training loop state of a run in a folder: steps, resuming, saving.

    Args:
        recipe: settings of the run.
        folder: output folder.
        compile_model: whether to use torch.compile.
        precision: autocast precision, `no` or `bf16`.
        command: command line, for `training.json`.

    Raises:
        UsageError: the batch is not divisible by the number of processes.
    """

    def __init__(self, recipe: Recipe, folder: Path, compile_model: bool, precision: str, command: str = "") -> None:
        self.recipe, self.folder, self.command, self.precision = recipe, folder, command, precision
        self.suite = load_suite(recipe.suite)
        self.task_sets = TaskSets(self.suite)
        logged = {"log_with": "tensorboard", "project_dir": str(folder)} if find_spec("tensorboardX") else {}
        self.accelerator = Accelerator(mixed_precision=precision, **logged)
        if recipe.batch % self.accelerator.num_processes:
            raise UsageError(
                f"batch {recipe.batch} cannot be shared by {self.accelerator.num_processes} processes; "
                "use a number of processes that divides it"
            )
        self.raw_model = build_model(recipe)
        self.pad = vocabulary()[PAD]
        if recipe.model_class == "MambaForCausalLM" and self.accelerator.device.type == "cpu":
            install_selective_scan(compile_model)
        optimizers = build_optimizers(self.raw_model, recipe)
        prepared = self.accelerator.prepare(self.raw_model, *optimizers)
        self.model, self.optimizers = prepared[0], list(prepared[1:])
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        vocab_size = self.raw_model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        # On host and device: counting the predicted tokens on a GPU would synchronise in every step.
        self.host_weights = torch.from_numpy(token_weights(vocab_size, recipe.program_weight))
        self.weights = self.host_weights.to(self.accelerator.device)
        self.forward = torch.compile(self.model) if compile_model else self.model
        self.saved_steps = set(recipe.checkpoint_steps())
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.log: list[dict[str, float]] = []
        if logged:
            self.accelerator.init_trackers("logs")

    def resume(self) -> None:
        """Resume from the last saved state of the folder, if any."""
        # A run killed while a state was being replaced has only `state.new` and `state.old`.
        candidates = (self.folder / name / "progress.json" for name in STATE_FOLDERS)
        progress = next((path for path in candidates if path.is_file()), None)
        if progress is not None:
            self.accelerator.load_state(str(progress.parent))
            saved = json.loads(progress.read_text())
            self.step, self.seconds, self.tokens = saved["step"], saved["seconds"], saved["tokens"]
            self.log = saved["log"]

    def save_state(self) -> None:
        """Save the state for resuming; it replaces the previous state only when complete."""
        old, new, last = (self.folder / name for name in STATE_FOLDERS)
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(new))
        # Each process writes its random state; rename the folder only after the slowest has finished.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            progress = {"step": self.step, "seconds": self.seconds, "tokens": self.tokens, "log": self.log}
            (new / "progress.json").write_text(json.dumps(progress))
            shutil.rmtree(last, ignore_errors=True)
            if old.exists():
                old.rename(last)
            new.rename(old)
            shutil.rmtree(last, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def train_step(self) -> torch.Tensor:
        """Run one optimiser step; returns the mean weighted loss in nats per predicted token, without synchronising."""
        tokens, labels = build_batch(self.task_sets, self.recipe, self.step)
        factor = self.recipe.learning_rate_factor(self.step)
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        self.tokens += int((tokens != self.pad).sum())
        targets = labels[:, 1:]
        predicted = float(self.host_weights[targets[targets != IGNORE_INDEX]].sum())
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        local_slice = slice(rank * len(tokens) // processes, (rank + 1) * len(tokens) // processes)
        micro = self.recipe.micro or len(tokens)
        parts = split_batch(tokens[local_slice], labels[local_slice], micro, self.pad)
        total = torch.zeros((), device=self.accelerator.device)
        for num_remaining, (ids, part_labels) in zip(reversed(range(len(parts))), parts, strict=True):
            # Processes exchange gradients once per step, with its last part.
            with self.accelerator.no_sync(self.model) if num_remaining else nullcontext():
                total += self._backward(ids, part_labels, predicted)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return self.accelerator.reduce(total, "sum")

    def _backward(self, ids: torch.Tensor, labels: torch.Tensor, predicted: float) -> torch.Tensor:
        """Accumulate the gradient of a micro-batch; returns its part of the mean loss of the step."""
        logits = self.forward(input_ids=self._to_device(ids), use_cache=False).logits
        targets = self._to_device(labels[:, 1:].reshape(-1))
        scores = logits[:, :-1].flatten(0, 1).float()
        summed = torch.nn.functional.cross_entropy(scores, targets, self.weights, reduction="sum")
        # Processes average their gradients; the mean of a step is over the predicted tokens of all processes.
        self.accelerator.backward(summed * (self.accelerator.num_processes / predicted))
        return summed.detach() / predicted

    def _to_device(self, tokens: torch.Tensor) -> torch.Tensor:
        """Copy tokens to the device, asynchronously for a GPU."""
        device = self.accelerator.device
        return tokens.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tokens.to(device)

    def save_model(self, folder: Path) -> None:
        """Save the model as a Hugging Face folder with bfloat16 weights and `training.json`."""
        # Only the main process checks the folder, and all wait: otherwise a process could see it before it exists.
        if self.accelerator.is_main_process and not (folder != self.folder and folder.exists()):
            new = folder if folder == self.folder else folder.with_name(f"{folder.name}.new")
            deepcopy(self.raw_model).to(torch.bfloat16).save_pretrained(new)  # type: ignore[operator]
            build_recipe_tokenizer(self.recipe).save_pretrained(new)
            (new / TRAINING_FILE).write_text(json.dumps(self.describe(), indent=1) + "\n")
            if new != folder:
                new.rename(folder)
        self.accelerator.wait_for_everyone()

    def describe(self) -> dict[str, object]:
        """Entries of `training.json`: recipe, progress, machine, packages and log."""
        device = str(self.accelerator.device)
        return {
            "command": self.command,
            "recipe": asdict(self.recipe),
            "step": self.step,
            "tasks_seen": self.step * self.recipe.batch,
            "tokens_seen": self.tokens,
            "parameters": sum(p.numel() for p in self.raw_model.parameters()),
            "minutes": round(self.seconds / 60, 1),
            "processes": self.accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "device": gpu_name(device) or device,
            "precision": self.precision,
            "processor": processor_name(),
            "packages": package_versions(PACKAGES),
            "log": self.log,
        }

    def keep_checkpoint(self) -> None:
        """Save a checkpoint if the recipe lists the current step."""
        if self.step in self.saved_steps:
            self.save_model(self.folder / "checkpoints" / f"step-{self.step:07d}")


def train(trainer: Trainer, save_every: int) -> None:
    """Train to the end of the recipe with a progress bar, saving the state every `save_every` steps."""
    note_results_kept()
    main, last = trainer.accelerator.is_main_process, trainer.recipe.steps
    show_bar = main and sys.stderr.isatty()
    prints_lines, line_time = main and not show_bar, time.monotonic()
    if prints_lines:
        _print_line({"step": trainer.step, "steps": last, "out": str(trainer.folder)})
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show_bar) as bar:
        bar_task = bar.add_task("training", total=last, completed=trainer.step)
        recent: list[torch.Tensor] = []
        trainer.keep_checkpoint()
        while trainer.step < last:
            start = time.perf_counter()
            recent.append(trainer.train_step())
            if trainer.step % LOG_INTERVAL == 0 or trainer.step == last:
                loss = float(torch.stack(recent).mean())
                recent = []
            trainer.seconds += time.perf_counter() - start
            if not recent:
                _log_step(trainer, loss, to_stderr=prints_lines)
                line_time = time.monotonic()
                bar.update(bar_task, description=f"loss {loss:.4f}")
            elif prints_lines and time.monotonic() - line_time >= MAX_SILENT_SECONDS:
                _print_line({"step": trainer.step, "steps": last, "seconds": round(trainer.seconds)})
                line_time = time.monotonic()
            bar.update(bar_task, completed=trainer.step)
            trainer.keep_checkpoint()
            if trainer.step % save_every == 0 and trainer.step < last:
                trainer.save_state()
    trainer.save_state()
    trainer.save_model(trainer.folder)
    trainer.accelerator.end_training()


def _log_step(trainer: Trainer, loss: float, to_stderr: bool) -> None:
    """Log the mean loss of the last steps."""
    speed = trainer.step * trainer.recipe.batch / trainer.seconds
    remaining = (trainer.recipe.steps - trainer.step) * trainer.recipe.batch / speed
    trainer.log.append({"step": trainer.step, "loss": round(loss, 5), "seconds": round(trainer.seconds)})
    rate = trainer.recipe.learning_rate_factor(trainer.step - 1)
    trainer.accelerator.log({"loss": loss, "rate": rate, "tasks_per_second": speed}, step=trainer.step)
    if to_stderr:
        line = trainer.log[-1] | {
            "steps": trainer.recipe.steps,
            "tasks_per_second": round(speed, 1),
            "left": round(remaining),
        }
        _print_line(line)


def _print_line(entries: dict[str, Any]) -> None:
    print(json.dumps(entries), file=sys.stderr, flush=True)
