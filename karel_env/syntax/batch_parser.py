"""Parse many programs at the same time: texts in the canonical spelling by a table of words, the others by `parser.parse`.

A text whose parts between white space are all words of `language.WORDS` has the same tokens as those words, so a compiled
check of the grammar over word ids decides it. Any other text, and any that fails the check, is parsed alone; therefore
both give the same programs and the same errors.

Letters: `N` texts, `T` words of all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numba import njit

from karel_env.language import (
    CLOSE,
    CLOSE_NEXT,
    DEF,
    ELSE,
    FIRST_CONDITION,
    FIRST_COUNT,
    FIRST_NEGATED,
    HEADER,
    IF,
    IFELSE,
    MAX_NESTING,
    NOT,
    OPEN,
    REPEAT,
    RUN,
    WHILE,
    WORD_ID,
    Programs,
)
from karel_env.syntax.parser import ParseError, parse

_SEPARATOR, _NO_WORD, _END_OF_TEXT = b"\x00", -1, -2
# Bytes are split at the six white-space characters of ASCII, as in the grammar; text would be split at others too.
_ID_OF = {word.encode(): index for word, index in WORD_ID.items()} | {_SEPARATOR: _END_OF_TEXT}
_PLAIN_BLOCK, _FIRST_BRANCH = 0, 1


def parse_batch(texts: Sequence[str]) -> tuple[Programs, np.ndarray]:
    """Parse N texts in the curly syntax.

    Returns:
        The valid programs, and int64 their indices in `texts`. `parser.parse` gives the error of an invalid text.
    """
    words, offsets = _to_words(texts)
    is_valid = np.zeros(len(texts), np.bool_)
    _check_programs(words, offsets, is_valid)
    programs: list[np.ndarray] = []
    indices: list[int] = []
    for i, text in enumerate(texts):
        if is_valid[i]:
            programs.append(words[offsets[i] : offsets[i + 1]])
        else:
            try:
                programs.append(parse(text))
            except ParseError:
                continue
        indices.append(i)
    return Programs.of(programs), np.array(indices, np.int64)


def _to_words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """int16 [T], word ids or `_NO_WORD`, and int64 [N + 1], where each text begins."""
    encoded = [text.encode("ascii", "replace") for text in texts]
    if any(_SEPARATOR in text for text in encoded):
        encoded = [b"?" if _SEPARATOR in text else text for text in encoded]
    parts = b" \x00 ".join([*encoded, b""]).split()
    ids = np.fromiter(map(_ID_OF.get, parts, repeat(_NO_WORD)), np.int16, len(parts))
    ends = np.flatnonzero(ids == _END_OF_TEXT)
    offsets = np.zeros(len(texts) + 1, np.int64)
    offsets[1:] = ends - np.arange(len(ends))
    return ids[ids != _END_OF_TEXT], offsets


@njit(cache=True, nogil=True)
def _check_programs(words, offsets, is_valid):  # type: ignore[no-untyped-def]
    """Set whether the words of each text are one program."""
    kinds = np.zeros(MAX_NESTING + 1, np.int8)
    for i in range(len(is_valid)):
        is_valid[i] = _is_program(words, offsets[i], offsets[i + 1], kinds)


@njit(cache=True, nogil=True)
def _is_program(words, start, end, kinds):  # type: ignore[no-untyped-def]
    """Whether `words[start:end]` is one program; `kinds` has room for the open blocks."""
    if end - start <= len(HEADER) + 1:
        return False
    if words[start] != DEF or words[start + 1] != RUN or words[start + 2] != OPEN:
        return False
    position, depth, is_empty = start + 3, 0, True
    while position < end:
        word = words[position]
        position += 1
        if 0 <= word < FIRST_CONDITION:
            is_empty = False
        elif word == CLOSE and depth == 0:
            return not is_empty and position == end
        elif word in (CLOSE, CLOSE_NEXT):
            if is_empty or depth == 0 or (word == CLOSE) != (kinds[depth] == _FIRST_BRANCH):
                return False
            if word == CLOSE:
                if position + 1 >= end or words[position] != ELSE or words[position + 1] != OPEN:
                    return False
                position += 2
                kinds[depth], is_empty = _PLAIN_BLOCK, True
            else:
                depth -= 1
                is_empty = False
        else:
            if depth == MAX_NESTING:
                return False
            position = _after_head(words, position, end, word)
            if position < 0:
                return False
            depth += 1
            kinds[depth], is_empty = (_FIRST_BRANCH if word == IFELSE else _PLAIN_BLOCK), True
    return False


@njit(cache=True, nogil=True, inline="always")
def _after_head(words, position, end, keyword):  # type: ignore[no-untyped-def]
    """Position of the first statement of the block that a keyword opens; -1 if the words there are another thing."""
    if keyword == REPEAT:
        is_head = position < end and FIRST_COUNT <= words[position] < NOT
    elif keyword in (IF, IFELSE, WHILE):
        first = FIRST_CONDITION
        if position < end and words[position] == NOT:
            position += 1
            first = FIRST_NEGATED
        is_head = position < end and first <= words[position] < first + (FIRST_NEGATED - FIRST_CONDITION)
    else:
        return -1
    if not is_head or position + 1 >= end or words[position + 1] != OPEN:
        return -1
    return position + 2
