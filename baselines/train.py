"""Train a baseline on fresh tasks of a suite: `python -m baselines.train RECIPE --out FOLDER`.

Each step draws its own tasks by number, so a run resumed from its last saved state goes on exactly as it would have.
The folder ends as a plain Hugging Face model: config, safetensors weights, tokenizer, and `training.json` with what
made it; `checkpoints/step-N` are the same at the steps of the recipe, `logs` is read by tensorboard. One process, or
several by `torchrun` or `accelerate launch`, which share each step's tasks. Not covered: data that is not generated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
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
from baselines.recipe import Recipe, find_recipe, load_recipe
from baselines.selective_scan import install_selective_scan
from baselines.tokenizer import build_tokenizer, cell_pairs
from benchmark.cli.options import MAX_THREADS, SEED
from benchmark.command import make_folder, run_command
from benchmark.environment import gpu_name, package_versions, processor_name
from benchmark.errors import UsageError
from benchmark.tasks.suite import Suite, load_suite, training_tasks
from karel_env.command import CommandParser, integer

OWN_CLASSES = {"LstmForCausalLM": LstmForCausalLM}
PACKAGES = ("torch", "transformers", "accelerate", "numpy")
LOG_EVERY = 50
STATES = ("state", "state.new", "state.old")
"""Saved states by the order in which they count; `progress.json` is written last, so one that has it is whole."""


def tokenizer_of(training: Recipe) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer that the recipe asks for."""
    return build_tokenizer(cell_pairs(load_suite(training.suite).show_under_robot) if training.pairs else ())


def build_model(training: Recipe) -> torch.nn.Module:
    """The untrained model, initialised from the recipe's seed."""
    set_seed(training.seed)
    tokenizer = tokenizer_of(training)
    model_class = OWN_CLASSES.get(training.model_class) or getattr(transformers, training.model_class)
    config = model_class.config_class(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **training.config,
    )
    return model_class(config)


