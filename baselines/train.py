"""Train a baseline on endless fresh tasks of a suite: `python -m baselines.train RECIPE.yaml --out FOLDER`.

Each step draws its own tasks by number, so a run resumed from its last saved state goes on exactly as it would
have. The folder ends as a plain Hugging Face model: config, safetensors weights, tokenizer, and `training.json`
with what made it. Not covered: data that is not generated, several machines.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from baselines.encoding import encode
from baselines.muon import Muon
from baselines.tokenizer import build_tokenizer
from benchmark.suites import Suite, load_suite, training_tasks


@dataclass(frozen=True)
class Training:
    """One training run, as its recipe says.

    Attributes:
        suite: name of the suite whose tasks are learnt.
        model_class: a causal LM class of `transformers`.
        config: its configuration; the vocabulary is set here.
        batch, tasks: tasks a step, and in all.
        muon_lr: learning rate of the matrices inside the blocks (Muon); 0 gives them to Adam as well.
        adam_lr: of everything else.
        weight_decay: decoupled, on matrices.
        warmup, decay: share of the steps with rising and with falling learning rate, both linear.
        clip: largest gradient norm.
        seed: of initialisation and data.
    """

    suite: str
    model_class: str
    config: dict[str, Any]
    batch: int
    tasks: int
    muon_lr: float
    adam_lr: float
    weight_decay: float
    warmup: float
    decay: float
    clip: float
    seed: int

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.tasks // self.batch

    def rate(self, step: int) -> float:
        """The factor on the learning rates at `step`."""
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, rise, fall)


def load_recipe(path: Path) -> Training:
    """A recipe file; raises ValueError with the file's name where an entry is missing or unknown."""
    entry = yaml.safe_load(path.read_text())
    try:
        architecture = entry["architecture"]
        return Training(
            suite=entry["suite"],
            model_class=architecture["class"],
            config=architecture["config"],
            seed=entry["seed"],
            **entry["optimizer"],
        )
    except (KeyError, TypeError) as problem:
        raise ValueError(f"{path}: {problem}; see baselines/recipes/llama-laptop.yaml") from problem


def build_model(training: Training) -> torch.nn.Module:
    """The untrained model, initialised from the recipe's seed."""
    set_seed(training.seed)
    tokenizer = build_tokenizer()
    model_class = getattr(transformers, training.model_class)
    config = model_class.config_class(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **training.config,
    )
    return model_class(config)


def build_optimizers(model: torch.nn.Module, training: Training) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, head, norms and biases."""
    ends = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}  # type: ignore[operator]
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
    return [Muon(matrices, lr=training.muon_lr, weight_decay=training.weight_decay), adam]


def batch_of(suite: Suite, training: Training, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels [batch, S] of one step."""
    numbers = np.arange(step * training.batch, (step + 1) * training.batch)
    tasks = training_tasks(suite, numbers, training.seed)
    tokens, labels = encode(tasks, suite.shown, suite.show_under_robot)
    return torch.from_numpy(tokens), torch.from_numpy(labels)


class Run:
    """A training run in a folder: state, steps, saving."""

    def __init__(self, training: Training, folder: Path, compile_model: bool, precision: str) -> None:
        self.training, self.folder = training, folder
        self.suite = load_suite(training.suite)
        self.accelerator = Accelerator(mixed_precision=precision)
        self.raw = build_model(training)
        optimizers = build_optimizers(self.raw, training)
        prepared = self.accelerator.prepare(self.raw, *optimizers)
        self.model, self.optimizers = prepared[0], list(prepared[1:])
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.forward = torch.compile(self.model) if compile_model else self.model
        self.step, self.seconds = 0, 0.0
        self.log: list[dict[str, float]] = []

    def resume(self) -> None:
        """Go on from the last saved state of the folder, if there is one."""
        progress = self.folder / "state" / "progress.json"
        if progress.is_file():
            self.accelerator.load_state(str(progress.parent))
            saved = json.loads(progress.read_text())
            self.step, self.seconds, self.log = saved["step"], saved["seconds"], saved["log"]

    def save_state(self) -> None:
        """Everything that is needed to go on; replaces the state before it only once it is whole."""
        new, old = self.folder / "state.new", self.folder / "state"
        self.accelerator.save_state(str(new))
        (new / "progress.json").write_text(json.dumps({"step": self.step, "seconds": self.seconds, "log": self.log}))
        if old.exists():
            old.rename(self.folder / "state.old")
        new.rename(old)
        _remove(self.folder / "state.old")

    def train_step(self) -> float:
        """One optimiser step; returns its loss in nats a predicted token."""
        tokens, labels = batch_of(self.suite, self.training, self.step)
        factor = self.training.rate(self.step)
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        logits = self.forward(input_ids=tokens.to(self.accelerator.device), use_cache=False).logits
        targets = labels[:, 1:].reshape(-1).to(logits.device)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.training.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return float(loss.detach())

    def save_model(self, command: str) -> None:
        """The folder as a plain Hugging Face model, with what made it."""
        self.raw.save_pretrained(self.folder)  # type: ignore[operator]
        build_tokenizer().save_pretrained(self.folder)
        facts = {
            "command": command,
            "recipe": asdict(self.training),
            "tasks_seen": self.step * self.training.batch,
            "minutes": round(self.seconds / 60, 1),
            "threads": torch.get_num_threads(),
            "processor": platform.processor() or platform.machine(),
            "packages": {name: version(name) for name in ("torch", "transformers", "accelerate", "numpy")},
            "log": self.log,
        }
        (self.folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        folder.rmdir()


def train(run: Run, save_every: int, command: str) -> None:
    """Train to the end of the recipe with a progress bar, saving the state every `save_every` steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as bar:
        shown = bar.add_task("training", total=run.training.steps, completed=run.step)
        recent: list[float] = []
        while run.step < run.training.steps:
            began = time.perf_counter()
            recent.append(run.train_step())
            run.seconds += time.perf_counter() - began
            bar.update(shown, completed=run.step, description=f"loss {recent[-1]:.4f}")
            if run.step % 50 == 0 or run.step == run.training.steps:
                run.log.append(
                    {"step": run.step, "loss": round(float(np.mean(recent)), 5), "seconds": round(run.seconds)}
                )
                recent = []
                if not sys.stderr.isatty():
                    print(json.dumps(run.log[-1]), file=sys.stderr, flush=True)
            if run.step % save_every == 0:
                run.save_state()
    run.save_state()
    run.save_model(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m baselines.train", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("recipe", type=Path, help="YAML file, such as baselines/recipes/llama-laptop.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; the same command resumes it")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: as torch chooses)")
    parser.add_argument("--compile", action="store_true", help="compile the model (about 1.4 times faster on a CPU)")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no", help="autocast; bf16 where it is faster")
    parser.add_argument("--save-every", type=int, default=200, help="steps between saved states")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(load_recipe(options.recipe), options.out, options.compile, options.precision)
    run.resume()
    words = sys.argv[1:] if arguments is None else list(arguments)
    train(run, options.save_every, " ".join(["python -m baselines.train", *words]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
