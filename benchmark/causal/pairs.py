"""Pairs of a prefix and a turn for which the edited state asks for another word than the base. No model is involved.

Everything is derived from the suite, so anyone derives the same pairs again. Tasks are drawn from a random stream of
their own with the training lengths of programs and are disjoint from the suite's test tasks.

Letters: `N` tasks, `P` pairs, `K` actions of a prefix, `E` shown examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from benchmark.causal.targets import END, TURNS, SuffixTable, check_straight_line, execute_prefixes, turn_robots
from benchmark.tasks.suite import Suite, test_tasks
from karel_env.generation.recipe import ControlRecipe, Tasks
from karel_env.language import WORDS
from karel_env.limits import GAMMA
from karel_env.world import Worlds

PAIRS_VERSION = 1
CAUSAL_STREAM = 0x63617573616C
"""Distance between the seed of a suite and the seed of its causal tasks."""
MIN_EDITED, MAX_BASE = 0.5, 0.1
"""Smallest probability of the target from the edited state, largest from the base."""
CHOOSE, REPORT = 0, 1
_TASK_CHUNK = 50


@dataclass(frozen=True)
class PairSettings:
    """How many pairs are derived.

    Attributes:
        tasks: N, tasks drawn.
        choose_of_five: tasks of every five that make means and choose the block; the others report.
        per_task: largest number of pairs per task.
        not_strict_per_task, not_strict_per_choose_task: largest number of them that are not strict, of report tasks and
            of choose tasks.
        prefixes_per_task: largest number of completable prefixes per task that are considered.
        mean_prefixes: largest number of prefixes per choose task that class means are computed from.
    """

    tasks: int = 600
    choose_of_five: int = 2
    per_task: int = 12
    not_strict_per_task: int = 3
    not_strict_per_choose_task: int = 1
    prefixes_per_task: int = 24
    mean_prefixes: int = 6


STANDARD_PAIRS = PairSettings()


@dataclass(frozen=True)
class PairSet:
    """Pairs of a suite.

    Attributes:
        tasks: N tasks.
        split: int8 [N], `CHOOSE` or `REPORT`.
        task: int64 [P], the task of each pair.
        prefix: int8 [P, K], its actions.
        turn: int8 [P], quarter turns to the right that the edit makes, 1 to 3.
        target: int8 [P], the most probable next word from the edited state, index in `targets.NEXT_WORDS`.
        base_word: int8 [P], the most probable next word from the base.
        posterior: float64 [P, 4, 6], exact distribution of the next word after each turn; zeros if not completable.
        is_strict: bool [P], whether the target differs from `look_up`, balanced so that no finer look-up from turn, base
            word and last word of the prefix succeeds in more than about half of these pairs.
        look_up: int8 [4, 6], the most frequent target of choose pairs by turn and base word, -1 if there is none.
        mean_task, mean_prefix: int64 [R] and int8 [R, K], prefixes of choose tasks for class means.
        dropped: number of candidates by the reason for which they are no pairs.
    """

    tasks: Tasks
    split: np.ndarray
    task: np.ndarray
    prefix: np.ndarray
    turn: np.ndarray
    target: np.ndarray
    base_word: np.ndarray
    posterior: np.ndarray
    is_strict: np.ndarray
    look_up: np.ndarray
    mean_task: np.ndarray
    mean_prefix: np.ndarray
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.task)

    @property
    def is_report(self) -> np.ndarray:
        """bool [P], whether the pair's task reports."""
        return np.asarray(self.split[self.task] == REPORT)

    @property
    def base_row(self) -> np.ndarray:
        """int64 [P], the first pair with the same task and prefix."""
        key = self.task * END ** self.prefix.shape[1] + prefix_number(self.prefix)
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return first[inverse]

    @property
    def differs_from_look_up(self) -> np.ndarray:
        """bool [P], whether the target differs from `look_up`, balanced or not."""
        return np.asarray(self.look_up[self.turn, self.base_word] != self.target)

    def other_turns(self) -> np.ndarray:
        """int8 [P], the next turn after which the target is not the most probable word; 0 if there is none."""
        other = np.zeros(len(self), np.int8)
        for step in range(1, TURNS - 1):
            turn = (self.turn - 1 + step) % (TURNS - 1) + 1
            posterior = self.posterior[np.arange(len(self)), turn]
            is_free = (other == 0) & (posterior.argmax(1) != self.target) & (posterior.sum(1) > 0)
            other[is_free] = turn[is_free]
        return other


