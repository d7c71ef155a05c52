"""Data of the player of edits: stored words of the causal measurement, executed in the shown worlds, as JSON.

Nothing runs a model: for each pair the measurement stores the word that was written without the edit and with it, and in full
detail whole programs, with the edit at every word. The page executes nothing either; worlds after each word come from the interpreter. Worlds and steps are those of `player`. Letters:
`P` pairs, `K` actions of a prefix, `E` shown examples, `M` programs executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmark.artifacts import CAUSAL_EVIDENCE, DETAIL_EVIDENCE, MAX_BYTES
from benchmark.board.player import world_to_json
from benchmark.causal.detail.detail_evidence import EVERY_WORD, NO_EDIT, PROGRAMS, DetailEvidence, detail_rows
from benchmark.causal.evidence import NOT_RUN, CausalEvidence
from benchmark.causal.pairs import STANDARD_PAIRS, PairSet, PairSettings, derive_pairs
from benchmark.causal.targets import END, NEXT_WORDS, equal_worlds, execute_prefixes, turn_robots
from benchmark.errors import SubmissionError
from benchmark.files import read_bytes
from benchmark.submit.artifacts.sources import find_file
from benchmark.tasks.suite import Suite
from karel_env.world import Worlds

MAX_PAIRS = 24
"""Largest number of pairs that a row's player holds."""
PAIR_SETTINGS = STANDARD_PAIRS
DIGITS = 3


def read_causal_evidence(folder: Path, num_pairs: int) -> CausalEvidence:
    """Read the words that a submission stores.

    Raises:
        SubmissionError: the file cannot be read, or does not have the pairs of its suite.
    """
    evidence = CausalEvidence.from_arrays(_read_arrays(folder, CAUSAL_EVIDENCE))
    for words in (evidence.unedited, evidence.steered, evidence.is_solved):
        if words.shape[-1:] != (num_pairs,) or words.min(initial=0) < NOT_RUN or words.max(initial=0) > END:
            raise SubmissionError(
                f"{folder.name}/{CAUSAL_EVIDENCE}: words of shape {words.shape}; expected those of {num_pairs} pairs"
            )
    return evidence


def _read_arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = read_bytes(find_file(folder, name), MAX_BYTES[name])
    try:
        arrays: dict[str, np.ndarray] = load(content)
    except SafetensorError as error:
        raise SubmissionError(f"{folder.name}/{name}: {error}; expected a file of safetensors") from error
    return arrays


StoredPrograms = dict[int, tuple[np.ndarray, np.ndarray]]
"""Words after the prefix by pair, without edit and with the edit at every word, int8 [A] each."""


def read_programs(folder: Path, suite: Suite, settings: PairSettings) -> StoredPrograms:
    """Read the whole programs that a submission stores; empty without full detail.

    Raises:
        SubmissionError: the file cannot be read, or does not have the pairs of its suite.
    """
    if not find_file(folder, DETAIL_EVIDENCE).is_file():
        return {}
    rows = detail_rows(suite, settings)
    words = DetailEvidence.from_arrays(_read_arrays(folder, DETAIL_EVIDENCE)).programs
    expected = (len(PROGRAMS), len(rows.programs), rows.num_words)
    if words.shape != expected or words.min(initial=0) < NOT_RUN or words.max(initial=0) > END:
        raise SubmissionError(
            f"{folder.name}/{DETAIL_EVIDENCE}: programs of shape {words.shape}; expected words of shape {expected}"
        )
    unedited, edited = (words[PROGRAMS.index(name)] for name in (NO_EDIT, EVERY_WORD))
    return {
        int(row): (unedited[t], edited[t])
        for t, row in enumerate(rows.report[rows.programs])
        if unedited[t, 0] != NOT_RUN
    }


def build_steering_player(
    folder: Path, suite: Suite, site: str, settings: PairSettings | None = None
) -> dict[str, Any]:
    """Player entries of the first report tasks, with what was written before and after each turn.

    Args:
        folder: folder of the submission, with its evidence.
        suite: suite of the measurement.
        site: name of the place of the edit.
        settings: number of pairs; by default those of the measurement.

    Raises:
        SubmissionError: the evidence does not fit the suite.
    """
    pairs = derive_pairs(suite, settings or PAIR_SETTINGS)
    evidence = read_causal_evidence(folder, len(pairs))
    programs = read_programs(folder, suite, settings or PAIR_SETTINGS)
    prefixes = select_prefixes(pairs, evidence, programs)
    return {
        "words": list(NEXT_WORDS),
        "site": site,
        "shown": suite.shown,
        "tasks": len({int(pairs.task[rows[0]]) for rows in prefixes}),
        "prefixes": [_prefix_entry(suite, pairs, evidence, programs, rows) for rows in prefixes],
    }


