"""Load a checkpoint: a transformers folder, a custom class, or a baseline."""

from __future__ import annotations

import importlib
from typing import Any

from benchmark.isolation import run_bounded
from benchmark.models import custom
from benchmark.models.checkpoint import BASELINE_REGISTRY, Checkpoint
from benchmark.models.interface import LanguageModel, ModelSpec, ProgramGenerator
from benchmark.models.memory import MemoryCheckpoint
from benchmark.models.validated import ValidatedModel
from benchmark.tasks.suite import Suite


def load_model(
    checkpoint: Checkpoint, dtype: str, device: str, random_seed: int | None = None, preamble: str = ""
) -> LanguageModel:
    """Load a model, or with `random_seed` its untrained copy; a custom class chooses its own dtype and device.

    Raises:
        ModelError: the model cannot be loaded.
    """
    if checkpoint.is_custom:
        return ValidatedModel(custom.build_model(ModelSpec.parse(checkpoint.spec), random_seed), checkpoint.spec)
    from benchmark.models.huggingface import HuggingFaceModel

    if isinstance(checkpoint, MemoryCheckpoint):
        model = checkpoint.build(random_seed)
        return HuggingFaceModel.from_objects(model, checkpoint.tokenizer, str(checkpoint.model.device), preamble)
    return HuggingFaceModel(checkpoint, dtype, device, random_seed=random_seed, preamble=preamble)


def load_generator(checkpoint: Checkpoint, suite: Suite) -> ProgramGenerator:
    """Load a model without hidden states: a custom class or a baseline."""
    if checkpoint.is_custom:
        return ValidatedModel(custom.build_model(ModelSpec.parse(checkpoint.spec)), checkpoint.spec)
    baseline: ProgramGenerator = importlib.import_module(BASELINE_REGISTRY).BASELINES[checkpoint.name](suite)
    return baseline


def load_tokenizer_or_none(checkpoint: Checkpoint) -> Any:
    """Load the model's tokenizer; None for a custom class without one."""
    if checkpoint.is_custom:
        return getattr(custom.build_model(ModelSpec.parse(checkpoint.spec)), "tokenizer", None)
    if isinstance(checkpoint, MemoryCheckpoint):
        return checkpoint.tokenizer
    from benchmark.models.huggingface import HuggingFaceModel

    return HuggingFaceModel.load_tokenizer(checkpoint)


def load_bounded(checkpoint: Checkpoint, dtype: str, device: str, seconds: float, memory: int) -> None:
    """Load the model once in a separate process, as a check; see `benchmark.isolation.run_bounded` for the limits.

    Raises:
        ModelError: the model cannot be loaded, or takes more than `seconds` or `memory` bytes.
    """
    if checkpoint.has_hidden_states:
        run_bounded(
            generate_one_word, checkpoint, dtype, device, seconds=seconds, memory=memory, subject=checkpoint.spec
        )


def generate_one_word(checkpoint: Checkpoint, dtype: str, device: str) -> int:
    """Load the model, generate one item, and return the number of new tokens."""
    return load_model(checkpoint, dtype, device).generate(["program\ndef run() {"], 1)[0].tokens
