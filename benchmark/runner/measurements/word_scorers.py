"""Load what a measurement asks of a model: states that can be replaced, and probabilities of the next word."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.causal.interventions import SteerableModel, SteerableScorer, WordScorer
from benchmark.causal.targets import NEXT_WORDS
from benchmark.errors import ModelError
from benchmark.models.checkpoint import Checkpoint
from benchmark.models.custom import build_model, exit_as_error
from benchmark.models.interface import ModelSpec
from benchmark.models.loading import load_model
from benchmark.models.validated import ValidatedModel
from benchmark.runner.plan import Job

BASELINE_SCORERS = "baselines.non_neural.word_scores"
"""Module of the baselines' probabilities; imported only if a spec names a baseline."""
STEERABLE = "steerable"
"""Name of the optional method of a custom class that returns a `SteerableModel`."""
NO_STATES = "the model has no states that can be replaced; expected a network of transformers"
NO_METHOD = f"the class has no method {STEERABLE}; expected one that returns what can be edited, see docs/models.md"
NO_PROBABILITIES = "the model gives no probabilities of words"
CUSTOM_ROWS = 64


def load_steerable(job: Job, seed: int | None = None) -> SteerableModel:
    """Load the model of a job, or with `seed` its untrained copy.

    Raises:
        ModelError: it cannot be loaded, or has no states that can be replaced.
    """
    checkpoint = job.checkpoint
    if checkpoint.is_custom:
        return _load_custom(checkpoint, seed)
    if not checkpoint.has_hidden_states:
        raise ModelError(NO_STATES)
    from benchmark.models.huggingface import HuggingFaceModel
    from benchmark.models.steering import open_steerable

    model = load_model(checkpoint, job.dtype, job.device, seed)
    if not isinstance(model, HuggingFaceModel):
        raise ModelError(NO_STATES)
    return open_steerable(model)


def _load_custom(checkpoint: Checkpoint, seed: int | None) -> SteerableModel:
    return open_custom(build_model(ModelSpec.parse(checkpoint.spec), seed), checkpoint.spec)


def open_custom(model: Any, spec: str) -> SteerableModel:
    """What the method `steerable` of a custom class returns.

    Raises:
        ModelError: there is no such method, it fails, or it returns something else.
    """
    if not callable(getattr(model, STEERABLE, None)):
        raise ModelError(f"{spec}: {NO_METHOD}")
    try:
        with exit_as_error(spec, STEERABLE):
            steerable: Any = model.steerable()
    except ModelError:
        raise
    except Exception as error:  # custom code may raise anything
        raise ModelError(f"{spec}: {STEERABLE} failed: {type(error).__name__}: {error}") from error
    missing = [name for name in ("batch_rows", "sites", "prepare") if not hasattr(steerable, name)]
    if missing:
        raise ModelError(
            f"{spec}: {STEERABLE} returned a {type(steerable).__name__} without {missing[0]}; expected "
            "batch_rows, sites and prepare, see benchmark/causal/interventions.py"
        )
    result: SteerableModel = steerable
    return result


def load_word_scorer(job: Job) -> WordScorer:
    """Load the model of a job to score words.

    Raises:
        ModelError: it cannot be loaded, or gives no probabilities of words.
    """
    checkpoint = job.checkpoint
    if checkpoint.is_custom:
        model = build_model(ModelSpec.parse(checkpoint.spec))
        if callable(getattr(model, STEERABLE, None)):
            return SteerableScorer(_load_custom(checkpoint, None))
        if not callable(getattr(model, "log_likelihoods", None)):
            raise ModelError(f"{checkpoint.spec}: {NO_PROBABILITIES}; expected a method log_likelihoods")
        return LikelihoodScorer(ValidatedModel(model, checkpoint.spec))
    if checkpoint.has_hidden_states:
        return SteerableScorer(load_steerable(job))
    scorers = importlib.import_module(BASELINE_SCORERS).WORD_SCORERS
    if checkpoint.name not in scorers:
        raise ModelError(f"{checkpoint.spec}: {NO_PROBABILITIES}")
    scorer: WordScorer = scorers[checkpoint.name](job.suite)
    return scorer


@dataclass(frozen=True)
class LikelihoodScorer:
    """The `WordScorer` of a model that gives log-likelihoods of programs.

    A score holds the log-likelihood of the prefix as well, which the six continuations have in common.
    """

    model: ValidatedModel
    batch_rows: int = CUSTOM_ROWS

    def score_words(self, prompts: Sequence[str], prefixes: Sequence[str]) -> np.ndarray:
        """See `WordScorer.score_words`."""
        repeated = [prompt for prompt in prompts for _ in NEXT_WORDS]
        programs = [f"{prefix} {word}" for prefix in prefixes for word in NEXT_WORDS]
        values = self.model.log_likelihoods(repeated, programs)
        return np.array([value for value, _ in values]).reshape(len(prompts), len(NEXT_WORDS))
