"""Labels after the first execution of a word, in the frame of the start, for programs with control flow.

A word that is not executed has no label, nor has a word before whose first execution a later word is executed, as in the
second pass of a loop: a reader of the words up to it cannot know that state. Skills of several labels are compared on
the same rows, so only words that have a label under every semantics are rows.

In a straight-line program every word has all labels, and they are those of `build_relative_probe_set`.

Letters: `B` programs, `R` rows, `K` labels (0 is the original), `T` places of action words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.protocol import Protocol
from benchmark.probing.version4.relative_labels import RelativeProbeSet, action_prefixes, representative
from benchmark.probing.version4.turn_pairs import NUM_ROTATIONS, SAME_WORDS_PAIRS, SEMANTIC_PAIRS
from karel_env.execution.first_executions import ActionWords, run_to_words
from karel_env.language import HEADER, Programs
from karel_env.limits import MAX_EVENTS
from karel_env.world import Worlds

SEMANTICS = tuple(representative(pair) for pair in SEMANTIC_PAIRS)
SUMS = tuple(tuple(pair.steps().tolist()) for pair in SAME_WORDS_PAIRS)
"""Quarter turns per action word of the labels that are no semantics; summed over the words that the original executes."""
FIRST_JUDGED = 5
"""Action words before a judged word in programs with control flow. Texts differ after a few words there; with fewer actions
the pose labels follow from the state (derivability .225 for a word with at least three before it in `control`, .171 for five)."""


@dataclass(frozen=True)
class ControlProbeSet(RelativeProbeSet):
    """Labelled action words of programs with control flow; `step` counts the action words before, in the text.

    Attributes:
        programs, inputs: B programs, and the world of each.
        row: int64 [R], index of each labelled word among all action words of the programs.
        text: int64 [R], a number that words have in common if the programs are equal up to them.
        num_words: number of action words of the programs.
        num_executed: number of those that the original executes.
        max_events: budget of events of an execution.
        first_judged: action words that a judged word has before it, in the text.
    """

    programs: Programs
    inputs: Worlds
    row: np.ndarray
    text: np.ndarray
    num_words: int
    num_executed: int
    max_events: int
    first_judged: int

    def is_unseen(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """bool [len(rows)], whether no program that the split trains on has the text up to the word of a row, and the word
        has as many action words before it as a judged one."""
        return ~np.isin(self.text[rows], self.text[split.train]) & (self.step[rows] >= self.first_judged)

    def words(self, rows: np.ndarray) -> ActionWords:
        """The action words of some rows."""
        action = self.prefixes[rows, self.step[rows]]
        return ActionWords(self.program[rows], self.word[rows], self.step[rows], action)


def build_control_probe_set(
    programs: Programs,
    inputs: Worlds,
    cluster: np.ndarray,
    protocol: Protocol,
    budget: int,
    max_events: int = MAX_EVENTS,
    first_judged: int = 0,
) -> ControlProbeSet:
    """Label B programs in their first shown worlds.

    Args:
        programs: B programs.
        inputs: worlds [B].
        cluster: int64 [B], prompt of each program.
        protocol: number of folds.
        budget: largest number of programs that a probe is trained on.
        max_events: budget of events of an execution.
        first_judged: see `ControlProbeSet`.
    """
    words = ActionWords.of(programs)
    prefixes = action_prefixes(programs, words.program, words.rank)
    executed = run_to_words(programs, inputs, words, prefixes.clip(0)[:, None], SEMANTICS, SUMS, max_events)
    row = np.flatnonzero((executed.num_executed > 0).all(1))
    displacements = executed.forward.shape[-1]
    classes = np.full((executed.rotation.shape[1], 3, len(row)), MISSING, np.int16)
    classes[:, 0] = executed.rotation[row].argmax(-1).T
    classes[: len(SEMANTICS), 1] = executed.forward[row].argmax(-1).T
    classes[: len(SEMANTICS), 2] = executed.sideways[row].argmax(-1).T
    start = inputs.robot[words.program[row], 2]
    return ControlProbeSet(
        program=words.program[row],
        word=words.word[row],
        step=words.rank[row],
        prefixes=prefixes[row],
        classes=classes,
        start_heading=start.astype(np.int16),
        counts=np.array([NUM_ROTATIONS, displacements, displacements]),
        cluster=cluster,
        folds=protocol.folds,
        budget=budget,
        programs=programs,
        inputs=inputs,
        row=row,
        text=number_texts(programs, words.program[row], words.word[row]),
        num_words=len(words.program),
        num_executed=int((executed.num_executed[:, 0] > 0).sum()),
        max_events=max_events,
        first_judged=first_judged,
    )


def number_texts(programs: Programs, program: np.ndarray, word: np.ndarray) -> np.ndarray:
    """int64 [R], a number that words have in common if the programs are equal up to them."""
    starts = programs.offsets[program]
    ends = starts + len(HEADER) + word + 1
    numbers: dict[bytes, int] = {}
    texts = (programs.words[start:end].tobytes() for start, end in zip(starts, ends, strict=True))
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
