"""On which pairs full detail makes each edit, from the pairs and the evidence; and the labels of its displacements.

NumPy only. Letters: as in `detail_evidence`; `R` mean prefixes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmark.causal.detail.das import TRAIN_PAIRS
from benchmark.causal.detail.detail_evidence import (
    CONDITIONS,
    DAS,
    EDIT_NAMES,
    FALSE,
    MOVE_CONDITIONS,
    OTHER_VALUE,
    SHUFFLED,
    STEERED,
    DetailRows,
    empty_detail,
)
from benchmark.causal.detail.detail_verdict import chosen_site
from benchmark.causal.detail.displacement import MoveShift, displacement, displacement_code
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import END
from karel_env.semantics import ORIGINAL

SHUFFLE_SEED = 90_501


def training_pairs(is_solved: np.ndarray) -> np.ndarray:
    """int64, positions of the choose pairs that subspaces are trained on, from bool [C]: evenly spaced solved ones."""
    solved = np.flatnonzero(is_solved)
    picked = np.linspace(0, max(len(solved) - 1, 0), min(TRAIN_PAIRS, len(solved))).round().astype(np.int64)
    return solved[picked]


def move_labels(prefixes: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    """int64 [R] by condition, displacement codes of mean prefixes int [R, K]; -1 where they are left out.

    Args:
        prefixes: the prefixes.
        codes: int64 [R], true codes, -1 where a move was blocked.
    """
    false = displacement_code(displacement(prefixes, alternative_semantics()[0]), prefixes.shape[1])
    order = np.random.Generator(np.random.Philox(SHUFFLE_SEED)).permutation(len(prefixes))
    return {STEERED: codes, SHUFFLED: codes[order], FALSE: np.where(codes < 0, -1, false)}


def move_shift(states: np.ndarray, prefixes: np.ndarray, codes: np.ndarray, condition: str) -> MoveShift:
    """The shift of displacement from states float32 [R, D], under the labels of a condition."""
    semantics = alternative_semantics()[0] if condition == FALSE else ORIGINAL
    labels = move_labels(prefixes, codes)[condition]
    return MoveShift.of(states, labels, net_rotation(prefixes, semantics), prefixes.shape[1])


def move_codes(prefixes: np.ndarray, condition: str) -> tuple[np.ndarray, np.ndarray]:
    """int64 [B], displacement codes under the semantics of a condition, and bool [B], whether they count: false ones that differ."""
    true = displacement(prefixes)
    position = displacement(prefixes, alternative_semantics()[0]) if condition == FALSE else true
    counts = (position != true).any(1) if condition == FALSE else np.ones(len(prefixes), bool)
    return displacement_code(position, prefixes.shape[1]), counts


def expected_detail_runs(
    rows: DetailRows, codes: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """bool by array of words, of its shape: where it must have words.

    Args:
        rows: the pairs.
        codes: int64 [R], displacement of the mean prefixes.
        arrays: the evidence; which sites have trained subspaces, who is solved, and the programs' ends are taken from it.
    """
    num_sites = len(arrays["choose"])
    empty = empty_detail(rows, num_sites)
    runs = {name: np.ones(array.shape, bool) for name, array in empty.items() if array.dtype == np.int8}
    trained = (arrays["trained"] != NOT_RUN).any((0, 1, 3))
    is_das = np.array([name in DAS for name in EDIT_NAMES])
    runs["edits"][:, is_das] = trained[:, None]
    site = chosen_site(arrays["choose"], arrays["choose_is_solved"].astype(bool), rows)
    runs["clamped"][is_das] = trained[site]
    at = np.zeros(len(rows.choose), bool)
    at[training_pairs(arrays["choose_is_solved"].astype(bool))] = True
    runs["trained"][:] = trained[:, None] & at
    ended = np.cumsum(arrays["programs"] == END, -1) - (arrays["programs"] == END)
    runs["programs"][:] = ended == 0
    moves, report = rows.moves, rows.move_report
    runs["move_controls"][MOVE_CONDITIONS.index(OTHER_VALUE)] = moves.other[report] >= 0
    prefixes = rows.pairs.mean_prefix
    false, counts = move_codes(moves.prefix[report], FALSE)
    shift = move_shift(np.zeros((len(prefixes), 1), np.float32), prefixes, codes, FALSE)
    _, is_defined = shift.shifts(false, moves.direction[report])
    runs["move_controls"][MOVE_CONDITIONS.index(FALSE)] = is_defined & counts
    assert set(CONDITIONS) == {STEERED, SHUFFLED, FALSE}
    return runs
