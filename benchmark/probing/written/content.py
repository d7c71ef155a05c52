"""Semantic content of the paper with its floors: accuracy of probes of a model's states beside that of probes of less.

Sources of states: the model (mean over layers at `emit`); a *token history* with the words so far, the shown input and
the shown output; the same *without output*; for future states also the *present state*, from which the paper's baseline
predicts them. Besides, the *majority* class. A model's states show more than a record of its prompt only above these.

Accuracies are stored as numbers of correct rows per unit, from which every figure follows without the states. A unit is a
group of distinct programs: a model writes the same program for many tasks.

Source of the definitions: Jin & Rinard 2024, sections 3 and 4. Letters: `R` labelled action words, `D` width, `H` heads,
`S` pairs of source and depth, `G` groups of heads, `U` units, `Q` seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.errors import UsageError
from benchmark.probing.labels import Split
from benchmark.probing.probe_fit import ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, Protocol
from benchmark.probing.token_history import token_history_states
from benchmark.probing.written.content_labels import FRAMES, HEADS, ContentLabels, WrittenPrograms, label_content
from benchmark.statistics import Estimate, bootstrap_weights, interval_over_units_and_seeds

MODEL, HISTORY, HISTORY_WITHOUT_OUTPUT = "model", "token history", "token history without output"
PRESENT_STATE, MAJORITY = "present state", "majority"
DEPTHS = ("linear", "mlp1")
OFFSETS = (0, 1, 2)
EMIT = -1
"""Words read beyond the labelled one at the position that predicts it."""
MAX_UNITS = 400
GROUPS = tuple(dict.fromkeys(group for groups in FRAMES.values() for group in groups))
"""Groups of heads of all frames; a group is right if all of its heads are."""


@dataclass(frozen=True)
class UnitRows:
    """The test rows of an offset, by unit and by seed.

    Attributes:
        splits: split per seed.
        unit: int64 [R], unit of each labelled word.
        num_units: U.
    """

    splits: list[Split]
    unit: np.ndarray
    num_units: int

    @classmethod
    def at_offset(cls, labels: ContentLabels, written: WrittenPrograms, offset: int, protocol: Protocol) -> UnitRows:
        """The rows whose state at the offset exists."""
        num_units = min(MAX_UNITS, written.num_distinct)
        unit_of_program = written.cluster * num_units // written.num_distinct
        return cls(labels.splits(offset, protocol), unit_of_program[labels.probe_set.program], num_units)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [U], number of test rows of all seeds."""
        rows = np.concatenate([split.test for split in self.splits])
        return np.bincount(self.unit[rows], minlength=self.num_units)

    @property
    def seed_sizes(self) -> np.ndarray:
        """int64 [Q], number of test rows."""
        return np.array([len(split.test) for split in self.splits])

    def sum(self, values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """float64 [G, U] and [G, Q], sums of values [G, test rows] per seed, by unit and by seed."""
        by_unit = np.zeros((len(values[0]), self.num_units))
        for part, split in zip(values, self.splits, strict=True):
            for row, of_group in zip(by_unit, part, strict=True):
                row += np.bincount(self.unit[split.test], of_group, minlength=self.num_units)
        return by_unit, np.stack([part.sum(1, dtype=np.float64) for part in values], 1)

    def interval(self, by_unit: np.ndarray, by_seed: np.ndarray, protocol: Protocol) -> Estimate:
        """Mean over G rates with its 95% interval over units and seeds, from sums [G, U] and [G, Q]."""
        sizes, seed_sizes = self.sizes, self.seed_sizes
        weights = bootstrap_weights(self.num_units, protocol.resamples, BOOTSTRAP_SEED)
        resampled = (weights @ by_unit.T).mean(-1) / np.maximum(weights @ sizes, 1)
        tested = seed_sizes > 0
        of_seeds = by_seed.mean(0)[tested] / seed_sizes[tested]
        value = float(by_unit.sum(-1).mean() / sizes.sum())
        estimate = interval_over_units_and_seeds(value, resampled, of_seeds, self.num_units, 0.95)
        # The interval is symmetric and can exceed the range of a share.
        return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


@dataclass(frozen=True)
class ContentHits:
    """Numbers of correct rows at one offset.

    Attributes:
        by_unit: uint32 [S, G, U], over the rows of all seeds, in the order of `content_sources` and `GROUPS`.
        by_seed: uint32 [S, G, Q].
    """

    by_unit: np.ndarray
    by_seed: np.ndarray


@dataclass(frozen=True)
class ContentFigure:
    """Accuracy of one source at one offset.

    Attributes:
        source, depth, offset, frame: what was probed, how, for which state; the depth of the majority is empty.
        content: mean accuracy over the groups of heads of the frame, 95% interval over units of distinct
            programs and seeds.
        geometric: geometric mean of accuracy over the groups.
        accuracy: accuracy by group, such as `start_x+start_y`.
    """

    source: str
    depth: str
    offset: int
    frame: str
    content: Estimate
    geometric: float
    accuracy: dict[str, float]


@dataclass(frozen=True)
class PaperContent:
    """All figures of one model, and the number of valid and of distinct programs."""

    figures: list[ContentFigure]
    programs: int
    distinct: int

    def find(self, source: str, depth: str, offset: int, frame: str) -> ContentFigure:
        """The figure of a source; raises `KeyError` if it was not measured."""
        for figure in self.figures:
            if (figure.source, figure.depth, figure.offset, figure.frame) == (source, depth, offset, frame):
                return figure
        raise KeyError((source, depth, offset, frame))


def content_sources(
    offset: int, depths: Sequence[str] = DEPTHS, has_states: bool = True
) -> list[tuple[str, str]]:  # fmt: skip
    """The pairs of source and depth that are probed at an offset; the present state is not probed for itself."""
    sources = [*([MODEL] if has_states else []), HISTORY, HISTORY_WITHOUT_OUTPUT, *([PRESENT_STATE] if offset else [])]
    return [(source, depth) for source in sources for depth in depths]


def probe_content(
    written: WrittenPrograms,
    labels: ContentLabels,
    states: StateArray | None,
    offset: int,
    protocol: Protocol,
    depths: Sequence[str] = DEPTHS,
    on_fit: Callable[[str], None] = lambda name: None,
    trainer: ProbeTrainer = fit_in_process,
) -> ContentHits:
    """Train the probes of one offset and count what they predict rightly; arguments as for `measure_content`."""
    rows = UnitRows.at_offset(labels, written, offset, protocol)
    sources = source_states(written, labels, states)
    sums = []
    for name, depth in content_sources(offset, depths, states is not None):
        on_fit(f"{name}, {depth}, +{offset}")
        correct = _probe(sources[name], depth, offset, labels, rows.splits, protocol, trainer)
        sums.append(rows.sum([_group_hits(part) for part in correct]))
    by_unit, by_seed = (np.stack(parts).round().astype(np.uint32) for parts in zip(*sums, strict=True))
    return ContentHits(by_unit, by_seed)


def content_figures(
    written: WrittenPrograms,
    labels: ContentLabels,
    hits: ContentHits,
    offset: int,
    protocol: Protocol,
    depths: Sequence[str] = DEPTHS,
    has_states: bool = True,
) -> list[ContentFigure]:
    """The figures of one offset, with the majority, which follows from the labels."""
    rows = UnitRows.at_offset(labels, written, offset, protocol)
    majority = rows.sum([_group_hits(part) for part in _majority(labels, offset, rows.splits)])
    sums = [majority, *zip(hits.by_unit.astype(np.float64), hits.by_seed.astype(np.float64), strict=True)]
    names = [(MAJORITY, ""), *content_sources(offset, depths, has_states)]
    total = rows.sizes.sum()
    figures = []
    for (source, depth), (by_unit, by_seed) in zip(names, sums, strict=True):
        for frame, groups in FRAMES.items():
            chosen = [GROUPS.index(group) for group in groups]
            accuracy = by_unit[chosen].sum(-1) / total
            geometric = float(np.exp(np.log(np.maximum(accuracy, 1e-12)).mean()))
            content = rows.interval(by_unit[chosen], by_seed[chosen], protocol)
            shares = {"+".join(group): float(share) for group, share in zip(groups, accuracy, strict=True)}
            figures.append(ContentFigure(source, depth, offset, frame, content, geometric, shares))
    return figures


def too_few_programs(written: WrittenPrograms | None, protocol: Protocol) -> str:
    """Why the programs cannot be probed; empty if they can."""
    distinct = 0 if written is None else written.num_distinct
    if distinct >= protocol.min_programs:
        return ""
    return (
        f"{distinct} distinct programs; expected at least {protocol.min_programs}: the model writes too few programs to be "
        "probed on them"
    )


def measure_content(
    written: WrittenPrograms,
    states: StateArray | None,
    protocol: Protocol,
    offsets: Sequence[int] = OFFSETS,
    depths: Sequence[str] = DEPTHS,
    on_fit: Callable[[str], None] = lambda name: None,
    trainer: ProbeTrainer = fit_in_process,
) -> PaperContent:
    """Measure content and floors.

    Args:
        written: the programs that the model wrote, and the worlds that were shown.
        states: float32 [R, D], mean over layers at `emit` for every action word of all programs, in order; None measures
            the floors only.
        protocol: settings of the probes.
        offsets: offsets in program states, 0 first.
        depths: `linear`, `mlp1`, `mlp2`.
        on_fit: called with the name of each fit before it starts.
        trainer: trains the probes.

    Raises:
        UsageError: too few distinct programs, or a number of states other than that of the action words.
    """
    reason = too_few_programs(written, protocol)
    if reason:
        raise UsageError(reason)
    labels = label_content(written, protocol, offsets)
    check_states(labels, states)
    figures: list[ContentFigure] = []
    for offset in offsets:
        hits = probe_content(written, labels, states, offset, protocol, depths, on_fit, trainer)
        figures += content_figures(written, labels, hits, offset, protocol, depths, states is not None)
    return PaperContent(figures, len(written.programs), written.num_distinct)


def check_states(labels: ContentLabels, states: StateArray | None) -> None:
    """Raise `UsageError` if there is not one state for each labelled word."""
    rows = len(labels.probe_set.program)
    if states is not None and len(states) != rows:
        raise UsageError(f"{len(states)} states; expected {rows}, one for each action word of the valid programs")


def source_states(
    written: WrittenPrograms, labels: ContentLabels, states: StateArray | None
) -> Mapping[str, StateArray]:
    """float32 [R, D] by source."""
    programs, inputs, probe_set = written.programs, written.inputs, labels.probe_set
    sources: dict[str, StateArray] = {} if states is None else {MODEL: states}
    sources[HISTORY] = token_history_states(programs, inputs, probe_set, EMIT, written.outputs)
    sources[HISTORY_WITHOUT_OUTPUT] = token_history_states(programs, inputs, probe_set, EMIT)
    sources[PRESENT_STATE] = labels.state(0)
    return sources


def _group_hits(correct: np.ndarray) -> np.ndarray:
    """bool [G, test rows], whether all heads of a group are right, from bool [H, test rows]."""
    return np.stack([correct[[HEADS.index(head) for head in group]].all(0) for group in GROUPS])


def _majority(labels: ContentLabels, offset: int, splits: Sequence[Split]) -> list[np.ndarray]:
    """bool [H, test rows] per seed, whether the most frequent class of the training rows is right."""
    classes = labels.classes[labels.offsets.index(offset)]
    correct = []
    for split in splits:
        most_frequent = [np.bincount(row[split.train]).argmax() for row in classes]
        correct.append(classes[:, split.test] == np.array(most_frequent)[:, None])
    return correct


def _probe(
    states: StateArray,
    depth: str,
    offset: int,
    labels: ContentLabels,
    splits: Sequence[Split],
    protocol: Protocol,
    trainer: ProbeTrainer,
) -> list[np.ndarray]:
    """bool [H, test rows] per seed, whether the probe of each head is right."""
    classes = labels.classes[labels.offsets.index(offset)]
    widths = {"linear": [], "mlp1": [protocol.hidden], "mlp2": list(protocol.deep_hidden)}[depth]
    by_seed = [states] * len(protocol.seeds)
    fit = trainer(by_seed, classes[:, None], labels.counts[:, None], splits, widths, protocol.seeds, protocol)
    return [predicted[:, 0] == classes[:, split.test] for predicted, split in zip(fit.predicted, splits, strict=True)]
