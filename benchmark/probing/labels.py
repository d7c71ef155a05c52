"""Labels of a probe set: the robot's state around each action token under each semantics, and the cross-validation folds.

Letters: `B` programs, `R` labelled tokens (all action tokens of all programs, in order), `S` semantics (0 is the
original), `F` features, `O` offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmark.probing.protocol import Protocol
from karel_env.features import FEATURES, PRIMARY, class_counts, labels
from karel_env.language import FIRST_CONDITION, HEADER, Programs
from karel_env.screen import valid_alternatives
from karel_env.semantics import ORIGINAL, Semantics, mirror_classes
from karel_env.world import Worlds

if TYPE_CHECKING:
    from karel_env.execution.compiler import Code

MISSING = -1
"""Class of a state that does not exist: the token is never executed, or the offset is outside the execution."""
DROPPED = -1
"""Fold of a program that is left out, since it shares an action prefix in the same world with another fold."""


class LeakError(AssertionError):
    """Two folds share an action prefix in the same world, so that a probe could have memorised test labels."""


@dataclass(frozen=True)
class Split:
    """The labelled tokens of one probe seed: int64 row indices for training, for validation, and for testing."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class ProbeSet:
    """The labelled tokens of a set of programs.

    Attributes:
        program: int64 [R], program index of each token.
        word: int64 [R], index of the token in its program after the header.
        step: int64 [R], number of action tokens before it in the program.
        classes_by_offset: int16 [O, S, F, R], class of each feature at each of `offsets`, `MISSING` if there is none.
        offsets: O offsets in program states; 0 is the state after the token.
        counts: int64 [F], number of classes of each feature.
        fold: int8 [B], fold of each program, 0 to `folds` - 1, or `DROPPED`.
        folds: number of folds.
        is_seen: bool [R], whether the token's action prefix occurs, in any world, in a program that the probes tested on
            the token may have been trained on.
        semantics: S names.
        budget: largest number of programs that a probe is trained on; None for no limit.
    """

    program: np.ndarray
    word: np.ndarray
    step: np.ndarray
    classes_by_offset: np.ndarray
    offsets: tuple[int, ...]
    counts: np.ndarray
    fold: np.ndarray
    folds: int
    is_seen: np.ndarray
    semantics: tuple[str, ...]
    budget: int | None = None

    @property
    def classes(self) -> np.ndarray:
        """int16 [S, F, R], classes at the first offset."""
        return self.classes_by_offset[0]

    def at_offset(self, offset: int) -> ProbeSet:
        """The same probe set with the labels of one of its offsets only."""
        offset_index = self.offsets.index(offset)
        return replace(
            self, classes_by_offset=self.classes_by_offset[offset_index : offset_index + 1], offsets=(offset,)
        )

    def split(self, seed: int) -> Split:
        """The split of probe seed `seed`: one fold for testing, the next for validation, the others for training.

        If there are as many seeds as folds, every program is tested once, by probes that were not trained on it. With a
        `budget`, training uses that many programs of its folds, starting at a program that depends on the seed, and
        validation the first `budget // 5` programs of its fold.
        """
        test, validation = seed % self.folds, (seed + 1) % self.folds
        is_training = (self.fold != DROPPED) & (self.fold != test) & (self.fold != validation)
        validation_programs = np.flatnonzero(self.fold == validation)
        training_programs = np.flatnonzero(is_training)
        if self.budget is not None:
            training_programs = np.roll(training_programs, -(seed * len(training_programs) // self.folds))[
                : self.budget
            ]
            validation_programs = validation_programs[: max(1, self.budget // 5)]
        parts = (training_programs, validation_programs, np.flatnonzero(self.fold == test))
        return Split(*(self._rows_of(part) for part in parts))

    def _rows_of(self, programs: np.ndarray) -> np.ndarray:
        is_chosen = np.zeros(len(self.fold), bool)
        is_chosen[programs] = True
        return np.flatnonzero(is_chosen[self.program])


def build_probe_set(
    programs: Programs,
    inputs: Worlds,
    semantics: Sequence[Semantics],
    protocol: Protocol,
    offsets: Sequence[int] = (0,),
    budget: int | None = None,
) -> ProbeSet:
    """Label B programs in their first shown worlds by one traced execution per semantics.

    Args:
        programs: B programs.
        inputs: worlds [B].
        semantics: S semantics, the original first.
        protocol: number of folds.
        offsets: O offsets in program states; 0 is the state after the token.
        budget: see `ProbeSet`.

    Raises:
        LeakError: two folds share an action prefix in the same world.
    """
    program, word, step, classes = label_actions(programs, inputs, semantics, offsets)
    prefixes = _prefixes(programs, program, word)
    fold = drop_shared(prefixes, inputs, program, assign_folds(programs, protocol.folds), protocol.folds)
    counts = class_counts(*inputs.cells.shape[-2:])
    return ProbeSet(
        program=program,
        word=word,
        step=step,
        classes_by_offset=classes,
        offsets=tuple(offsets),
        counts=np.array([counts[name] for name in FEATURES]),
        fold=fold,
        folds=protocol.folds,
        is_seen=prefix_in_training(prefixes, fold[program], protocol.folds),
        semantics=tuple(s.name for s in semantics),
        budget=budget,
    )


def label_actions(
    programs: Programs, inputs: Worlds, semantics: Sequence[Semantics], offsets: Sequence[int] = (0,)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fields `program`, `word`, `step` and `classes_by_offset` of `ProbeSet`; arguments of `build_probe_set`."""
    from karel_env.execution.compiler import compile_programs

    code = compile_programs(programs)
    program, word, step = _action_words(programs)
    classes = [_classes(programs, code, inputs, s, program, word, offsets) for s in semantics]
    return program, word, step, np.stack(classes, 1)


def select_alternatives(protocol: Protocol) -> list[Semantics]:
    """The alternatives of a run, evenly spaced among those kept for the primary feature; all 29 if the protocol has more."""
    classes = mirror_classes()
    primary = [s for s in classes if s.name in valid_alternatives(PRIMARY)]
    if protocol.alternatives > len(primary):
        return classes
    return [primary[i] for i in np.linspace(0, len(primary) - 1, protocol.alternatives).round().astype(int)]


def list_semantics(protocol: Protocol, extras: Sequence[Semantics] = ()) -> list[Semantics]:
    """The semantics of a run: the original, then its alternatives, then extra semantics, which enter no gap."""
    return [ORIGINAL, *select_alternatives(protocol), *extras]


def _action_words(programs: Programs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 [R] each: program index, token index after the header, number of action tokens before it."""
    owner = np.repeat(np.arange(len(programs)), programs.lengths)
    position = np.arange(len(programs.words)) - programs.offsets[owner]
    is_action = programs.words < FIRST_CONDITION
    before: np.ndarray = np.cumsum(is_action) - is_action
    step: np.ndarray = before - before[programs.offsets[owner]]
    return owner[is_action], position[is_action] - len(HEADER), step[is_action]


def _classes(
    programs: Programs,
    code: Code,
    inputs: Worlds,
    semantics: Semantics,
    program: np.ndarray,
    word: np.ndarray,
    offsets: Sequence[int],
) -> np.ndarray:
    """int16 [O, F, R], classes of the states around the first execution of each action token."""
    from karel_env.execution.interpreter import run

    result = run(code, inputs, semantics, trace=True)
    trace = result.trace
    assert trace is not None
    action_events = np.flatnonzero(trace.value < 0)
    owner = np.repeat(np.arange(len(programs)), np.diff(trace.offsets))[action_events]
    first_action = np.searchsorted(owner, np.arange(len(programs) + 1))
    word_index, first = np.unique(programs.offsets[owner] + trace.word[action_events], return_index=True)
    action = np.full(len(programs.words), -1)
    action[word_index] = first
    action = action[programs.offsets[program] + len(HEADER) + word]
    width = inputs.cells.shape[-1]
    classes = np.full((len(offsets), len(FEATURES), len(program)), MISSING, np.int16)
    for offset_index, offset in enumerate(offsets):
        target = action + offset
        before = target == first_action[program] - 1
        exists = (action >= 0) & (target >= first_action[program] - 1) & (target < first_action[program + 1])
        event = action_events[target.clip(0, max(0, len(action_events) - 1))]
        position = trace.position[event]
        robot = np.stack([position // width, position % width, trace.heading[event]], 1)
        robot[before] = inputs.robot[program[before]]
        by_feature = labels(inputs.cells, inputs.robot, result.worlds.robot, robot[exists], program[exists])
        classes[offset_index][:, exists] = np.stack([by_feature[name] for name in FEATURES])
    return classes


def assign_folds(programs: Programs, folds: int) -> np.ndarray:
    """int8 [B], fold of each program, assigned round-robin in order of first appearance; equal programs share a fold.

    Programs are drawn independently, so this is equivalent to a random assignment and needs no seed.
    """
    return (number_distinct(programs) % folds).astype(np.int8)


def number_distinct(programs: Programs) -> np.ndarray:
    """int64 [B], index of each program among the distinct ones, in order of first appearance."""
    index_by_program: dict[bytes, int] = {}
    number = [
        index_by_program.setdefault(programs.program(i).tobytes(), len(index_by_program)) for i in range(len(programs))
    ]
    return np.array(number, np.int64)


def prefix_in_training(prefixes: list[bytes], fold: np.ndarray, folds: int) -> np.ndarray:
    """bool [R], see `ProbeSet.is_seen`; `fold` is the fold of each token's program."""
    folds_by_prefix: dict[bytes, set[int]] = {}
    for prefix, number in zip(prefixes, fold.tolist(), strict=True):
        folds_by_prefix.setdefault(prefix, set()).add(number)
    excluded_folds = [{DROPPED, number, (number + 1) % folds} for number in range(folds)]
    return np.array(
        [bool(folds_by_prefix[p] - excluded_folds[n]) for p, n in zip(prefixes, fold.tolist(), strict=True)], bool
    )


def _prefixes(programs: Programs, program: np.ndarray, word: np.ndarray) -> list[bytes]:
    """The tokens of the program up to and including each labelled token, as bytes."""
    flat, starts = programs.words, programs.offsets
    ends = starts[program] + len(HEADER) + word + 1
    return [flat[a:b].tobytes() for a, b in zip(starts[program], ends, strict=True)]


def drop_shared(prefixes: list[bytes], inputs: Worlds, program: np.ndarray, fold: np.ndarray, folds: int) -> np.ndarray:
    """int8 [B], folds in which programs are dropped until no action prefix in the same world occurs in two folds.

    A program that shares a prefix with an earlier fold is dropped.
    """
    worlds = [inputs.cells[b].tobytes() + inputs.robot[b].tobytes() for b in range(len(fold))]
    fold = fold.copy()
    fold_by_key: dict[tuple[bytes, bytes], int] = {}
    for current in range(folds):
        rows = np.flatnonzero(fold[program] == current)
        keys = [(prefixes[r], worlds[program[r]]) for r in rows]
        shared = {program[r] for r, key in zip(rows, keys, strict=True) if fold_by_key.get(key, current) != current}
        fold[list(shared)] = DROPPED
        fold_by_key |= {key: current for r, key in zip(rows, keys, strict=True) if program[r] not in shared}
    check_leaks(prefixes, worlds, program, fold)
    return fold


def check_leaks(prefixes: list[bytes], worlds: list[bytes], program: np.ndarray, fold: np.ndarray) -> None:
    """Raise `LeakError` if two folds share an action prefix in the same world."""
    fold_by_key: dict[tuple[bytes, bytes], int] = {}
    for prefix, b in zip(prefixes, program, strict=True):
        if fold[b] != DROPPED and fold_by_key.setdefault((prefix, worlds[b]), fold[b]) != fold[b]:
            raise LeakError(f"probe set: program {b} shares an action prefix in the same world with another fold")