def prefix_length(suite: Suite) -> int:
    """K, actions of a prefix: three, or as many as the shortest program has.

    The closing bracket must be possible after the prefix: where it is not, the turn and the base word tell the target, and
    there are no strict pairs.
    """
    return max(3, suite.train_length[0])


def unsupported_reason(suite: Suite) -> str | None:
    """Why no pairs can be derived from a suite; None if they can."""
    if isinstance(suite.recipe, ControlRecipe):
        return f"suite {suite.name}: its programs have control flow"
    longest = suite.train_length[1]
    if longest <= prefix_length(suite):
        return f"suite {suite.name}: its longest program has {longest} actions, no more than a prefix"
    return None


def prefix_texts(prefixes: np.ndarray) -> list[str]:
    """The canonical text of each prefix, int [P, K], without header."""
    return [" ".join(WORDS[word] for word in row) for row in prefixes]


def prefix_number(prefixes: np.ndarray) -> np.ndarray:
    """int64 [P], the actions of each prefix as the digits of a number."""
    return prefixes.astype(np.int64) @ (END ** np.arange(prefixes.shape[1])[::-1])


def causal_tasks(suite: Suite, indices: np.ndarray) -> Tasks:
    """Tasks of the causal measurement: training lengths, a stream of their own, disjoint from the test tasks."""
    check_straight_line(suite)
    recipe = replace(suite.recipe, length=suite.train_length)
    from karel_env.generation import generator

    return generator.generate(recipe, suite.seed + CAUSAL_STREAM, "audit", indices, excluded=test_tasks(suite).key)


@lru_cache(maxsize=4)
def derive_pairs(suite: Suite, settings: PairSettings = STANDARD_PAIRS) -> PairSet:
    """Derive the pairs of a suite.

    Raises:
        UsageError: the suite has control flow.
    """
    tasks = causal_tasks(suite, np.arange(settings.tasks))
    split = np.where(np.arange(settings.tasks) % 5 < settings.choose_of_five, CHOOSE, REPORT).astype(np.int8)
    dropped: dict[str, int] = {}
    parts = [_candidates(suite, tasks, chunk, settings, dropped) for chunk in _chunks(settings.tasks)]
    task, prefix, turn, posterior, mean_task, mean_prefix = (
        np.concatenate([part[i] for part in parts]) for i in range(6)
    )
    target = posterior[np.arange(len(task)), turn].argmax(1)
    base_word = posterior[:, 0].argmax(1)
    is_choose = split[task] == CHOOSE
    look_up = most_frequent(turn[is_choose] * (END + 1) + base_word[is_choose], target[is_choose], TURNS * (END + 1))
    differs = look_up[turn * (END + 1) + base_word] != target
    priority = _priorities(suite, task, prefix, turn)
    is_strict = _balance(split[task] * TURNS + turn, base_word, prefix[:, -1], target, differs, priority)
    rows = _limit_per_task(task, is_choose, is_strict, priority, settings)
    dropped["more pairs per task than are used"] = len(task) - len(rows)
    is_mean = split[mean_task] == CHOOSE
    narrow = lambda values: values[rows].astype(np.int8)  # noqa: E731
    return PairSet(
        tasks, split, task[rows], narrow(prefix), narrow(turn), narrow(target), narrow(base_word), posterior[rows],
        is_strict[rows], look_up.reshape(TURNS, END + 1).astype(np.int8), mean_task[is_mean],
        mean_prefix[is_mean].astype(np.int8), dropped,
    )  # fmt: skip


def most_frequent(keys: np.ndarray, values: np.ndarray, num_keys: int) -> np.ndarray:
    """int64 [num_keys], the most frequent of `values` (0 to 5) per key, the smallest of equals; -1 for an absent key."""
    counts = np.bincount(keys * (END + 1) + values, minlength=num_keys * (END + 1)).reshape(num_keys, END + 1)
    return np.where(counts.any(1), counts.argmax(1), -1)


