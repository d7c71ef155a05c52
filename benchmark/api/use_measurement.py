"""Measure whether a model uses the state that it holds: edits of hidden states, with controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.api.inline import Picture, draw, html_table
from benchmark.api.inputs import InputError
from benchmark.api.model import Model, as_model
from benchmark.causal.interventions import SteerableModel
from benchmark.causal.measurement import CausalMeasurement, measure_merges
from benchmark.causal.measurement import measure_use as measure_steerable
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings
from benchmark.causal.verdict import UseScore, not_applicable
from benchmark.errors import ModelError
from benchmark.statistics import Estimate
from benchmark.tasks.suite import Suite, load_suite
from karel_env.command import shown

if TYPE_CHECKING:
    from benchmark.api.frames import DataFrame

TRIAL_PAIRS = PairSettings(tasks=30)
"""So few pairs that a measurement takes seconds, for trying things out and for tests; verdicts of them mean nothing."""
UNTRAINED_SEED = 0
STRICT, ALL = PAIR_SETS = ("strict", "all")
"""Sets of pairs: those whose target does not follow from the turn and the unedited word, which decide; and all."""


@dataclass(frozen=True)
class UseMeasurement:
    """The result of `measure_use`.

    Attributes:
        measurement: suite, sites, scores by set of pairs, merges, and the words that were written for every pair.
    """

    measurement: CausalMeasurement

    @property
    def verdict(self) -> str:
        """USES, NOT SHOWN or N/A; NOT SHOWN does not say that the model does not use its state."""
        return self.measurement.use.verdict

    @property
    def reason(self) -> str:
        """Why the verdict is not USES; empty for USES."""
        return self.measurement.use.reason

    @property
    def use(self) -> Estimate | None:
        """(steered - largest control run on the model) / natural accuracy on strict pairs, 95% interval; None for N/A."""
        return self.measurement.use.use

    @property
    def margin(self) -> Estimate | None:
        """steered - largest control on strict pairs, which decides, with its 95% interval over tasks; None for N/A."""
        strict = self.measurement.use.strict
        return None if strict is None else strict.margin

    @property
    def merges(self) -> Estimate | None:
        """1 - TV(same state) / TV(other state) of the next word, 95% interval over tasks; None where not defined."""
        merges = self.measurement.merges
        return None if merges is None else merges.merges

    @property
    def site(self) -> str | None:
        """Name of the place at which states were edited; None for N/A."""
        site = self.measurement.use.site
        return None if site is None else self.measurement.sites[site]

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per set of pairs and condition: share of pairs with the target, its 95% interval, n; none for N/A."""
        scores = zip(PAIR_SETS, (self.measurement.use.strict, self.measurement.use.every), strict=True)
        return [row for name, score in scores if score is not None for row in _rows(name, score)]

    def to_frame(self) -> DataFrame:
        """The rows as a DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        from benchmark.api.frames import to_frame

        return to_frame(self.rows())

    def figure(self) -> Picture:
        """Shares of strict pairs whose next word is the target, by condition, as a figure that a notebook draws.

        Raises:
            InputError: nothing was edited (N/A).
        """
        score = self.measurement.use.strict
        if score is None:
            raise InputError(f"figure: {self.verdict}, {self.reason}; expected a model whose states were edited")
        from benchmark.probing.figures import plot_estimates

        title = f"next words after edits: {self.verdict}; {score.pairs:,} strict pairs of {score.tasks:,} tasks, 95% intervals"
        shares = {"edited to the target": score.steered, **score.controls}
        plot = partial(plot_estimates, title, shares, "share of pairs with the target", (0, 1))
        return draw(plot, "shares of pairs with the target, by condition")

    def _repr_html_(self) -> str:
        """The rows as a table, and drawn."""
        table = html_table(self.rows(), f"{self.verdict}{': ' if self.reason else ''}{self.reason}")
        return table if self.measurement.use.strict is None else f"{table}{self.figure()._repr_html_()}"

    def __str__(self) -> str:
        """Verdict, scores of edit and controls, merges, and the pairs that do not count, as a card of text."""
        from benchmark.causal.report import format_card

        return format_card(self.measurement)


def _rows(pairs: str, score: UseScore) -> Iterator[dict[str, Any]]:
    for condition, rate in {"steered": score.steered, **score.controls}.items():
        yield {
            "pairs": pairs, "condition": condition, "target": rate.value, "target low": rate.low,
            "target high": rate.high, "n pairs": score.pairs, "n tasks": score.tasks,
        }  # fmt: skip


def measure_use(
    model: Any,
    suite: Suite | str | Path = "laptop",
    *,
    tokenizer: Any = None,
    untrained: SteerableModel | None = None,
    settings: PairSettings = STANDARD_PAIRS,
    on_step: Callable[[str], None] = lambda step: None,
    **load_options: Any,
) -> UseMeasurement:
    """Measure whether a model writes the program that is right from its state after that state is set to another value.

    In the middle of a program, the mean difference between two net rotations of the robot (float32 [D]) is added to the
    input of one block, or to a recurrent state, and the next word is compared with the word that is right from the turned
    state. Pairs of a prefix and a turn are derived from the suite; nothing is trained. The model's first 40% of tasks make
    the means and choose the site, the others are reported.

    Args:
        model: a spec such as `hf:org/name`, a folder, a model of `load_model` or `wrap`, a transformers model in memory,
            a class of your own (`py:` or `wrap`) whose method `steerable` returns what can be edited, or an object with the
            attributes of `benchmark.causal.interventions.SteerableModel`, which replaces states in a network of another
            library.
        suite: a suite of `load_suite`, or the name or file of one; straight-line programs only.
        tokenizer: the fast tokenizer of a transformers model in memory.
        untrained: for a `SteerableModel`: an untrained copy of it, the control of the architecture; None leaves that
            control out. Others get theirs here, objects of `wrap` through its `random_init`.
        settings: number of tasks and pairs.
        on_step: called with the name of each step when it starts.
        load_options: keyword arguments of `load_model`, for a spec or a folder.

    Returns:
        The verdict; shares of pairs, scores and merges with 95% intervals over tasks; the words that were written. A model
        whose states cannot be replaced, or that solves too few tasks, has the verdict N/A and the reason; and merges, if it
        gives probabilities of words.

    Raises:
        InputError: (a ValueError) an object that is no model, or `untrained` for a model that gets its own.
        UsageError: no such suite or model, or a suite with control flow.
        ModelError: the model cannot be loaded.

    Source: docs/causal.md; Marks & Tegmark 2023 (difference in means); Makelov et al. 2023 (natural range); Sutter et al.
    2025 (alternative codes as controls); Vafa et al. 2024 (merges).
    """
    measured_suite = suite if isinstance(suite, Suite) else load_suite(str(suite))
    if _is_steerable(model):
        return UseMeasurement(measure_steerable(model, measured_suite, untrained, settings, on_step=on_step))
    if untrained is not None:
        raise InputError(
            f"untrained: a {shown(type(untrained).__name__)} with a {shown(type(model).__name__)}; a network of transformers "
            "gets its untrained copy here, leave it out"
        )
    handle = as_model(model, tokenizer, **load_options)
    if handle.checkpoint is None or handle.checkpoint.is_custom or not handle.checkpoint.has_hidden_states:
        return UseMeasurement(_measure_custom(handle, measured_suite, settings, on_step))
    with _opened(handle, None) as network, _opened(handle, UNTRAINED_SEED) as copy:
        return UseMeasurement(measure_steerable(network, measured_suite, copy, settings, on_step=on_step))


def _measure_custom(
    handle: Model, suite: Suite, settings: PairSettings, on_step: Callable[[str], None]
) -> CausalMeasurement:
    """Measure a class of the user's own through its method `steerable`; N/A without one, with merges if it scores words."""
    from benchmark.runner.measurements.word_scorers import load_steerable, load_word_scorer, open_custom
    from benchmark.runner.plan import Job

    if handle.checkpoint is None:
        try:
            network = open_custom(handle.custom, handle.spec)
        except ModelError as error:
            return CausalMeasurement(suite.name, (), not_applicable(str(error)), None, None)
        copy = None if handle.random_init is None else open_custom(handle.random_init(UNTRAINED_SEED), handle.spec)
        return measure_steerable(network, suite, copy, settings, on_step=on_step)
    job = Job(suite, handle.checkpoint, handle.dtype, handle.device, 0, threads=handle.threads)
    try:
        network, copy = load_steerable(job), load_steerable(job, UNTRAINED_SEED)
        return measure_steerable(network, suite, copy, settings, on_step=on_step)
    except ModelError as error:
        reason = str(error)
    if not handle.checkpoint.is_custom:
        reason = (
            f"{handle.spec} has no states that can be replaced; expected a network of transformers, or a SteerableModel"
        )
    try:
        merges = measure_merges(load_word_scorer(job), suite, settings)
    except ModelError:
        merges = None
    return CausalMeasurement(suite.name, (), not_applicable(reason), merges, None)


def _is_steerable(model: Any) -> bool:
    return callable(getattr(model, "prepare", None)) and hasattr(model, "sites") and hasattr(model, "batch_rows")


@contextmanager
def _opened(model: Model, random_seed: int | None) -> Iterator[SteerableModel]:
    """The loaded network, or its untrained copy, as the measurement takes it."""
    from benchmark.models.huggingface import HuggingFaceModel
    from benchmark.models.steering import open_steerable

    with model.opened(random_seed) as loaded:
        assert isinstance(loaded, HuggingFaceModel)
        yield open_steerable(loaded)
