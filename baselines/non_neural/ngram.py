"""The most probable program by token statistics: an n-gram model of training programs that ignores the prompt."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import log

import numpy as np

from benchmark.models.interface import Generation
from benchmark.tasks.suite import Suite, training_tasks
from karel_env.language import CLOSE, CLOSE_NEXT, HEADER, HEADER_TEXT, OPEN, text_of
from karel_env.syntax.parser import ParseError, parse

SEED, NUM_PROGRAMS, ORDER = 90_002, 50_000, 4
"""Seed and number of training programs, and the order n of the model."""


class Ngram:
    """Answer every prompt with the most probable program of an n-gram model."""

    def __init__(self, suite: Suite) -> None:
        programs = training_tasks(suite, np.arange(NUM_PROGRAMS), SEED).programs
        bodies = (programs.program(i)[len(HEADER) :].tolist() for i in range(len(programs)))
        self.words = find_most_probable(bodies, ORDER)

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """See `ProgramGenerator.generate`."""
        return [Generation(" " + text_of(self.words), len(self.words), True) for _ in prompts]


def find_most_probable(bodies: Iterable[Sequence[int]], order: int) -> list[int]:
    """Find the most probable program body under the n-gram model of these bodies.

    A body is a path through contexts of `order` - 1 items, and a step costs minus the logarithm of its relative
    frequency; the cheapest path from the empty context to an end is found with the algorithm of Dijkstra (1959). A node
    is a context and the number of open brackets; ends that are not programs are skipped.

    Raises:
        ValueError: no path is a program.
    """
    counts: dict[tuple[int, ...], Counter[tuple[int, bool]]] = defaultdict(Counter)
    for body in bodies:
        for i, word in enumerate(body):
            counts[tuple(body[max(0, i - order + 1) : i])][word, i == len(body) - 1] += 1
    queue: list[tuple[float, list[int], bool]] = [(0.0, [], False)]
    visited: set[tuple[tuple[int, ...], int]] = set()
    while queue:
        cost, words, ended = heapq.heappop(queue)
        if ended and _is_program(words):
            return words
        context = tuple(words[max(0, len(words) - order + 1) :])
        node = context, words.count(OPEN) - words.count(CLOSE) - words.count(CLOSE_NEXT)
        if ended or node in visited:
            continue
        visited.add(node)
        total = sum(counts[context].values())
        for (word, last), count in counts[context].items():
            heapq.heappush(queue, (cost - log(count / total), [*words, word], last))
    raise ValueError("n-gram: none of its texts is a program")


def _is_program(body: list[int]) -> bool:
    try:
        parse(f"{HEADER_TEXT} {text_of(body)}")
    except ParseError:
        return False
    return True