def build_optimizers(model: torch.nn.Module, training: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, head, norms, biases and all else."""
    ends = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}  # type: ignore[operator]
    ends |= {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in ends and training.muon_lr > 0]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": training.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=training.adam_lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    if not matrices:
        return [adam]
    named = {name: p for name, p in model.named_parameters() if id(p) in chosen}
    return [Muon(_groups(named, training.muon_parts), lr=training.muon_lr, weight_decay=training.weight_decay), adam]


def _groups(matrices: Mapping[str, torch.Tensor], parts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The matrices by the number of their parts."""
    groups: dict[int, list[torch.Tensor]] = {}
    for part, count in parts.items():
        rows = [len(matrix) for name, matrix in matrices.items() if part in name]
        if not rows or any(each % count for each in rows):
            raise ValueError(
                f"muon_parts: {part}: {count}: the matrices of that name have {rows or 'no'} rows; name some whose rows "
                "this divides"
            )
    for name, matrix in matrices.items():
        count = next((count for part, count in parts.items() if part in name), 1)
        groups.setdefault(count, []).append(matrix)
    return [{"params": members, "parts": count} for count, members in groups.items()]


def batch_of(suite: Suite, training: Recipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels [batch, S] of one step."""
    tasks = training_tasks(suite, training.task_numbers(step), training.seed)
    tokens, labels = encode(tasks, suite.shown, suite.show_under_robot, training.loss, training.pairs)
    return torch.from_numpy(tokens), torch.from_numpy(labels)


class Run:
    """A training run in a folder: state, steps, saving.

    Args:
        training: the recipe.
        folder: of the run.
        compile_model: with torch.compile.
        precision: `no` or `bf16`, of autocast.
        command: for `training.json`.

    Raises:
        ValueError: the tasks of a step cannot be shared evenly among the processes.
    """

    def __init__(self, training: Recipe, folder: Path, compile_model: bool, precision: str, command: str = "") -> None:
        self.training, self.folder, self.command, self.precision = training, folder, command, precision
        self.suite = load_suite(training.suite)
        logged = {"log_with": "tensorboard", "project_dir": str(folder)} if find_spec("tensorboardX") else {}
        self.accelerator = Accelerator(mixed_precision=precision, **logged)
        if training.batch % self.accelerator.num_processes:
            raise ValueError(
                f"batch {training.batch} cannot be shared by {self.accelerator.num_processes} processes; "
                "use a number of processes that divides it"
            )
        self.raw = build_model(training)
        if training.model_class == "MambaForCausalLM" and self.accelerator.device.type == "cpu":
            install_selective_scan(compile_model)
        optimizers = build_optimizers(self.raw, training)
        prepared = self.accelerator.prepare(self.raw, *optimizers)
        self.model, self.optimizers = prepared[0], list(prepared[1:])
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        words = self.raw.get_input_embeddings().num_embeddings  # type: ignore[operator]
        # Both places: counting the predicted tokens on a GPU would wait for it in every step.
        self.host_weights = torch.from_numpy(token_weights(words, training.program_weight))
        self.weights = self.host_weights.to(self.accelerator.device)
        self.forward = torch.compile(self.model) if compile_model else self.model
        self.kept_steps = set(training.checkpoint_steps())
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.log: list[dict[str, float]] = []
        if logged:
            self.accelerator.init_trackers("logs")

    def resume(self) -> None:
        """Go on from the last saved state of the folder, if there is one."""
        # A run that was killed while one state took the place of another has only the new and the old one.
        whole = (self.folder / name / "progress.json" for name in STATES)
        progress = next((path for path in whole if path.is_file()), None)
        if progress is not None:
            self.accelerator.load_state(str(progress.parent))
            saved = json.loads(progress.read_text())
            self.step, self.seconds, self.tokens = saved["step"], saved["seconds"], saved["tokens"]
            self.log = saved["log"]

    def save_state(self) -> None:
        """Everything that is needed to go on; replaces the state before it only once it is whole."""
        old, new, last = (self.folder / name for name in STATES)
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(new))
        # Each process writes its own random state; the folder must not be renamed under the slower ones.
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
        """One optimiser step; returns its mean loss in nats a predicted token (weighted as the recipe says), not waited for."""
        tokens, labels = batch_of(self.suite, self.training, self.step)
        factor = self.training.rate(self.step)
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        self.tokens += tokens.numel()
        targets = labels[:, 1:]
        predicted = float(self.host_weights[targets[targets != IGNORE_INDEX]].sum())
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = slice(rank * len(tokens) // processes, (rank + 1) * len(tokens) // processes)
        micro = self.training.micro or len(tokens)
        parts = list(zip(tokens[mine].split(micro), labels[mine].split(micro), strict=True))
        total = torch.zeros((), device=self.accelerator.device)
        for left, (ids, wanted) in zip(reversed(range(len(parts))), parts, strict=True):
            # Processes exchange gradients once a step, with the last of its parts.
            with self.accelerator.no_sync(self.model) if left else nullcontext():
                total += self._backward(ids, wanted, predicted)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.training.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return self.accelerator.reduce(total, "sum")

    def _backward(self, ids: torch.Tensor, wanted: torch.Tensor, predicted: float) -> torch.Tensor:
        """Add the gradient of some tasks to the step's; returns their share of its mean loss."""
        logits = self.forward(input_ids=self._sent(ids), use_cache=False).logits
        targets = self._sent(wanted[:, 1:].reshape(-1))
        scores = logits[:, :-1].flatten(0, 1).float()
        summed = torch.nn.functional.cross_entropy(scores, targets, self.weights, reduction="sum")
        # Several processes average their gradients; the step's mean is over the predicted tokens of all of them.
        self.accelerator.backward(summed * (self.accelerator.num_processes / predicted))
        return summed.detach() / predicted

    def _sent(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens on the device; a GPU fetches them while this process prepares what follows."""
        device = self.accelerator.device
        return tokens.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tokens.to(device)

    def save_model(self, folder: Path) -> None:
        """The model as a plain Hugging Face folder, its weights in bfloat16, with what made it."""
        # Only the main process looks at the folder, and all wait: otherwise one might see it before it is there.
        if self.accelerator.is_main_process and not (folder != self.folder and folder.exists()):
            new = folder if folder == self.folder else folder.with_name(f"{folder.name}.new")
            deepcopy(self.raw).to(torch.bfloat16).save_pretrained(new)  # type: ignore[operator]
            tokenizer_of(self.training).save_pretrained(new)
            (new / "training.json").write_text(json.dumps(self.facts(), indent=1) + "\n")
            if new != folder:
                new.rename(folder)
        self.accelerator.wait_for_everyone()

    def facts(self) -> dict[str, object]:
        """What made the model, as far as it has come."""
        device = str(self.accelerator.device)
        return {
            "command": self.command,
            "recipe": asdict(self.training),
            "step": self.step,
            "tasks_seen": self.step * self.training.batch,
            "tokens_seen": self.tokens,
            "parameters": sum(p.numel() for p in self.raw.parameters()),
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
        """Keep the model where the recipe says so."""
        if self.step in self.kept_steps:
            self.save_model(self.folder / "checkpoints" / f"step-{self.step:07d}")


def train(run: Run, save_every: int) -> None:
    """Train to the end of the recipe with a progress bar, saving the state every `save_every` steps."""
    main, last = run.accelerator.is_main_process, run.training.steps
    bars = main and sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not bars) as bar:
        shown = bar.add_task("training", total=last, completed=run.step)
        recent: list[torch.Tensor] = []
        run.keep_checkpoint()
        while run.step < last:
            began = time.perf_counter()
            recent.append(run.train_step())
            if run.step % LOG_EVERY == 0 or run.step == last:
                loss = float(torch.stack(recent).mean())
                recent = []
            run.seconds += time.perf_counter() - began
            if not recent:
                _note(run, loss, told=main and not bars)
                bar.update(shown, description=f"loss {loss:.4f}")
            bar.update(shown, completed=run.step)
            run.keep_checkpoint()
            if run.step % save_every == 0 and run.step < last:
                run.save_state()
    run.save_state()
    run.save_model(run.folder)
    run.accelerator.end_training()


def _note(run: Run, loss: float, told: bool) -> None:
    """Put the loss of the last steps into the logs."""
    speed = run.step * run.training.batch / run.seconds
    left = (run.training.steps - run.step) * run.training.batch / speed
    run.log.append({"step": run.step, "loss": round(loss, 5), "seconds": round(run.seconds)})
    rate = run.training.rate(run.step - 1)
    run.accelerator.log({"loss": loss, "rate": rate, "tasks_per_second": speed}, step=run.step)
    if told:
        line = run.log[-1] | {"steps": run.training.steps, "tasks_per_second": round(speed, 1), "left": round(left)}
        print(json.dumps(line), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m baselines.train", description=__doc__.splitlines()[0] if __doc__ else "")
    add = parser.add_argument
    add("recipe", help="name of a shipped recipe, such as gpt-laptop, or a YAML file")
    add("--out", type=Path, required=True, help="folder of the run; the same command resumes it")
    add("--seed", type=SEED, help="in place of the recipe's")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change an entry, such as optimizer.batch=32")
    add("--threads", type=integer(0, MAX_THREADS), default=0, help="CPU threads (default: as torch chooses)")
    add("--compile", action="store_true", help="compile the model")
    add("--precision", choices=("no", "bf16"), default="no", help="autocast; bf16 where the hardware multiplies it")
    add("--save-every", type=integer(1, 1_000_000_000), default=200, help="steps between saved states")
    words = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: carry_out(parser.parse_args(arguments), " ".join(["python -m baselines.train", *words])))


def carry_out(options: argparse.Namespace, command: str) -> int:
    """Train as the options say; returns the exit code."""
    if options.threads:
        torch.set_num_threads(options.threads)
    changes = options.set + ([] if options.seed is None else [f"seed={options.seed}"])
    try:
        training = load_recipe(find_recipe(options.recipe), changes)
        make_folder(options.out, "--out")
        run = Run(training, options.out, options.compile, options.precision, command)
    except ValueError as problem:
        raise UsageError(str(problem)) from problem
    run.resume()
    train(run, options.save_every)
    return 0


if __name__ == "__main__":
    sys.exit(main())
