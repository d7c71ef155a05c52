"""Labels of a probe set: the robot's state after each action word, under each semantics, and the split.

Letters: `B` programs, `R` labelled words (all action words of all programs, in order), `S` semantics (0 is the
original), `F` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.protocol import Protocol
from karel_env.compiler import Code, compile_programs
from karel_env.features import FEATURES, class_counts, labels
from karel_env.interpreter import run
from karel_env.language import FIRST_CONDITION, HEADER, Programs
from karel_env.semantics import ORIGINAL, Semantics, mirror_classes
from karel_env.world import Worlds

MISSING = -1
"""Class of a state that does not exist: a word that is never executed."""
TRAIN, VALIDATION, TEST, DROPPED = range(4)
"""Splits; a dropped program shares an action prefix in the same world with a program of another split."""


class LeakError(AssertionError):
    """Two splits share an action prefix in the same world, so a probe could have memorised its test."""


@dataclass(frozen=True)
class ProbeSet:
    """The labelled words of a set of programs.

    Attributes:
        program: int64 [R], program of each word.
        word: int64 [R], index of the word in its program after the header.
        step: int64 [R], how many action words precede it in the program.
        classes: int64 [S, F, R], class of each feature, `MISSING` where the word is never executed.
        counts: int64 [F], number of classes of each feature.
        split: int8 [B], `TRAIN`, `VALIDATION`, `TEST` or `DROPPED`.
        seen: bool [R], whether the word's action prefix occurs in a training program, in whatever world.
        semantics: S names.
    """

    program: np.ndarray
    word: np.ndarray
    step: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    split: np.ndarray
    seen: np.ndarray
    semantics: tuple[str, ...]

    def rows(self, split: int) -> np.ndarray:
        """int64, the labelled words of one split."""
        return np.flatnonzero(self.split[self.program] == split)


def build_probe_set(programs: Programs, inputs: Worlds, semantics: Sequence[Semantics], protocol: Protocol) -> ProbeSet:
    """Label B programs in their first shown worlds, `inputs` [B].

    Raises:
        LeakError: see there.
    """
    code = compile_programs(programs)
    program, word, step = _action_words(programs)
    classes = np.stack([_classes(programs, code, inputs, s, program, word) for s in semantics])
    prefixes = _prefixes(programs, program, word)
    split = _drop_shared(prefixes, inputs, program, split_by_program(programs, protocol))
    known = {p for p, b in zip(prefixes, program, strict=True) if split[b] == TRAIN}
    counts = class_counts(*inputs.cells.shape[-2:])
    return ProbeSet(
        program=program,
        word=word,
        step=step,
        classes=classes,
        counts=np.array([counts[name] for name in FEATURES]),
        split=split,
        seen=np.array([p in known for p in prefixes], bool),
        semantics=tuple(s.name for s in semantics),
    )


def alternatives(kept: Sequence[str], count: int) -> list[Semantics]:
    """`count` of the mirror classes named in `kept`, taken evenly in the order of their names."""
    classes = [s for s in mirror_classes() if s.name in set(kept)]
    if count >= len(classes):
        return classes
    return [classes[i] for i in np.linspace(0, len(classes) - 1, count).round().astype(int)]


def _action_words(programs: Programs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 [R] each: program, word index after the header, number of action words before it."""
    owner = np.repeat(np.arange(len(programs)), programs.lengths)
    place = np.arange(len(programs.words)) - programs.offsets[owner]
    acting = programs.words < FIRST_CONDITION
    before: np.ndarray = np.cumsum(acting) - acting
    step: np.ndarray = before - before[programs.offsets[owner]]
    return owner[acting], place[acting] - len(HEADER), step[acting]


def _classes(
    programs: Programs, code: Code, inputs: Worlds, semantics: Semantics, program: np.ndarray, word: np.ndarray
) -> np.ndarray:
    """int64 [F, R]: the state after the first execution of each action word."""
    done = run(code, inputs, semantics, trace=True)
    trace = done.trace
    assert trace is not None
    owner = np.repeat(np.arange(len(programs)), np.diff(trace.offsets))
    acted = np.flatnonzero(trace.value < 0)
    where = programs.offsets[owner[acted]] + trace.word[acted]
    places, first = np.unique(where, return_index=True)
    event = np.full(len(programs.words), -1)
    event[places] = acted[first]
    event = event[programs.offsets[program] + len(HEADER) + word]
    there = event >= 0
    width = inputs.cells.shape[-1]
    position = trace.position[event[there]]
    robot = np.stack([position // width, position % width, trace.heading[event[there]]], 1)
    found = labels(inputs.cells, inputs.robot, done.worlds.robot, robot, program[there])
    classes = np.full((len(FEATURES), len(program)), MISSING)
    classes[:, there] = np.stack([found[name] for name in FEATURES])
    return classes


def split_by_program(programs: Programs, protocol: Protocol) -> np.ndarray:
    """int8 [B]: the same program is always in the same split; by order of first appearance, not by chance.

    Programs are drawn independently, so the order is as good as a shuffle and needs no seed.
    """
    first: dict[bytes, int] = {}
    number = np.array([first.setdefault(programs.program(i).tobytes(), len(first)) for i in range(len(programs))])
    edges = np.array([protocol.train, protocol.train + protocol.validation]) * len(first)
    return np.searchsorted(edges, number, side="right").astype(np.int8)


def _prefixes(programs: Programs, program: np.ndarray, word: np.ndarray) -> list[bytes]:
    """The words of the program up to and with each labelled word."""
    flat, starts = programs.words, programs.offsets
    ends = starts[program] + len(HEADER) + word + 1
    return [flat[a:b].tobytes() for a, b in zip(starts[program], ends, strict=True)]


def _drop_shared(prefixes: list[bytes], inputs: Worlds, program: np.ndarray, split: np.ndarray) -> np.ndarray:
    """The split with programs dropped until no action prefix in the same world occurs in two splits.

    The later split loses the program: training keeps all of its own.
    """
    worlds = [inputs.cells[b].tobytes() + inputs.robot[b].tobytes() for b in range(len(split))]
    split = split.copy()
    home: dict[tuple[bytes, bytes], int] = {}
    for current in (TRAIN, VALIDATION, TEST):
        rows = np.flatnonzero(split[program] == current)
        keys = [(prefixes[r], worlds[program[r]]) for r in rows]
        shared = {program[r] for r, key in zip(rows, keys, strict=True) if home.get(key, current) != current}
        split[list(shared)] = DROPPED
        home |= {key: current for r, key in zip(rows, keys, strict=True) if program[r] not in shared}
    check_leaks(prefixes, worlds, program, split)
    return split


def check_leaks(prefixes: list[bytes], worlds: list[bytes], program: np.ndarray, split: np.ndarray) -> None:
    """Raise `LeakError` if two splits share an action prefix in the same world."""
    home: dict[tuple[bytes, bytes], int] = {}
    for prefix, b in zip(prefixes, program, strict=True):
        if split[b] != DROPPED and home.setdefault((prefix, worlds[b]), split[b]) != split[b]:
            raise LeakError(f"probe set: program {b} shares an action prefix in the same world with another split")


def with_original(kept: Sequence[str], protocol: Protocol) -> list[Semantics]:
    """The semantics of a run: the original first, then its alternatives."""
    return [ORIGINAL, *alternatives(kept, protocol.alternatives)]
