"""Fine-tune a causal language model of transformers, all weights or low-rank updates; see `baselines.tune`."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from baselines.tuning.prefix_tree import Row, Text, pack
from baselines.tuning.text_batch import TextBatch, batch_texts
from baselines.tuning.tree_attention import install, make_blocks, make_causal_mask
from baselines.tuning.tuning_texts import LADDER_EVERY, TuningTexts, open_texts
from benchmark.command import note_results_kept
from benchmark.environment import gpu_name, package_versions, processor_name
from benchmark.errors import ModelError, UsageError
from benchmark.models.architecture import build_untrained_copy, cast_weights, find_blocks, load_stored_model
from benchmark.models.checkpoint import Checkpoint
from benchmark.models.json_files import TRAINING_FILE
from benchmark.models.tokenizer import load_tokenizer
from benchmark.runner.plain_progress import MAX_SECONDS as MAX_SILENT_SECONDS
from benchmark.tasks.suite import load_suite

MOST_TOKENS = 2600
"""Tokens of a row: longer rows share more of their beginnings, and their attention costs more."""
WARMUP, DECAY = 0.05, 0.5
"""Shares of the steps with rising and with falling learning rate."""
WEIGHT_DECAY, BETAS, MAX_NORM = 0.01, (0.9, 0.95), 1.0
LORA_SCALE = 2
"""Factor of a low-rank update, `lora_alpha` divided by the rank."""
LOG_INTERVAL = 10
STATE_FILE = "state.safetensors"
PACKAGES = ("torch", "transformers", "peft", "numpy")
INSTALL_PEFT = "pip install 'karel-semantics-benchmark[tune]'"


@dataclass(frozen=True)
class TuningSettings:
    """Settings that determine the result.

    Attributes:
        model: spec of the pretrained model.
        digest: SHA-256 of its files.
        task: `execute` or `write`.
        suite: name of the suite whose worlds and statements are used.
        dialect: one of `karel_env.syntax.dialects.DIALECTS`.
        steps, batch: optimiser steps, and tasks per step.
        learning_rate: largest learning rate of AdamW.
        seed: seed of the tasks and of new weights.
        lora: rank of the updates; 0 trains all weights.
        from_scratch: whether the weights are initialised anew.
        precision: `no` for float32, or `bf16`.
        minutes: time after which the training ends; 0 for no limit.
        ladder_every: of `execute`, every N-th task has the questions of the ladder; 0 for none.
        compile: whether the blocks of the model are compiled, which changes the last bits of their outputs.
    """

    model: str
    digest: str
    task: str
    suite: str
    dialect: str
    steps: int
    batch: int
    learning_rate: float
    seed: int
    lora: int = 0
    from_scratch: bool = False
    precision: str = "no"
    minutes: float = 0.0
    ladder_every: int = LADDER_EVERY
    compile: bool = False

    def learning_rate_factor(self, progress: float) -> float:
        """Factor on the learning rate at a share of the training."""
        return min(1.0, (progress + 1 / self.steps) / WARMUP, (1.0 - progress) / DECAY)


class Tuner:
    """Training loop state of a run in a folder: steps, resuming, saving.

    Args:
        checkpoint: files of the pretrained model.
        settings: settings of the run.
        folder: output folder.
        command: command line, for `training.json`.
        device: cpu, cuda or cuda:N. A run may be resumed on another device.

    Raises:
        ModelError: the model cannot be loaded, or its context is too short.
        UsageError: `peft` is missing, or the folder has the state of another run.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TuningSettings, folder: Path, command: str = "", device: str = "cpu"
    ) -> None:
        self.settings, self.folder, self.command, self.device = settings, folder, command, device
        self.tokenizer = load_tokenizer(checkpoint)
        suite = load_suite(settings.suite)
        self.texts: TuningTexts = open_texts(
            settings.task, suite, self.tokenizer, settings.seed, settings.dialect, settings.ladder_every
        )
        self.model = _build_model(checkpoint, settings).to(device)
        self.has_tree_attention = install(self.model)
        self.dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        # Optimiser and sums of gradients are in float32; the model may compute in bfloat16.
        self.masters = {name: p.detach().float().clone() for name, p in trained.items()}
        cast_weights(self.model, self.dtype)
        self.parameters = {name: p for name, p in self.model.named_parameters() if name in trained}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.masters.values() if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
                {"params": [p for p in self.masters.values() if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=BETAS,
            fused=True,
        )
        self.head = _SelectiveHead(self.model)
        self.step, self.seconds, self.processor_seconds, self.tokens, self.answers = 0, 0.0, 0.0, 0, 0
        self.log: list[dict[str, Any]] = []
        self.recent: dict[str, list[float]] = {}
        self.resume()
        first = [text for group in self.texts.groups(range(settings.batch)) for text in group]
        self._check_context(max(len(text.ids) for text in first))
        self.honours_masks = honours_masks(self, first)
        if settings.compile:
            for block in find_blocks(self.model, self.model.config):
                block.compile()

    def _check_context(self, most_tokens: int) -> None:
        """Refuse a model whose context is too short for texts of `most_tokens` tokens."""
        if self.context is not None and self.context < most_tokens:
            raise ModelError(
                f"{self.settings.model}: context of {self.context} tokens, but a text of suite {self.settings.suite} has "
                f"{most_tokens}; choose a suite with smaller worlds or a model with a longer context"
            )

    @property
    def progress(self) -> float:
        """Share of the training that is over, by steps or by time."""
        minutes = self.settings.minutes
        return max(self.step / self.settings.steps, self.seconds / (60 * minutes) if minutes else 0.0)

    @property
    def context(self) -> int | None:
        """Number of tokens that the model takes; None if its configuration names no limit."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def has_rows(self) -> bool:
        """Whether texts that begin alike share a row of tokens; otherwise each text has a row of a batch."""
        return self.honours_masks and self.texts.have_beginnings

    def batches(self, step: int) -> Sequence[Row | TextBatch]:
        """The tokens of a step, each part of which is one pass through the model."""
        batch = self.settings.batch
        groups = self.texts.groups(range(step * batch, (step + 1) * batch))
        if self.has_rows:
            return pack(groups, MOST_TOKENS)
        return batch_texts([text for group in groups for text in group], self.context)

    def logits(self, batch: Row | TextBatch) -> torch.Tensor:
        """Logits [A, V] that predict the targets of a row or a batch."""
        kwargs: dict[str, Any] = {}
        ids = self._to_device(batch.ids)
        if isinstance(batch, TextBatch):
            if self.has_tree_attention and self.honours_masks and ids.is_cpu:
                kwargs = {"causal_mask": make_causal_mask(ids.shape[1])}
            return self.head.logits(ids, self._to_device(batch.sources), **kwargs)
        attended = batch.mask()
        mask = torch.zeros((1, 1, len(batch), len(batch)), dtype=self.dtype, device=self.device)
        mask.masked_fill_(self._to_device(~attended), torch.finfo(self.dtype).min)
        kwargs = {"attention_mask": mask, "position_ids": self._to_device(batch.positions)[None]}
        if self.has_tree_attention:
            kwargs["blocks"] = make_blocks(attended, self.device)
        return self.head.logits(ids[None], self._to_device(batch.sources), **kwargs)

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def train_step(self) -> float:
        """Run one optimiser step; returns the mean loss in nats per target."""
        batches = self.batches(self.step)
        num_targets = sum(len(batch.targets) for batch in batches)
        total = 0.0
        for master in self.masters.values():
            master.grad = torch.zeros_like(master)
        for batch in batches:
            logits = self.logits(batch).float()
            losses = torch.nn.functional.cross_entropy(logits, self._to_device(batch.targets), reduction="none")
            (losses.sum() / num_targets).backward()
            total += float(losses.detach().sum()) / num_targets
            for question, loss in zip(batch.questions, losses.tolist(), strict=True):
                self.recent.setdefault(question, []).append(loss)
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    self.masters[name].grad.add_(parameter.grad)
                    parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters.values(), MAX_NORM)
        rate = self.settings.learning_rate * self.settings.learning_rate_factor(self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._copy_masters()
        self.step += 1
        self.tokens += sum(map(len, batches))
        self.answers += num_targets
        return total

    def log_losses(self) -> dict[str, Any]:
        """Log the mean losses in nats per target since the last entry, in all and by question; returns the entry."""
        losses = [loss for part in self.recent.values() for loss in part]
        entry = {
            "step": self.step,
            "loss": round(sum(losses) / len(losses), 5),
            "seconds": round(self.seconds),
            "questions": {name: round(sum(part) / len(part), 4) for name, part in sorted(self.recent.items())},
        }
        self.recent = {}
        self.log.append(entry)
        return entry

    @torch.no_grad()
    def _copy_masters(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    def save_state(self) -> None:
        """Save the state for resuming; it replaces the previous state only when complete."""
        tensors = {f"master.{name}": master for name, master in self.masters.items()}
        for name, master in self.masters.items():
            state = self.optimizer.state[master]
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        progress = {name: getattr(self, name) for name in _PROGRESS} | {"settings": asdict(self.settings)}
        new = self.folder / f"{STATE_FILE}.new"
        save_file(tensors, new, {"progress": json.dumps(progress)})
        new.replace(self.folder / STATE_FILE)

    @torch.no_grad()
    def resume(self) -> None:
        """Resume from the saved state of the folder, if any."""
        path = self.folder / STATE_FILE
        if not path.is_file():
            return
        with safe_open(path, "pt") as tensors:
            saved = json.loads(tensors.metadata()["progress"])
            settings = asdict(self.settings)
            other = [name for name, value in settings.items() if saved["settings"].get(name) != value]
            if other:
                name = other[0]
                raise UsageError(
                    f"--output-dir {self.folder}: its training has {name} {saved['settings'].get(name)}, received "
                    f"{settings[name]}; give the same options to resume it, or another folder"
                )
            for name, master in self.masters.items():
                master.copy_(tensors.get_tensor(f"master.{name}"))
                moments = {key: tensors.get_tensor(f"{key}.{name}") for key in ("exp_avg", "exp_avg_sq")}
                # The fused optimiser counts its steps where its parameters are.
                self.optimizer.state[master] = {
                    name: value.to(self.device)
                    for name, value in {"step": torch.tensor(float(saved["step"])), **moments}.items()
                }
        for name in _PROGRESS:
            setattr(self, name, saved[name])
        self._copy_masters()

    def save_model(self) -> None:
        """Save the model as a Hugging Face folder with bfloat16 weights, the tokenizer, and `training.json`."""
        model = self.model.float()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.masters[name])
        if self.settings.lora:
            model = model.merge_and_unload()
        model.to(torch.bfloat16).save_pretrained(self.folder)
        self.tokenizer.save_pretrained(self.folder)
        (self.folder / TRAINING_FILE).write_text(json.dumps(self.describe(), indent=1) + "\n")

    def describe(self) -> dict[str, object]:
        """Entries of `training.json`, as `baselines.train` has them."""
        return {
            "command": self.command,
            "recipe": asdict(self.settings),
            "step": self.step,
            "tasks_seen": self.step * self.settings.batch,
            "tokens_seen": self.tokens,
            "targets_seen": self.answers,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trained_parameters": sum(p.numel() for p in self.masters.values()),
            "minutes": round(self.seconds / 60, 1),
            "processor_minutes": round(self.processor_seconds / 60, 1),
            "processes": 1,
            "threads": torch.get_num_threads(),
            "device": gpu_name(self.device) or self.device,
            "precision": self.settings.precision,
            "processor": processor_name(),
            "packages": package_versions(PACKAGES),
            "log": self.log,
        }


_PROGRESS = ("step", "seconds", "processor_seconds", "tokens", "answers", "log")
"""Attributes of `Tuner` that are resumed."""


class _SelectiveHead:
    """A model whose output layer is applied at some positions only."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.positions: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def _select(self, module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        assert self.positions is not None
        return (arguments[0].flatten(0, 1)[None, self.positions], *arguments[1:])

    def logits(self, ids: torch.Tensor, positions: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Logits [A, V] at A positions of the flattened token ids [N, T]."""
        self.positions = positions
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=False, **kwargs).logits[0]
        return logits


def _build_model(checkpoint: Checkpoint, settings: TuningSettings) -> Any:
    """Load the model in float32, or initialise it anew, and add low-rank updates if wanted; without dropout."""
    if settings.lora and find_spec("peft") is None:
        raise UsageError(f"--lora {settings.lora}: package peft is not installed; run: {INSTALL_PEFT}")
    if settings.from_scratch:
        model = build_untrained_copy(checkpoint, "float32", settings.seed)
    else:
        model = load_stored_model(checkpoint, "float32")
    if settings.lora:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=settings.lora, lora_alpha=LORA_SCALE * settings.lora, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            model = get_peft_model(model, config, autocast_adapter_dtype=False)
    return model.eval()


@torch.no_grad()
def honours_masks(tuner: Tuner, texts: Sequence[Text]) -> bool:
    """Whether a model attends where it is told: positions are its inputs, no window of attention is shorter than a text,
    and the logits of a text do not change with another text of its row."""
    longest = max(len(text.ids) for text in texts)
    if longest > (getattr(tuner.model.config, "sliding_window", None) or longest):
        return False
    network = tuner.model.get_base_model() if tuner.settings.lora else tuner.model
    if "position_ids" not in inspect.signature(network.forward).parameters:
        return False
    (row,) = pack([texts[:2]], 0)
    ids = row.ids.copy()
    ids[row.sources[0]] = (ids[row.sources[0]] + 1) % 7
    count = len(texts[0].targets)
    before, after = (tuner.logits(changed)[count:] for changed in (row, replace(row, ids=ids)))
    return bool(torch.equal(before, after))


def tune(tuner: Tuner, save_every: int) -> None:
    """Train to the end, saving the state every `save_every` steps."""
    note_results_kept()
    settings = tuner.settings
    _print_line({"step": tuner.step, "steps": settings.steps, "out": str(tuner.folder)})
    line_time = time.monotonic()
    while tuner.progress < 1:
        start, processor_start = time.perf_counter(), time.process_time()
        tuner.train_step()
        tuner.seconds += time.perf_counter() - start
        tuner.processor_seconds += time.process_time() - processor_start
        if tuner.step % LOG_INTERVAL == 0 or tuner.progress >= 1:
            rate = tuner.tokens / max(tuner.processor_seconds, 1e-9)
            _print_line(tuner.log_losses() | {"steps": settings.steps, "tokens_per_processor_second": round(rate)})
            line_time = time.monotonic()
        elif time.monotonic() - line_time >= MAX_SILENT_SECONDS:
            _print_line({"step": tuner.step, "steps": settings.steps, "seconds": round(tuner.seconds)})
            line_time = time.monotonic()
        if tuner.step % save_every == 0 and tuner.progress < 1:
            tuner.save_state()
    tuner.save_state()
    tuner.save_model()


def _print_line(entries: dict[str, Any]) -> None:
    print(json.dumps(entries), file=sys.stderr, flush=True)
