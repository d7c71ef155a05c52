"""How far ahead a model's states hold the rotation of the robot, on programs that it wrote itself: `reach`.

Before each word is written (at `emit`), probes predict the rotation after one and after two words *beyond* that word. All of
them are given the complete state one word earlier, so that what follows from it is no skill: the zero is a probe of that
state alone (conditional probing, Hewitt et al. 2021). The model's skill is compared with that of a token history with the
words so far, the shown input and the shown output, which is what the prompt gives away.

Letters: `R` labelled action words, `U` units of distinct programs, `Q` seeds, `K` sources, `O` offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.probing.labels import Split
from benchmark.probing.probe_fit import ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, Protocol
from benchmark.probing.version4.rotation_evidence import step_prior_loss
from benchmark.probing.written.content import HISTORY, MODEL, PRESENT_STATE, UnitRows, source_states
from benchmark.probing.written.content_labels import HEADS, ContentLabels, WrittenPrograms
from benchmark.statistics import Estimate, bootstrap_weights, interval_over_units_and_seeds

AHEAD_OFFSETS = (1, 2)
AHEAD_SOURCES = (PRESENT_STATE, HISTORY, MODEL)
"""The state one word earlier alone, and with the token history or the model's states beside it."""
REACH_MARGIN = 0.03
"""Smallest lower end of the 95% interval of delta at every offset up to `reach`."""


@dataclass(frozen=True)
class AheadLosses:
    """Cross-entropies of rotation in nats, summed over test rows, in the order of `AHEAD_OFFSETS` and `AHEAD_SOURCES`.

    Attributes:
        by_unit: float32 [O, K, U], over the rows of all seeds.
        by_seed: float32 [O, K, Q].
    """

    by_unit: np.ndarray
    by_seed: np.ndarray

    def of_model(self, index: int) -> AheadLosses:
        """The losses of one of several models, with those of the state one word earlier and of the token history."""
        chosen = [0, 1, 2 + index]
        return AheadLosses(self.by_unit[:, chosen], self.by_seed[:, chosen])


@dataclass(frozen=True)
class AheadFigure:
    """Rotation at one offset.

    Attributes:
        offset: words beyond the one that is about to be written.
        skill: 1 - CE / CE of the state one word earlier, of the model's states beside that state; 95% interval.
        history: the same of the token history.
        delta: skill minus that of the token history (at least 0).
        rows: number of test rows.
    """

    offset: int
    skill: Estimate
    history: float
    delta: Estimate
    rows: int


def probe_ahead(
    written: WrittenPrograms,
    labels: ContentLabels,
    models: Sequence[StateArray],
    protocol: Protocol,
    trainer: ProbeTrainer = fit_in_process,
) -> AheadLosses:
    """Train the probes, with one hidden layer.

    Args:
        written: the programs that the model wrote, and the worlds that were shown.
        labels: their labels at the offsets 0, 1 and 2.
        models: per model, float32 [R, D], mean over layers at `emit` for every action word, in order.
        protocol: settings of the probes.
        trainer: trains the probes.
    """
    sources = [None, source_states(written, labels, None)[HISTORY], *models]
    by_unit, by_seed = [], []
    for offset in AHEAD_OFFSETS:
        rows = UnitRows.at_offset(labels, written, offset, protocol)
        rotation = labels.classes[labels.offsets.index(offset), HEADS.index("rotation")]
        earlier = labels.state(offset - 1)
        base = _priors(labels, rotation, rows.splits)
        losses = []
        for source in sources:
            columns = earlier if source is None else np.concatenate([np.asarray(source[:]), earlier], 1)
            of_source = _losses(columns, rotation, labels, rows.splits, base, protocol, trainer)
            base = of_source if source is None else base
            losses.append([test for _, test in of_source])
        sums = [rows.sum([part[None] for part in tests]) for tests in losses]
        by_unit.append(np.concatenate([units for units, _ in sums]))
        by_seed.append(np.concatenate([seeds for _, seeds in sums]))
    return AheadLosses(np.stack(by_unit).astype(np.float32), np.stack(by_seed).astype(np.float32))


def ahead_figures(
    written: WrittenPrograms, labels: ContentLabels, losses: AheadLosses, protocol: Protocol
) -> list[AheadFigure]:
    """The figures of every offset, from the sums."""
    figures = []
    for o, offset in enumerate(AHEAD_OFFSETS):
        rows = UnitRows.at_offset(labels, written, offset, protocol)
        by_unit, by_seed = losses.by_unit[o].astype(np.float64), losses.by_seed[o].astype(np.float64)
        weights = bootstrap_weights(rows.num_units, protocol.resamples, BOOTSTRAP_SEED)
        resampled = _skills(weights @ by_unit.T)
        of_seeds = _skills(by_seed.T[rows.seed_sizes > 0])
        history, skill = _skills(by_unit.sum(1)[None])[0]

        beyond = [part[:, 1] - np.maximum(part[:, 0], 0) for part in (resampled, of_seeds)]
        n = rows.num_units
        figures.append(
            AheadFigure(
                offset,
                interval_over_units_and_seeds(float(skill), resampled[:, 1], of_seeds[:, 1], n, 0.95),
                float(history),
                interval_over_units_and_seeds(float(skill - max(history, 0)), beyond[0], beyond[1], n, 0.95),
                int(rows.sizes.sum()),
            )
        )
    return figures


def reach_of(figures: Sequence[AheadFigure]) -> int:
    """The largest offset up to which delta is above `REACH_MARGIN`; 0 if there is none.

    Offsets are tested in a fixed order and the first failure ends it, so that the level of each test is that of all.
    """
    reach = 0
    for figure in figures:
        if figure.delta.low <= REACH_MARGIN:
            break
        reach = figure.offset
    return reach


def _skills(losses: np.ndarray) -> np.ndarray:
    """float64 [N, 2], skill of the token history and of the model, from losses [N, K]."""
    return np.asarray(1 - losses[:, 1:] / np.maximum(losses[:, :1], 1e-12))


Losses = list[tuple[float, np.ndarray]]
"""Per seed, the mean cross-entropy of the validation rows, and that of each test row."""


def _priors(labels: ContentLabels, rotation: np.ndarray, splits: Sequence[Split]) -> Losses:
    step = labels.probe_set.step
    return [
        (
            float(step_prior_loss(step, rotation, split.train, split.validation).mean()),
            step_prior_loss(step, rotation, split.train, split.test),
        )
        for split in splits
    ]


def _losses(
    columns: np.ndarray,
    rotation: np.ndarray,
    labels: ContentLabels,
    splits: Sequence[Split],
    base: Losses,
    protocol: Protocol,
    trainer: ProbeTrainer,
) -> Losses:
    """The losses of a source; those of `base` for a seed whose probe is no better on validation."""
    count = labels.counts[HEADS.index("rotation")]
    fit = trainer(
        [columns] * len(splits), rotation[None, None], np.array([[count]]), splits, [protocol.hidden], protocol.seeds, protocol
    )  # fmt: skip
    of_probes = [
        (float(fit.validation[q, 0, 0]), -fit.log_prob[q][0, 0].astype(np.float64)) for q in range(len(splits))
    ]
    return [probe if probe[0] < fallback[0] else fallback for probe, fallback in zip(of_probes, base, strict=True)]
