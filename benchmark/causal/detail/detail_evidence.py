"""What full detail stores: the words that were written under each edit, site and control, as integers. NumPy only.

Letters: `P` strict report pairs, `C` choose pairs, `L` sites, `E` edits, `X` conditions, `Q` displacement pairs (`J` that
choose, `M` that report), `T` pairs of whole programs, `A` words of a program.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from benchmark.causal.detail.das import DAS_RANKS
from benchmark.causal.detail.displacement import MovePairs, derive_move_pairs
from benchmark.causal.edits import EDITS
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.pairs import PairSet, PairSettings, derive_pairs
from benchmark.errors import SubmissionError
from benchmark.tasks.suite import Suite

MAX_SITES = 12
"""Largest number of sites that full detail edits; of more, evenly spaced ones."""
STEERED, SHUFFLED, FALSE = CONDITIONS = ("steered", "shuffled labels", "false semantics")
ADJUSTED, DONOR = "mean shift at equal displacement", "donor vector"
DAS = tuple(f"DAS rank {rank}" for rank in DAS_RANKS)
EDIT_NAMES = (*(name for name in EDITS if name != "erasure"), ADJUSTED, DONOR, *DAS, "erasure")
"""The edits by name; erasure is a control."""
UNRANKED = ("mean vector", DONOR, "erasure")
"""Edits that are not of low rank, or no edits of the value; they have no part in NOT USED."""
MAX_DAS_RANK = max(DAS_RANKS)
DOSES = (0.0, 0.5, 1.0, 2.0, 3.0)
MOVE_CONDITIONS = ("steered", "other value", *CONDITIONS[1:])
NO_EDIT, EVERY_WORD, OTHER_VALUE = PROGRAMS = ("no edit", "edit at every word", "other value")
PROGRAM_PAIRS = 192
"""Largest number of strict report pairs whose programs are written in full."""


@dataclass(frozen=True)
class DetailRows:
    """The pairs of full detail.

    Attributes:
        pairs: the pairs of the suite.
        moves: the displacement pairs.
        choose: int64 [C], choose pairs.
        report: int64 [P], strict report pairs.
        programs: int64 [T], positions in `report` of the pairs whose programs are written in full.
        move_choose, move_report: int64 [J] and [M], displacement pairs.
        num_words: A, the words of the longest program.
    """

    pairs: PairSet
    moves: MovePairs
    choose: np.ndarray
    report: np.ndarray
    programs: np.ndarray
    move_choose: np.ndarray
    move_report: np.ndarray
    num_words: int


@lru_cache(maxsize=4)
def detail_rows(suite: Suite, settings: PairSettings) -> DetailRows:
    """The pairs of full detail of a suite."""
    pairs, moves = derive_pairs(suite, settings), derive_move_pairs(suite, settings)
    report = np.flatnonzero(pairs.is_report & pairs.is_strict)
    picked = np.linspace(0, max(len(report) - 1, 0), min(PROGRAM_PAIRS, len(report))).round().astype(np.int64)
    return DetailRows(
        pairs, moves, np.flatnonzero(~pairs.is_report), report, picked,
        np.flatnonzero(~moves.is_report), np.flatnonzero(moves.is_report), suite.train_length[1],
    )  # fmt: skip


def detail_sites(num_sites: int) -> list[int]:
    """Indices of the sites that full detail edits."""
    if num_sites <= MAX_SITES:
        return list(range(num_sites))
    return [int(site) for site in np.unique(np.linspace(0, num_sites - 1, MAX_SITES).round())]


@dataclass(frozen=True)
class DetailEvidence:
    """Words written, index in `targets.NEXT_WORDS`, `NOT_RUN` where an edit was not made.

    Attributes:
        choose_is_solved, is_solved: bool [C], [P], whether the model solves the task from the prefix, unedited.
        unedited: int8 [P].
        choose: int8 [L, C], the mean shift.
        edits: int8 [X, E, L, P], every edit with its controls; no DAS where none was trained.
        clamped: int8 [E, P], with later activations in their natural range, at the site of the verdict.
        doses: int8 [5, P], the mean shift at that site at each of `DOSES`.
        trained: int8 [2, K, L, C], DAS on the pairs that it was trained on, under true and false semantics, by rank.
        programs: int8 [3, T, A], words after the prefix without edit, with the edit and with another value at every word.
        moves_are_solved: bool [Q].
        moves_unedited: int8 [Q].
        moves_choose: int8 [L, J], the shift of displacement.
        moves: int8 [L, M], the same on report pairs.
        move_controls: int8 [4, M], at the site that is chosen for it, by `MOVE_CONDITIONS`.
        move_clamped: int8 [M], there with later activations in their natural range.
    """

    choose_is_solved: np.ndarray
    is_solved: np.ndarray
    unedited: np.ndarray
    choose: np.ndarray
    edits: np.ndarray
    clamped: np.ndarray
    doses: np.ndarray
    trained: np.ndarray
    programs: np.ndarray
    moves_are_solved: np.ndarray
    moves_unedited: np.ndarray
    moves_choose: np.ndarray
    moves: np.ndarray
    move_controls: np.ndarray
    move_clamped: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, as a file stores them."""
        arrays = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: a.astype(np.uint8) if a.dtype == bool else a for name, a in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> DetailEvidence:
        """The inverse of `to_arrays`.

        Raises:
            SubmissionError: an array is missing.
        """
        names = [part.name for part in fields(cls)]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise SubmissionError(f"causal evidence in detail: no array {missing[0]}; expected {', '.join(names)}")
        return cls(**{n: arrays[n].astype(bool) if arrays[n].dtype == np.uint8 else arrays[n] for n in names})


def empty_detail(rows: DetailRows, num_sites: int) -> dict[str, np.ndarray]:
    """The arrays by name in which nothing was run; `num_sites` is L."""
    pairs, choose, moves = len(rows.report), len(rows.choose), len(rows.moves)
    words = {
        "unedited": (pairs,), "choose": (num_sites, choose),
        "edits": (len(CONDITIONS), len(EDIT_NAMES), num_sites, pairs), "clamped": (len(EDIT_NAMES), pairs),
        "doses": (len(DOSES), pairs), "trained": (2, len(DAS_RANKS), num_sites, choose),
        "programs": (len(PROGRAMS), len(rows.programs), rows.num_words), "moves_unedited": (moves,),
        "moves_choose": (num_sites, len(rows.move_choose)), "moves": (num_sites, len(rows.move_report)),
        "move_controls": (len(MOVE_CONDITIONS), len(rows.move_report)), "move_clamped": (len(rows.move_report),),
    }  # fmt: skip
    solved = {"choose_is_solved": choose, "is_solved": pairs, "moves_are_solved": moves}
    return {name: np.zeros(count, np.uint8) for name, count in solved.items()} | {
        name: np.full(shape, NOT_RUN, np.int8) for name, shape in words.items()
    }