def _chunks(num_tasks: int) -> Iterator[np.ndarray]:
    for start in range(0, num_tasks, _TASK_CHUNK):
        yield np.arange(start, min(start + _TASK_CHUNK, num_tasks))


def _candidates(
    suite: Suite, tasks: Tasks, chunk: np.ndarray, settings: PairSettings, dropped: dict[str, int]
) -> tuple[np.ndarray, ...]:
    """Task, prefix, turn and posterior of the pairs of some tasks before the limit per task; task and prefix for means."""
    length = prefix_length(suite)
    table = SuffixTable.of_suite(suite, length)
    task, prefix = candidate_prefixes(tasks, chunk, length)
    inputs, outputs = (worlds[:, : suite.shown] for worlds in (tasks.inputs, tasks.outputs))
    reached = execute_prefixes(prefix, inputs[task])
    base = posterior_of_distinct(table, reached, outputs[task], task)
    rows = np.flatnonzero(base.sum(1) > 0)
    rows = rows[rank_within(task[rows], _priorities(suite, task[rows], prefix[rows])) < settings.prefixes_per_task]
    task, prefix, reached = task[rows], prefix[rows], reached[rows]
    posterior = np.zeros((len(rows), TURNS, END + 1))
    posterior[:, 0] = base[rows]
    turns = np.repeat(np.arange(1, TURNS), len(rows))
    turned = turn_robots(_tile(reached, TURNS - 1), turns)
    repeated = np.tile(task, TURNS - 1)
    flat = posterior_of_distinct(table, turned, outputs[repeated], repeated)
    posterior[:, 1:] = flat.reshape(TURNS - 1, len(rows), -1).swapaxes(0, 1)
    row, turn = (part.ravel() for part in np.meshgrid(np.arange(len(rows)), np.arange(1, TURNS), indexing="ij"))
    is_pair = _filter(posterior[row, turn], posterior[row, 0], dropped)
    row, turn = row[is_pair], turn[is_pair]
    is_mean = rank_within(task, _priorities(suite, task, prefix)) < settings.mean_prefixes
    return task[row], prefix[row], turn, posterior[row], task[is_mean], prefix[is_mean]


def _filter(edited: np.ndarray, base: np.ndarray, dropped: dict[str, int]) -> np.ndarray:
    """bool [P], the candidates that are pairs; the others are counted by reason."""
    target, top = edited.argmax(1), np.sort(edited, 1)
    reasons = {
        "no program reaches the outputs from the edited state": edited.sum(1) == 0,
        f"no word has probability {MIN_EDITED} from the edited state": edited.max(1) < MIN_EDITED,
        "two words are equally probable from the edited state": np.isclose(top[:, -2], top[:, -1]),
        "the target is also the base's most probable word": target == base.argmax(1),
        f"the target has more than probability {MAX_BASE} from the base": base[np.arange(len(base)), target] > MAX_BASE,
    }
    is_pair = np.ones(len(edited), bool)
    for reason, is_dropped in reasons.items():
        dropped[reason] = dropped.get(reason, 0) + int((is_pair & is_dropped).sum())
        is_pair &= ~is_dropped
    return is_pair


