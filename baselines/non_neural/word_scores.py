"""Probabilities of the next word under the baselines that have them, after a prefix of a straight-line program.

Both ignore the prompt. The search and the nearest neighbour have no probabilities.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from math import log

import numpy as np

from baselines.non_neural.ngram import NUM_PROGRAMS, ORDER, SEED
from benchmark.tasks.suite import Suite, training_tasks
from karel_env.language import ACTIONS, CLOSE, HEADER, WORDS

NUM_WORDS = len(ACTIONS) + 1
"""The five actions and the closing bracket."""
SMOOTHING = 0.5
"""Added to every count of the n-gram model, so that no word has probability 0."""
SMALLEST = 1e-9
"""In place of probability 0."""
_NUMBERS = {word: number for number, word in enumerate(WORDS[: len(ACTIONS)])}


class NgramWords:
    """Relative frequencies of the next word after the last `ORDER` - 1 words in the n-gram model's training programs."""

    batch_rows = 1024

    def __init__(self, suite: Suite) -> None:
        programs = training_tasks(suite, np.arange(NUM_PROGRAMS), SEED).programs
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for i in range(len(programs)):
            body = programs.program(i)[len(HEADER) :].tolist()
            for at, word in enumerate(body):
                self.counts[tuple(body[max(0, at - ORDER + 1) : at])][word] += 1

    def score_words(self, prompts: Sequence[str], prefixes: Sequence[str]) -> np.ndarray:
        """See `benchmark.causal.interventions.WordScorer.score_words`."""
        return np.array([self._score(prefix.split()) for prefix in prefixes])

    def _score(self, words: list[str]) -> list[float]:
        counts = self.counts.get(tuple(_NUMBERS[word] for word in words[-(ORDER - 1) :]), Counter())
        smoothed = [counts[word] + SMOOTHING for word in (*range(len(ACTIONS)), CLOSE)]
        return [log(count / sum(smoothed)) for count in smoothed]


class PriorWords:
    """The distribution that programs are drawn from: lengths with equal probability, actions with the suite's weights."""

    batch_rows = 1024

    def __init__(self, suite: Suite) -> None:
        self.lengths = range(suite.train_length[0], suite.train_length[1] + 1)
        self.shares = np.array(suite.recipe.weights) / sum(suite.recipe.weights)

    def score_words(self, prompts: Sequence[str], prefixes: Sequence[str]) -> np.ndarray:
        """See `benchmark.causal.interventions.WordScorer.score_words`."""
        return np.array([self._score(len(prefix.split())) for prefix in prefixes])

    def _score(self, length: int) -> np.ndarray:
        longer = sum(other > length for other in self.lengths)
        probability = np.array([*(longer * self.shares), float(length in self.lengths)])
        scores: np.ndarray = np.log((probability / probability.sum()).clip(min=SMALLEST))
        return scores


WORD_SCORERS: dict[str, Callable[[Suite], NgramWords | PriorWords]] = {"n-gram": NgramWords, "random": PriorWords}
"""By the name after `baseline:`."""