def select_prefixes(
    pairs: PairSet, evidence: CausalEvidence, programs: StoredPrograms | None = None
) -> list[np.ndarray]:
    """Rows of the pairs that are played, one array per prefix: whatever was written there.

    Of the first report tasks, a prefix with whole programs if there is one, then that with the most turns; of equals one
    with a strict pair, then the first. Prefixes that the model does not solve unedited are left out, as they are from the
    figures.
    """
    stored = programs or {}
    is_played = pairs.is_report & evidence.is_solved & (evidence.steered[0] != NOT_RUN)
    selected: list[np.ndarray] = []
    count = 0
    for task in np.unique(pairs.task[is_played]):
        rows = np.flatnonzero(is_played & (pairs.task == task))
        groups = [rows[pairs.base_row[rows] == base] for base in np.unique(pairs.base_row[rows])]
        best = max(
            groups,
            key=lambda group: (
                any(int(row) in stored for row in group), len(group), bool(pairs.is_strict[group].any()), -int(group[0])
            ),
        )  # fmt: skip
        if count + len(best) > MAX_PAIRS:
            break
        selected.append(best)
        count += len(best)
    return selected


def _prefix_entry(
    suite: Suite, pairs: PairSet, evidence: CausalEvidence, programs: StoredPrograms, rows: np.ndarray
) -> dict[str, Any]:
    """The entry of one prefix; `rows` are its pairs."""
    first = int(rows[0])
    task, prefix = int(pairs.task[first]), pairs.prefix[first]
    inputs, outputs = (worlds[task, : suite.shown] for worlds in (pairs.tasks.inputs, pairs.tasks.outputs))
    states = [_execute(prefix[:length], inputs) for length in range(len(prefix) + 1)]
    unedited = int(evidence.unedited[first])
    stored = next((programs[int(row)] for row in rows if int(row) in programs), None)
    return {
        "task": task,
        "prefix": prefix.tolist(),
        "inputs": [world_to_json(inputs[e]) for e in range(suite.shown)],
        "expected": [world_to_json(outputs[e]) for e in range(suite.shown)],
        "steps": [
            [_step(states[k], states[k + 1], e, k) for k in range(len(prefix))] for e in range(suite.shown)
        ],
        "unedited": _written(suite, states[-1], outputs, unedited, pairs.posterior[first, 0])
        | _rest_of_program(suite, states[-1], outputs, unedited, None if stored is None else stored[0]),
        "turns": {
            str(int(pairs.turn[row])): _written(
                suite,
                _turn(states[-1], int(pairs.turn[row])),
                outputs,
                int(evidence.steered[0, row]),
                pairs.posterior[row, pairs.turn[row]],
            )
            | {"target": int(pairs.target[row]), "strict": bool(pairs.is_strict[row])}
            | _rest_of_program(
                suite,
                _turn(states[-1], int(pairs.turn[row])),
                outputs,
                int(evidence.steered[0, row]),
                programs[int(row)][1] if int(row) in programs else None,
            )
            for row in rows
        },
    }  # fmt: skip


def _written(suite: Suite, state: Worlds, outputs: Worlds, word: int, posterior: np.ndarray) -> dict[str, Any]:
    """A word that was written in a state: its effect in each shown world, and the exact distribution of the next word.

    `ends` tells for the closing bracket whether each world is the output then; it is None for an action.
    """
    is_end = word == END
    after = state if is_end else _execute(np.array([word], np.int8), state)
    return {
        "word": word,
        "robots": state.robot.tolist(),
        "steps": [_step(state, after, e, 0) for e in range(len(state))],
        "ends": equal_worlds(state, outputs, suite.equality).tolist() if is_end else None,
        "probability": [round(float(share), DIGITS) for share in posterior],
    }


def _rest_of_program(
    suite: Suite, state: Worlds, outputs: Worlds, word: int, words: np.ndarray | None
) -> dict[str, Any]:
    """The words after the next one, where a whole program is stored that begins with `word`: their effect in each world.

    `ends` tells whether each world is the output where the program ends; it is None for a program that does not.
    """
    if words is None or words[0] != word or word == END:
        return {}
    written = [int(w) for w in words if w != NOT_RUN]
    actions = [w for w in written if w != END]
    states = [_execute(np.array(actions[:length], np.int8), state) for length in range(1, len(actions) + 1)]
    steps = [
        [_step(states[k], states[k + 1], e, 0) for k in range(len(states) - 1)] for e in range(len(state))
    ]  # fmt: skip
    is_ended = written[-1] == END
    ends = equal_worlds(states[-1], outputs, suite.equality).tolist() if is_ended else None
    return {"rest": {"words": written[1:], "steps": steps, "ends": ends}}


def _execute(actions: np.ndarray, worlds: Worlds) -> Worlds:
    """Worlds [E] after actions, int8 [K]."""
    if not len(actions):
        return worlds
    return execute_prefixes(actions[None], worlds[None])[0]


def _turn(worlds: Worlds, turn: int) -> Worlds:
    return turn_robots(worlds[None], np.array([turn]))[0]


def _step(before: Worlds, after: Worlds, example: int, token: int) -> list[Any]:
    """One step of example `example`, as `player.steps_to_json` gives it."""
    height, width = (int(n) for n in before.size[example])
    cells = [worlds.cells[example, :height, :width].ravel() for worlds in (before, after)]
    changed = [[int(i), int(cells[1][i])] for i in np.flatnonzero(cells[0] != cells[1])]
    return [token, after.robot[example].tolist(), changed, None]