def candidate_prefixes(tasks: Tasks, chunk: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Task int64 [P] and prefix int8 [P, K] of the candidates of tasks `chunk`.

    All prefixes of three actions; of longer ones the beginning of the reference program, and what differs from it by one
    action or by the order of two neighbours.
    """
    if length <= 3:
        prefixes_by_task = np.array(list(product(range(END), repeat=length)), np.int8)
        return np.repeat(chunk, len(prefixes_by_task)), np.tile(prefixes_by_task, (len(chunk), 1))
    rows: list[tuple[int, tuple[int, ...]]] = []
    for task in chunk.tolist():
        start = tuple(tasks.programs.program(task)[3 : 3 + length].tolist())
        variants = {start}
        for i in range(length):
            variants |= {(*start[:i], word, *start[i + 1 :]) for word in range(END)}
            if i + 1 < length:
                variants.add((*start[:i], start[i + 1], start[i], *start[i + 2 :]))
        rows += [(task, variant) for variant in sorted(variants)]
    return np.array([task for task, _ in rows]), np.array([variant for _, variant in rows], np.int8)


def posterior_of_distinct(table: SuffixTable, states: Worlds, outputs: Worlds, task: np.ndarray) -> np.ndarray:
    """As `SuffixTable.next_word_posterior`, computed once per distinct state of a task."""
    _, first, inverse = np.unique(hash_states(states, task), return_index=True, return_inverse=True)
    posterior: np.ndarray = table.next_word_posterior(states[first], outputs[first])[inverse]
    return posterior


def hash_states(states: Worlds, task: np.ndarray) -> np.ndarray:
    """uint64 [M], a hash of task and full state of all examples; different states share one with probability 2**-64."""
    rows = len(task)
    parts = [part.reshape(rows, -1).astype(np.uint64) for part in (task[:, None], states.robot, states.cells)]
    values = np.concatenate(parts, 1)
    factors = _mix(np.arange(1, values.shape[1] + 1, dtype=np.uint64) * GAMMA) | np.uint64(1)
    with np.errstate(over="ignore"):
        return _mix((values * factors).sum(1, dtype=np.uint64))


def _priorities(suite: Suite, task: np.ndarray, prefix: np.ndarray, turn: np.ndarray | int = 0) -> np.ndarray:
    """uint64 [P], random order of the candidates of a task, the same on every platform."""
    number = prefix_number(prefix) * TURNS + turn
    with np.errstate(over="ignore"):
        key = _mix(np.full(len(task), suite.seed + CAUSAL_STREAM + PAIRS_VERSION, np.uint64))
        key = _mix(key ^ (task.astype(np.uint64) + np.uint64(1)) * GAMMA)
        return _mix(key ^ (number.astype(np.uint64) + np.uint64(1)) * GAMMA)


def rank_within(group: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """int64 [P], position of each row among the rows of its group, ordered by priority."""
    order = np.lexsort((priority, group))
    sorted_group = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_group[1:] != sorted_group[:-1]]) if len(group) else np.zeros(0, int)
    first = np.repeat(starts, np.diff(np.r_[starts, len(group)]))
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - first
    return rank


def _balance(
    group: np.ndarray,
    base_word: np.ndarray,
    last_word: np.ndarray,
    target: np.ndarray,
    differs: np.ndarray,
    priority: np.ndarray,
) -> np.ndarray:
    """bool [P], rows with another target than the look-up's, of which no finer look-up tells the target.

    Within every split, turn, base word and last word of the prefix, the most frequent target is limited to as many rows as
    the second. Without this limit nearly all targets would be the closing bracket, and writing it always would succeed.
    """
    key = (group.astype(np.int64) * (END + 1) + base_word) * END + last_word
    num_keys = int(key.max(initial=0)) + 1
    counts = np.bincount(key[differs] * (END + 1) + target[differs], minlength=num_keys * (END + 1))
    second = np.sort(counts.reshape(num_keys, END + 1), 1)[:, -2]
    is_strict = np.zeros(len(key), bool)
    rows = np.flatnonzero(differs)
    is_strict[rows] = rank_within(key[rows] * (END + 1) + target[rows], priority[rows]) < second[key[rows]]
    return is_strict


def _limit_per_task(
    task: np.ndarray, is_choose: np.ndarray, is_strict: np.ndarray, priority: np.ndarray, settings: PairSettings
) -> np.ndarray:
    """int64, rows that are used: strict ones first, then others, up to the limits per task; in order of task."""
    rank = rank_within(task * 2 + ~is_strict, priority)
    others = np.where(is_choose, settings.not_strict_per_choose_task, settings.not_strict_per_task)
    rows = np.flatnonzero(rank < np.where(is_strict, settings.per_task, others))
    rank = rank_within(task[rows], rank[rows] + settings.per_task * ~is_strict[rows])
    return rows[rank < settings.per_task]


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 on an array, see `karel_env.generation.draws.mix`."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _tile(worlds: Worlds, count: int) -> Worlds:
    """Worlds [count * M, E] from worlds [M, E]."""
    return Worlds(*(np.concatenate([part] * count) for part in (worlds.cells, worlds.robot, worlds.size)))
