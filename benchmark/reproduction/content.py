"""Semantic content of the paper with its floors: accuracy of probes of a model's states beside that of probes of less.

Sources of states: the model (mean over layers at `emit`); a *token history* with the words so far, the shown input and
the shown output; the same *without output*; for future states also the *present state*, from which the paper's baseline
predicts them. Besides, the *majority* class. A model's states show more than a record of its prompt only above these.

Source of the definitions: Jin & Rinard 2024, sections 3 and 4. Letters: `R` labelled action words, `D` width, `H` heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.errors import UsageError
from benchmark.probing.labels import Split
from benchmark.probing.probe_fit import ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import Protocol
from benchmark.probing.semantic_content import GeneratedPrograms, summarize_hits
from benchmark.probing.token_history import token_history_states
from benchmark.reproduction.content_labels import FRAMES, HEADS, ContentLabels, WrittenPrograms, label_content
from benchmark.statistics import Estimate

MODEL, HISTORY, HISTORY_WITHOUT_OUTPUT = "model", "token history", "token history without output"
PRESENT_STATE, MAJORITY = "present state", "majority"
DEPTHS = ("linear", "mlp1")
EMIT = -1
"""Words read beyond the labelled one at the position that predicts it."""


@dataclass(frozen=True)
class ContentFigure:
    """Accuracy of one source at one offset.

    Attributes:
        source, depth, offset, frame: what was probed, how, for which state; the depth of the majority is empty.
        content: mean accuracy over the groups of heads of the frame, 95% interval over distinct programs and seeds.
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


def measure_content(
    written: WrittenPrograms,
    states: StateArray | None,
    protocol: Protocol,
    offsets: Sequence[int] = (0, 1, 2),
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
    if written.num_distinct < protocol.min_programs:
        raise UsageError(
            f"{written.num_distinct} distinct programs; expected at least {protocol.min_programs}: the model writes too "
            "few programs to be probed on them"
        )
    labels = label_content(written, protocol, offsets)
    rows = len(labels.probe_set.program)
    if states is not None and len(states) != rows:
        raise UsageError(f"{len(states)} states; expected {rows}, one for each action word of the valid programs")
    sources = _sources(written, labels, states)
    figures: list[ContentFigure] = []
    for offset in offsets:
        splits = labels.splits(offset, protocol)
        figures += _figures(MAJORITY, "", offset, _majority(labels, offset, splits), labels, splits, written, protocol)
        for name, source in sources.items():
            if name == PRESENT_STATE and offset == 0:
                continue
            for depth in depths:
                on_fit(f"{name}, {depth}, +{offset}")
                correct = _probe(source, depth, offset, labels, splits, protocol, trainer)
                figures += _figures(name, depth, offset, correct, labels, splits, written, protocol)
    return PaperContent(figures, len(written.programs), written.num_distinct)


def _sources(written: WrittenPrograms, labels: ContentLabels, states: StateArray | None) -> Mapping[str, StateArray]:
    programs, inputs, probe_set = written.programs, written.inputs, labels.probe_set
    sources: dict[str, StateArray] = {} if states is None else {MODEL: states}
    sources[HISTORY] = token_history_states(programs, inputs, probe_set, EMIT, written.outputs)
    sources[HISTORY_WITHOUT_OUTPUT] = token_history_states(programs, inputs, probe_set, EMIT)
    sources[PRESENT_STATE] = labels.present
    return sources


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


def _figures(
    source: str,
    depth: str,
    offset: int,
    correct: Sequence[np.ndarray],
    labels: ContentLabels,
    splits: list[Split],
    written: WrittenPrograms,
    protocol: Protocol,
) -> list[ContentFigure]:
    programs = GeneratedPrograms(labels.probe_set, splits, written.cluster, written.num_distinct)
    figures = []
    for frame, groups in FRAMES.items():
        hits = np.concatenate(
            [np.stack([part[[HEADS.index(head) for head in group]].all(0) for group in groups]) for part in correct], 1
        )
        content, geometric = summarize_hits(hits, programs, protocol)
        accuracy = {"+".join(group): float(share) for group, share in zip(groups, hits.mean(1), strict=True)}
        figures.append(ContentFigure(source, depth, offset, frame, content, geometric, accuracy))
    return figures
