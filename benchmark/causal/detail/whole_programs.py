"""Whole programs written with an edit at every word, and whether they lead from the turned state to the outputs.

The state is computed anew at every word, so an edit of one word is forgotten by the next: the same turn is added at each.

Letters: `T` pairs, `X` conditions, `A` words after the prefix.
"""

from __future__ import annotations

import numpy as np

from benchmark.causal.edits import MeanShift
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.pairs import PairSet
from benchmark.causal.session import CausalSession, best_words
from benchmark.causal.targets import END, TURNS, equal_worlds, execute_prefixes, turn_robots
from benchmark.tasks.suite import Suite
from karel_env.language import Programs
from karel_env.semantics import ORIGINAL


def write_programs(
    session: CausalSession, rows: np.ndarray, shift: MeanShift, site: int, turns: np.ndarray, num_words: int
) -> np.ndarray:
    """Words written after prefixes under a shift at every word.

    Args:
        session: the model with the pairs.
        rows: int64 [T], pairs.
        shift: the edit.
        site: index of the site.
        turns: int [X, T], quarter turns of each condition.
        num_words: A.

    Returns:
        int8 [X, T, A], `NOT_RUN` after the closing bracket.
    """
    num_conditions, num_rows = turns.shape
    # Conditions of a pair are neighbours, so that its prompt is read once.
    pair, turn = np.repeat(rows, num_conditions), turns.T.ravel()
    words = np.full((num_rows * num_conditions, num_words), NOT_RUN, np.int8)
    is_open = np.ones(len(words), bool)
    for column in range(num_words):
        lines = np.flatnonzero(is_open)
        for start in range(0, len(lines), session.batch_rows):
            chunk = lines[start : start + session.batch_rows]
            prefix = np.concatenate([session.pairs.prefix[pair[chunk]], words[chunk, :column]], 1)
            prepared = session.prepare(session.pairs.task[pair[chunk]], prefix)
            source = session.rotations(prefix, ORIGINAL)
            edited = shift(prepared.states()[site], source, (source + turn[chunk]) % TURNS)
            words[chunk, column] = best_words(prepared.score(site, edited).log_probs)
        is_open &= words[:, column] != END
        if not is_open.any():
            break
    return words.reshape(num_rows, num_conditions, num_words).swapaxes(0, 1)


def reaches_outputs(suite: Suite, pairs: PairSet, rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    """bool [T], whether the actions after the prefix lead from the turned state to all outputs, and the program ends.

    Args:
        suite: suite of the pairs.
        pairs: the pairs.
        rows: int64 [T].
        words: int [T, A], words after the prefix.
    """
    inputs, outputs = (worlds[pairs.task[rows], : suite.shown] for worlds in (pairs.tasks.inputs, pairs.tasks.outputs))
    turned = turn_robots(execute_prefixes(pairs.prefix[rows], inputs), pairs.turn[rows])
    is_end = words == END
    lengths = np.where(is_end.any(1), is_end.argmax(1), 0)
    is_right = is_end[:, 0] & equal_worlds(turned, outputs, suite.equality).all(1)
    some = np.flatnonzero(lengths)
    if len(some):
        from karel_env.execution.interpreter import run

        actions = np.where(np.arange(words.shape[1]) < lengths[some, None], words[some], 0).astype(np.int8)
        reached = run(Programs.straight_line(actions, lengths[some]), turned[some]).worlds
        is_right[some] = equal_worlds(reached, outputs[some], suite.equality).all(1)
    return np.asarray(is_right)
