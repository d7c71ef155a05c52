"""Recipes: the settings of a training run, read from a YAML file and validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from baselines.encoding import LOSSES
from benchmark.errors import UsageError
from karel_env.command import nearest

RECIPES = Path(__file__).parent / "recipes"
LOG, LOG_DOUBLINGS = "log", 6


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run.

    Attributes:
        suite: name of the suite whose training tasks are used.
        model_class: a causal LM class of `transformers`, or `LstmForCausalLM` of `baselines.lstm`.
        config: entries of its configuration, without the vocabulary.
        batch, tasks: tasks per step, and in total.
        muon_lr: Muon learning rate of the matrices inside the blocks; 0 trains them with AdamW.
        muon_parts: number of matrices stacked in a parameter, by part of its name; each is orthogonalised separately.
        adam_lr: AdamW learning rate of the other parameters.
        weight_decay: decoupled weight decay of matrices.
        warmup, decay: fraction of the steps with linear warmup and with linear decay.
        clip: largest gradient norm.
        seed: seed of initialisation and data.
        loss: tokens with loss, see `encoding.LOSSES`.
        program_weight: loss weight of program tokens; grid tokens have weight 1.
        pairs: whether two cells of a row are one token.
        pool: number of distinct tasks, repeated in another order per epoch; 0: every task is used once.
        micro: tasks per forward pass of a process (gradient accumulation); 0: all tasks of a step.
        checkpoints: number n of checkpoints after the untrained one; 0: none.
        spacing: checkpoint k of n is saved after the fraction (k / n) ** spacing of the steps; `log`: evenly in the
            logarithm of the steps, over the last `LOG_DOUBLINGS` doublings.
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
    spacing: float | str = 2.0

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed}: expected an integer, at least 0 and at most {2**63 - 1}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r}: expected one of {', '.join(LOSSES)}")
        if not 1 <= self.batch <= self.tasks or min(self.pool, self.micro, self.checkpoints) < 0:
            raise ValueError("batch must be from 1 to tasks, and pool, micro and checkpoints not below 0")
        if self.spacing != LOG and not (isinstance(self.spacing, int | float) and self.spacing > 0):
            raise ValueError(f"spacing {self.spacing!r}: expected a number above 0, or {LOG}")

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.tasks // self.batch

    def learning_rate_factor(self, step: int) -> float:
        """Factor on the learning rates at `step`."""
        warmup_factor = (step + 1) / max(1.0, self.warmup * self.steps)
        decay_factor = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, warmup_factor, decay_factor)

    def checkpoint_steps(self) -> list[int]:
        """Steps after which a checkpoint is saved, including 0 (untrained) and the last; empty without checkpoints."""
        if not self.checkpoints:
            return []
        if isinstance(self.spacing, str):
            shares = np.array([0, *np.geomspace(0.5**LOG_DOUBLINGS, 1, self.checkpoints)])
        else:
            shares = (np.arange(self.checkpoints + 1) / self.checkpoints) ** self.spacing
        return sorted({round(share * self.steps) for share in shares})

    def task_numbers(self, step: int) -> np.ndarray:
        """int64 [batch], numbers of the training tasks of a step."""
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
    """int64 [pool], task order of an epoch; cached, since all steps of an epoch share it."""
    return np.random.default_rng([seed, epoch]).permutation(pool)


def find_recipe(name: str) -> Path:
    """Find a recipe file by its path or by the name of a shipped recipe.

    Raises:
        UsageError: no such recipe.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in RECIPES.glob("*.yaml"))
        raise UsageError(
            f"recipe {name}: no such file; give the path of a .yaml file, or one of {', '.join(names)}{nearest(name, names)}"
        )
    return path


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Load a recipe file and apply `changes` such as `optimizer.batch=32`.

    Raises:
        UsageError: an entry is missing, unknown or out of range; the message names the file.
    """
    try:
        entry = yaml.safe_load(path.read_bytes())
        for change in changes:
            _apply_change(entry, change)
        architecture = entry.pop("architecture")
        return Recipe(
            model_class=architecture["class"], config=architecture["config"], **entry.pop("optimizer"), **entry
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error}; see baselines/recipes/llama-laptop.yaml") from error


def _apply_change(entry: dict[str, Any], change: str) -> None:
    name, equals, value = change.partition("=")
    *sections, last = name.split(".")
    for section in sections:
        entry = entry[section]
    if not equals or not isinstance(entry, dict):
        raise ValueError(f"--set {change}: expected NAME=VALUE, such as optimizer.batch=32 or seed=2")
    entry[last] = yaml.safe_load(value)
