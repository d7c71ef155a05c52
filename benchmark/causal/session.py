"""A model with the pairs of a suite: prepared prefixes, states at the mean prefixes, edited states.

Letters: `P` pairs, `S` semantics (0 is the original), `L` sites, `D` width of a site, `R` mean prefixes, `B` rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.causal.edits import MeanShift, mean_shift
from benchmark.causal.interventions import PreparedPrefixes, SteerableModel
from benchmark.causal.natural_range import ComponentRange
from benchmark.causal.pairs import PairSet, prefix_texts
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import TURNS
from benchmark.errors import ModelError
from benchmark.tasks.prompt_template import PLAIN, PromptTemplate, render_prompts
from benchmark.tasks.suite import Suite
from karel_env.semantics import ORIGINAL, Semantics

PRECEDES_LAST_WORD = "labels_precede_last_word"
"""Optional attribute of a `SteerableModel`: whether states are labelled by the rotation before the last word."""


class CausalSession:
    """A model with the pairs, the values of the variable under each semantics, and the prompts.

    Args:
        model: the model.
        suite: suite of the pairs.
        pairs: the pairs.
        template: prompt template of the track.
        batch_rows: largest number of prefixes at a time; None for the model's own limit.
    """

    def __init__(
        self,
        model: SteerableModel,
        suite: Suite,
        pairs: PairSet,
        template: PromptTemplate = PLAIN,
        batch_rows: int | None = None,
    ) -> None:
        self.model, self.suite, self.pairs = model, suite, pairs
        self.batch_rows = min(model.batch_rows, batch_rows or model.batch_rows)
        self.prompts = render_prompts(suite, pairs.tasks, template=template)
        self.semantics = [ORIGINAL, *alternative_semantics()]
        self.values = np.stack([self.rotations(pairs.prefix, s) for s in self.semantics])

    def rotations(self, prefixes: np.ndarray, semantics: Semantics) -> np.ndarray:
        """int64 [R], the rotation of prefixes int8 [R, K] by which states are labelled.

        That of the prefix, or of the prefix without its last word for a model that says that its states precede that word.
        """
        return net_rotation(self.labelled_part(prefixes), semantics)

    def labelled_part(self, prefixes: np.ndarray) -> np.ndarray:
        """int8 [R, K] or [R, K - 1], the part of prefixes whose rotation labels their states; see `rotations`."""
        precedes = bool(getattr(self.model, PRECEDES_LAST_WORD, False))
        return prefixes[:, : prefixes.shape[1] - precedes]

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, PreparedPrefixes]]:
        """Rows of pairs, prepared a batch at a time; neighbouring rows share prompts."""
        for start in range(0, len(rows), self.batch_rows):
            chunk = rows[start : start + self.batch_rows]
            yield chunk, self.prepare(self.pairs.task[chunk], self.pairs.prefix[chunk])

    def prepare(self, task: np.ndarray, prefix: np.ndarray) -> PreparedPrefixes:
        """Prefixes int8 [B, K] of tasks int64 [B], prepared."""
        return self.model.prepare([self.prompts[i] for i in task], prefix_texts(prefix))

    def read_mean_states(self) -> SiteStates:
        """States at the mean prefixes.

        Raises:
            ModelError: they cannot be read, or are not finite.
        """
        states: list[list[np.ndarray]] = []
        activations: list[list[np.ndarray]] = []
        for start in range(0, len(self.pairs.mean_task), self.batch_rows):
            rows = slice(start, start + self.batch_rows)
            prepared = self.prepare(self.pairs.mean_task[rows], self.pairs.mean_prefix[rows])
            states.append(list(prepared.states()))
            activations.append(list(prepared.activations()))
        return SiteStates(_concatenate(states), _concatenate(activations))

    def edited(self, shift: MeanShift, states: np.ndarray, rows: np.ndarray, semantics: int = 0) -> np.ndarray:
        """States of pairs `rows` with the value that the turn of the pair leads to."""
        source = self.values[semantics, rows]
        return shift(states, source, (source + self.pairs.turn[rows]) % TURNS)


@dataclass
class SiteStates:
    """States in unedited runs at the mean prefixes.

    Attributes:
        sites: float32 [R, D] per site.
        activations: float32 [R, D] per clamped activation.
        ranges: natural ranges that were computed, by identity of the states.
    """

    sites: list[np.ndarray]
    activations: list[np.ndarray]
    ranges: dict[int, ComponentRange] = field(default_factory=dict)

    def shifts(self, session: CausalSession) -> list[list[MeanShift]]:
        """[S][L], the mean shift of each semantics at each site."""
        values = [session.rotations(session.pairs.mean_prefix, s) for s in session.semantics]
        return [[mean_shift(site, value, TURNS) for site in self.sites] for value in values]

    def site_range(self, site: int) -> ComponentRange:
        """Components and natural range of the states of a site."""
        return self._range(self.sites[site])

    @property
    def activation_ranges(self) -> list[ComponentRange]:
        """Components and natural range of each clamped activation."""
        return [self._range(states) for states in self.activations]

    def _range(self, states: np.ndarray) -> ComponentRange:
        if id(states) not in self.ranges:
            self.ranges[id(states)] = ComponentRange.of(states)
        return self.ranges[id(states)]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name; an activation that is the state of a site is stored once."""
        arrays = {f"site.{i}": states for i, states in enumerate(self.sites)}
        for i, states in enumerate(self.activations):
            is_last = i == len(self.activations) - 1
            if is_last or i >= len(self.sites) or not np.array_equal(states, self.sites[i]):
                arrays[f"activation.{i}"] = states
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> SiteStates:
        """The inverse of `to_arrays`."""
        sites = [arrays[f"site.{i}"] for i in range(sum(name.startswith("site.") for name in arrays))]
        count = 1 + max(int(name.split(".")[1]) for name in arrays if name.startswith("activation."))
        names = [f"activation.{i}" for i in range(count)]
        return cls(sites, [arrays[name] if name in arrays else sites[i] for i, name in enumerate(names)])


def _concatenate(batches: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    joined = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    for states in joined:
        if not np.isfinite(states).all():
            raise ModelError("states are NaN or infinite; try --dtype float32, else the weights are broken")
    return joined


def best_words(log_probs: np.ndarray) -> np.ndarray:
    """int64 [B], index of the best continuation of scores [B, 6].

    Raises:
        ModelError: a score is NaN.
    """
    if np.isnan(log_probs).any():
        raise ModelError("word scores are NaN; try --dtype float32, else the weights are broken")
    best: np.ndarray = log_probs.argmax(1)
    return best
