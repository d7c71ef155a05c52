"""What a training run does: a recipe file, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from baselines.encoding import LOSSES

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """One training run, as its recipe says.

    Attributes:
        suite: name of the suite whose tasks are learnt.
        model_class: a causal LM class of `transformers`, or `LstmForCausalLM` of `baselines.lstm`.
        config: its configuration; the vocabulary is set here.
        batch, tasks: tasks a step, and in all.
        muon_lr: learning rate of the matrices inside the blocks (Muon); 0 gives them to Adam as well.
        muon_parts: by a part of a parameter's name, how many matrices lie below each other in it, to be taken one by one.
        adam_lr: of everything else.
        weight_decay: decoupled, on matrices.
        warmup, decay: share of the steps with rising and with falling learning rate, both linear.
        clip: largest gradient norm.
        seed: of initialisation and data.
        loss: tokens that are predicted, see `encoding.LOSSES`.
        program_weight: of a program's tokens in the loss, where a grid's token weighs 1.
        pairs: whether two cells of a row are one token.
        pool: distinct tasks, seen again in another order each epoch; 0: every task is seen once.
        micro: tasks a forward pass of one process, gradients are summed; 0: all of a step.
        checkpoints: models kept along the way, the untrained and the last one beside; 0: none.
        spacing: checkpoint k of n is taken at the share (k / n) ** spacing of the steps.
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
    loss: str = "outputs"
    muon_parts: dict[str, int] = field(default_factory=dict)
    program_weight: float = 1.0
    pairs: bool = False
    pool: int = 0
    micro: int = 0
    checkpoints: int = 0
    spacing: float = 2.0

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed}: expected a whole number, at least 0 and at most {2**63 - 1}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r}: expected one of {', '.join(LOSSES)}")
        if not 1 <= self.batch <= self.tasks or min(self.pool, self.micro, self.checkpoints) < 0:
            raise ValueError("batch must be from 1 to tasks, and pool, micro and checkpoints not below 0")

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.tasks // self.batch

    def learning_rate_factor(self, step: int) -> float:
        """The factor on the learning rates at `step`."""
        warmup_factor = (step + 1) / max(1.0, self.warmup * self.steps)
        decay_factor = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, warmup_factor, decay_factor)

    def checkpoint_steps(self) -> list[int]:
        """Steps after which a model is kept, 0 (untrained) and the last included; empty without checkpoints."""
        shares = (np.arange(self.checkpoints + 1) / max(1, self.checkpoints)) ** self.spacing
        return sorted({round(share * self.steps) for share in shares}) if self.checkpoints else []

    def task_numbers(self, step: int) -> np.ndarray:
        """int64 [batch], the training tasks of a step."""
        indices = np.arange(step * self.batch, (step + 1) * self.batch)
        if not self.pool:
            return indices
        epochs, task_numbers = indices // self.pool, indices % self.pool
        for epoch in np.unique(epochs).tolist():
            is_epoch = epochs == epoch
            task_numbers[is_epoch] = _epoch_order(self.seed, epoch, self.pool)[task_numbers[is_epoch]]
        return task_numbers


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, pool: int) -> np.ndarray:
    """int64 [pool], in which an epoch sees its tasks; kept, since the steps of an epoch share it."""
    return np.random.default_rng([seed, epoch]).permutation(pool)


def find_recipe(name: str) -> Path:
    """A recipe's file, by its path or by the name of a shipped one.

    Raises:
        ValueError: there is none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ValueError(f"recipe {name}: no such file; give the path of a .yaml file, or one of {names}")
    return path


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe file, with `changes` such as `optimizer.batch=32` put in.

    Raises:
        ValueError: an entry is missing, unknown or out of range; names the file.
    """
    try:
        entry = yaml.safe_load(path.read_bytes())
        for change in changes:
            _apply_change(entry, change)
        architecture = entry.pop("architecture")
        return Recipe(
            model_class=architecture["class"], config=architecture["config"], **entry.pop("optimizer"), **entry
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError, yaml.YAMLError) as problem:
        raise ValueError(f"{path}: {problem}; see baselines/recipes/llama-laptop.yaml") from problem


def _apply_change(entry: dict[str, Any], change: str) -> None:
    name, equals, value = change.partition("=")
    *sections, last = name.split(".")
    for section in sections:
        entry = entry[section]
    if not equals or not isinstance(entry, dict):
        raise ValueError(f"--set {change}: expected NAME=VALUE, such as optimizer.batch=32 or seed=2")
    entry[last] = yaml.safe_load(value)
