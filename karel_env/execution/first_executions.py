"""States after the first execution of an action word, with other action words at the places before it.

A program is a skeleton (conditions, loops, brackets) with an action word at each place. The places up to a word can be
filled with any action words, such as samples of what a probe reads of them, and the program executed until that word is
executed first. A reader of the words up to it can know the state only if nothing after it is executed before, as in the
second pass of a loop; such an execution counts as missing.

Letters: `B` programs, `R` action words, `S` samples, `T` places, `K` semantics, `J` sums, `D` displacements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from karel_env.execution.compiler import JUMP, NEGATED, SET, TEST, TICK, compile_programs
from karel_env.execution.lanes import NOOP, act_once, is_condition_true
from karel_env.language import FIRST_CONDITION, HEADER, Programs
from karel_env.limits import EVENT_LIMIT, MAX_EVENTS
from karel_env.semantics import ORIGINAL, Semantics
from karel_env.world import Worlds

NUM_HEADINGS = 4
_STEPS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])


@dataclass(frozen=True)
class ActionWords:
    """The action words of B programs, in order.

    Attributes:
        program: int64 [R], program of each word.
        word: int64 [R], index in its program after the header.
        rank: int64 [R], number of action words before it in its program.
        action: int8 [R], index in `ACTIONS`.
    """

    program: np.ndarray
    word: np.ndarray
    rank: np.ndarray
    action: np.ndarray

    @classmethod
    def of(cls, programs: Programs) -> ActionWords:
        """All action words."""
        is_action = programs.words < FIRST_CONDITION
        owner = np.repeat(np.arange(len(programs)), programs.lengths)
        position = np.arange(len(programs.words)) - programs.offsets[owner] - len(HEADER)
        before: np.ndarray = np.cumsum(is_action) - is_action
        rank: np.ndarray = before - before[programs.offsets[owner]]
        return cls(owner[is_action], position[is_action], rank[is_action], programs.words[is_action].astype(np.int8))


@dataclass(frozen=True)
class FirstExecutions:
    """How many samples end in each class.

    Attributes:
        rotation: int32 [R, K + J, 4], heading minus start heading under each semantics, then each sum modulo 4.
        forward, sideways: int32 [R, K, D], displacement in the frame of the start; class (D - 1) / 2 is none.
    """

    rotation: np.ndarray
    forward: np.ndarray
    sideways: np.ndarray

    @property
    def num_executed(self) -> np.ndarray:
        """int32 [R, K + J], samples in which the word is executed before any word after it."""
        return np.asarray(self.rotation.sum(-1))


def run_to_words(
    programs: Programs,
    inputs: Worlds,
    words: ActionWords,
    samples: np.ndarray,
    semantics: Sequence[Semantics] = (ORIGINAL,),
    sums: Sequence[Sequence[int]] = (),
    max_events: int = MAX_EVENTS,
) -> FirstExecutions:
    """Execute samples of the action words up to each of `words`.

    Args:
        programs: B programs, whose skeletons are executed.
        inputs: worlds [B].
        words: R action words of the programs, all or some.
        samples: int8 [R, S, T], action word at each place; only those up to the word's own are executed.
        semantics: K semantics.
        sums: per sum, a number per action word; summed over what is executed under the first semantics.
        max_events: budget of events of an execution.
    """
    code = compile_programs(programs)
    ranks = np.full(len(programs.words), -1)
    every_word = ActionWords.of(programs)
    ranks[programs.offsets[every_word.program] + len(HEADER) + every_word.word] = every_word.rank
    height, width = inputs.cells.shape[-2:]
    largest = max(height, width) - 3
    num_rows, num_semantics = len(words.program), len(semantics)
    rotation = np.zeros((num_rows, num_semantics + len(sums), NUM_HEADINGS), np.int32)
    displacement = np.zeros((2, num_rows, num_semantics, 2 * largest + 1), np.int32)
    effects = np.stack([s.action_table() for s in semantics]).astype(np.int64)
    tests = np.stack([s.condition_table() for s in semantics]).astype(np.int64)
    _run_samples(
        (code.operation, code.argument, code.jump, code.word, code.offsets), ranks, programs.offsets,
        np.ascontiguousarray(inputs.cells).reshape(len(programs), -1), np.asarray(inputs.robot, np.int64), width,
        words.program, words.word + len(HEADER), words.rank, np.ascontiguousarray(samples, np.int8), effects, tests,
        np.array(sums, np.int64).reshape(len(sums), FIRST_CONDITION), max_events, _STEPS, rotation, displacement,
    )  # fmt: skip
    return FirstExecutions(rotation, *displacement)


@njit(cache=True, nogil=True)
def _run_samples(  # type: ignore[no-untyped-def]
    code, ranks, offsets, cells, robot, width, program, target, target_rank, samples, effects, tests, sums, budget,
    directions, rotation, displacement,
):  # fmt: skip
    """Fill `rotation` and `displacement`."""
    steps = directions[:, 0] * width + directions[:, 1]
    scratch = np.empty(cells.shape[1], np.int16)
    counter = np.zeros(256, np.int64)
    totals = np.zeros(len(sums), np.int64)
    largest = (displacement.shape[3] - 1) // 2
    for r in range(len(program)):
        b = program[r]
        start = robot[b, 0] * width + robot[b, 1]
        for k in range(len(effects)):
            for s in range(samples.shape[1]):
                # Not as slices: the message of a shape that does not fit takes 2 s to compile.
                for i in range(len(scratch)):
                    scratch[i] = cells[b, i]
                for j in range(len(totals)):
                    totals[j] = 0
                cell, heading = _run_to_word(
                    code, code[4][b], offsets[b], ranks, steps, scratch, counter, start, robot[b, 2], target[r],
                    target_rank[r], samples[r, s], effects[k], tests[k], sums, totals, budget,
                )  # fmt: skip
                if heading < 0:
                    continue
                rotation[r, k, (heading - robot[b, 2]) & 3] += 1
                if k == 0:
                    for j in range(len(sums)):
                        rotation[r, len(effects) + j, totals[j] & 3] += 1
                down, right = cell // width - robot[b, 0], cell % width - robot[b, 1]
                for axis in range(2):
                    direction = directions[(robot[b, 2] + axis) & 3]
                    displacement[axis, r, k, down * direction[0] + right * direction[1] + largest] += 1


@njit(cache=True, nogil=True)
def _run_to_word(  # type: ignore[no-untyped-def]
    code, first, offset, ranks, steps, cells, counter, cell, heading, target, target_rank, sample, effects, tests, sums,
    totals, budget,
):  # fmt: skip
    """Cell and heading after the first execution of the target word; heading -1 if a later word is executed before."""
    operation, argument, jump, source, _ = code
    pc, events = first, 0
    while events < budget:
        op = operation[pc]
        if op > TEST:
            if op == JUMP:
                pc = first + jump[pc]
            elif op == SET:
                counter[jump[pc]] = argument[pc]
                pc += 1
            elif op != TICK:
                return cell, -1
            elif counter[argument[pc]] == 0:
                pc = first + jump[pc]
            else:
                counter[argument[pc]] -= 1
                events += 1
                pc += 1
            continue
        events += 1
        if source[pc] > target:
            return cell, -1
        if op == TEST:
            is_true = is_condition_true(tests[argument[pc] & 7], argument[pc] >= NEGATED, cells, steps, cell, heading)
            pc = pc + 1 if is_true else first + jump[pc]
            continue
        rank = ranks[offset + source[pc]]
        word = sample[rank]
        for j in range(len(totals)):
            totals[j] += sums[j, word]
        cell, heading, _ = act_once(effects[word], NOOP, EVENT_LIMIT + 1, cells, steps, cell, heading)
        if rank == target_rank:
            return cell, heading
        pc += 1
    return cell, -1
