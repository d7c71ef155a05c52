"""Labels in the frame of the start: rotation, forward and sideways displacement, and the start heading.

Letters: `B` programs, `R` labelled action words, `K` labels (0 is the original), `T` action words of the longest program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.probing.labels import MISSING, Split, label_actions
from benchmark.probing.protocol import Protocol
from benchmark.probing.version4.turn_pairs import (
    NUM_ROTATIONS,
    ORIGINAL_PAIR,
    SAME_WORDS_PAIRS,
    SEMANTIC_PAIRS,
    TurnPair,
    rotations,
)
from karel_env.features import FEATURES
from karel_env.language import FIRST_CONDITION, Programs
from karel_env.semantics import MOVE, ORIGINAL, PICK, PUT, RIGHT, Semantics, assign
from karel_env.world import Worlds

ROTATION, FORWARD, SIDEWAYS = RELATIVE_FEATURES = ("rotation", "forward", "sideways")
NO_WORD = -1
_STEPS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])


@dataclass(frozen=True)
class RelativeProbeSet:
    """The labelled action words of the blind set in the relative frame.

    Attributes:
        program, word, step: int64 [R], see `ProbeSet`.
        prefixes: int8 [R, T], the action words up to and including each labelled one, `NO_WORD` after it.
        classes: int16 [K, 3, R], class of each of `RELATIVE_FEATURES` under the semantics of each of `ALL_PAIRS`; those of
            `SAME_WORDS_PAIRS` have a rotation only.
        start_heading: int16 [R].
        counts: int64 [3], number of classes of each feature.
        cluster: int64 [B], the prompt of each program: the unit of folds and of the bootstrap.
        folds: number of folds of prompts.
        budget: largest number of programs that a probe is trained on.
    """

    program: np.ndarray
    word: np.ndarray
    step: np.ndarray
    prefixes: np.ndarray
    classes: np.ndarray
    start_heading: np.ndarray
    counts: np.ndarray
    cluster: np.ndarray
    folds: int
    budget: int

    def split(self, seed: int) -> Split:
        """The rows of probe seed `seed`: prompts of one fold for testing, of the next for validation, of others for training."""
        fold = self.cluster % self.folds
        test, validation = seed % self.folds, (seed + 1) % self.folds
        training = np.flatnonzero((fold != test) & (fold != validation))
        training = np.roll(training, -(seed * len(training) // self.folds))[: self.budget]
        parts = (training, np.flatnonzero(fold == validation), np.flatnonzero(fold == test))
        return Split(*(np.flatnonzero(np.isin(self.program, part)) for part in parts))

    def is_unseen(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """bool [len(rows)], whether the action prefix of a row occurs in no program that the split trains on."""
        prefix = np.unique(self.prefixes, axis=0, return_inverse=True)[1].reshape(-1)
        return ~np.isin(prefix[rows], prefix[split.train])


def representative(pair: TurnPair) -> Semantics:
    """The semantics whose displacement is labelled for a pair of turning words; a marker word moves where one is left."""
    if pair == ORIGINAL_PAIR:
        return ORIGINAL
    unused = [word for word in (PUT, PICK, RIGHT, MOVE) if word not in (pair.left, pair.right)]
    return assign(unused[0], pair.left, pair.right)


def relative_classes(classes: np.ndarray, start: np.ndarray, height: int, width: int) -> np.ndarray:
    """int16 [..., 3, R], classes of `RELATIVE_FEATURES` from absolute ones.

    Args:
        classes: int16 [..., F, R], classes of `karel_env.features.FEATURES`.
        start: int64 [R], heading before the first action.
        height, width: size of the grid, border included.
    """
    heading, start_x, start_y = (classes[..., FEATURES.index(name), :] for name in ("facing", "start_x", "start_y"))
    along_x, along_y = start_x - (width - 3), start_y - (height - 3)
    largest = max(height, width) - 3
    ahead, right = _STEPS[start], _STEPS[(start + 1) % NUM_ROTATIONS]
    forward = along_y * ahead[:, 0] + along_x * ahead[:, 1] + largest
    sideways = along_y * right[:, 0] + along_x * right[:, 1] + largest
    relative = np.stack([(heading - start) % NUM_ROTATIONS, forward, sideways], -2)
    return np.where((heading == MISSING)[..., None, :], MISSING, relative).astype(np.int16)


def action_prefixes(programs: Programs, program: np.ndarray, step: np.ndarray) -> np.ndarray:
    """int8 [R, T], see `RelativeProbeSet.prefixes`."""
    is_action = programs.words < FIRST_CONDITION
    owner = np.repeat(np.arange(len(programs)), programs.lengths)[is_action]
    first = np.searchsorted(owner, np.arange(len(programs)))
    rank = np.arange(len(owner)) - first[owner]
    actions = np.full((len(programs), int(rank.max(initial=-1)) + 1), NO_WORD, np.int8)
    actions[owner, rank] = programs.words[is_action]
    return np.where(np.arange(actions.shape[1]) <= step[:, None], actions[program], NO_WORD).astype(np.int8)


def build_relative_probe_set(
    programs: Programs, inputs: Worlds, cluster: np.ndarray, protocol: Protocol, budget: int
) -> RelativeProbeSet:
    """Label B programs in their first shown worlds.

    Args:
        programs: B programs.
        inputs: worlds [B].
        cluster: int64 [B], prompt of each program.
        protocol: number of folds.
        budget: largest number of programs that a probe is trained on.
    """
    semantics = [representative(pair) for pair in SEMANTIC_PAIRS]
    program, word, step, classes = label_actions(programs, inputs, semantics)
    start = inputs.robot[program, 2].astype(np.int64)
    height, width = inputs.cells.shape[-2:]
    relative = relative_classes(classes[0], start, height, width)
    prefixes = action_prefixes(programs, program, step)
    same_words = np.full((len(SAME_WORDS_PAIRS), *relative.shape[1:]), MISSING, np.int16)
    for k, pair in enumerate(SAME_WORDS_PAIRS):
        same_words[k, 0] = np.where(relative[0, 0] == MISSING, MISSING, rotations(prefixes, pair))
    displacements = 2 * (max(height, width) - 3) + 1
    return RelativeProbeSet(
        program=program,
        word=word,
        step=step,
        prefixes=prefixes,
        classes=np.concatenate([relative, same_words]),
        start_heading=start.astype(np.int16),
        counts=np.array([NUM_ROTATIONS, displacements, displacements]),
        cluster=cluster,
        folds=protocol.folds,
        budget=budget,
    )
