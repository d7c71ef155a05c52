"""Compile programs to flat code, which the interpreter executes.

Each instruction is an operation, an argument, a jump target (relative to the program's first instruction) and
the index of the word that it was compiled from:

    0..4        the action word of that index
    TEST        argument: condition word, plus 8 if negated; jumps when the test fails
    SET         counter `jump` := argument (start of a `repeat`)
    TICK        counter `argument`: at 0 jump out of the loop, else decrement it and continue
    JUMP        to `jump`
    END
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from karel_env.language import (
    CLOSE,
    CLOSE_NEXT,
    ELSE,
    FIRST_CONDITION,
    FIRST_COUNT,
    FIRST_NEGATED,
    HEADER,
    IFELSE,
    MAX_NESTING,
    NOT,
    REPEAT,
    WHILE,
    Programs,
)

TEST, SET, TICK, JUMP, END = range(5, 10)
NEGATED = 8
_IN_IF, _IN_THEN, _IN_ELSE, _IN_WHILE, _IN_REPEAT = range(5)


@dataclass(frozen=True)
class Code:
    """Compiled programs, one flat array per field.

    Attributes:
        operation: int8 [I], see the table in the module docstring.
        argument: int8 [I].
        jump: int16 [I], relative to the first instruction of the program.
        word: int16 [I], index of the word in its program.
        offsets: int64 [N + 1], program i is instructions `offsets[i]` to `offsets[i + 1]`, `END` included.
    """

    operation: np.ndarray
    argument: np.ndarray
    jump: np.ndarray
    word: np.ndarray
    offsets: np.ndarray


def compile_programs(programs: Programs) -> Code:
    """Compile a batch; each program must be valid, as those of `parser.parse` and the generators are."""
    total = len(programs.words)
    fields = np.empty((4, total), np.int16)
    offsets = np.zeros(len(programs) + 1, np.int64)
    used = _compile(programs.words, programs.offsets, fields, offsets)
    operation, argument, jump, word = fields[:, :used]
    return Code(operation.astype(np.int8), argument.astype(np.int8), jump.copy(), word.copy(), offsets)


@njit(cache=True, nogil=True)
def _compile(words, starts, fields, offsets):  # type: ignore[no-untyped-def]
    """Fill `fields` (operation, argument, jump, word) and `offsets`; returns the number of instructions."""
    kind = np.empty(MAX_NESTING + 1, np.int64)
    opened = np.empty(MAX_NESTING + 1, np.int64)
    n = 0
    for program in range(len(starts) - 1):
        base, depth, block, negated, head = n, 0, 0, 0, 0
        first, stop = starts[program], starts[program + 1]
        for i in range(first + len(HEADER), stop):
            word = words[i]
            operation, argument, jump = -1, 0, 0
            if word < FIRST_CONDITION:
                operation = word
            elif word < FIRST_COUNT:
                operation = TEST
                argument = word - FIRST_CONDITION if word < FIRST_NEGATED else word - FIRST_NEGATED
                argument += NEGATED * negated
                negated = 0
                depth += 1
                kind[depth], opened[depth] = block, n - base
            elif word < NOT:
                fields[0, n], fields[1, n], fields[2, n], fields[3, n] = SET, word - FIRST_COUNT, depth, i - first
                n += 1
                operation, argument = TICK, depth
                depth += 1
                kind[depth], opened[depth] = _IN_REPEAT, n - base
            elif word == NOT:
                negated = 1
            elif word == IFELSE:
                block = _IN_THEN
            elif word == WHILE:
                block = _IN_WHILE
            elif word == ELSE:
                depth += 1
                kind[depth], opened[depth] = _IN_ELSE, head
            elif word != REPEAT and word != CLOSE and word != CLOSE_NEXT:
                block = _IN_IF if word < ELSE else block
            elif word != REPEAT and depth == 0:
                operation = END
            elif word != REPEAT:
                head = opened[depth]
                if kind[depth] == _IN_WHILE or kind[depth] == _IN_REPEAT:
                    operation, jump = JUMP, head
                    fields[2, base + head] = n - base + 1
                elif kind[depth] == _IN_THEN:
                    operation = JUMP
                    fields[2, base + head] = n - base + 1
                    head = n - base
                else:
                    fields[2, base + head] = n - base
                depth -= 1
            if operation >= 0:
                fields[0, n], fields[1, n], fields[2, n], fields[3, n] = operation, argument, jump, i - first
                n += 1
        offsets[program + 1] = n
    return n
