"""Every edit of full detail at one site, under the labels of a condition.

Letters: `B` states, `R` mean prefixes, `D` width, `K` rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.causal.detail.detail_evidence import (
    ADJUSTED,
    CONDITIONS,
    DAS,
    DONOR,
    EDIT_NAMES,
    FALSE,
    SHUFFLED,
    STEERED,
)
from benchmark.causal.detail.detail_runs import SHUFFLE_SEED
from benchmark.causal.detail.displacement import adjusted_differences
from benchmark.causal.detail.donors import DonorSwap
from benchmark.causal.edits import EDITS, Edit
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import TURNS


@dataclass(frozen=True)
class ChangeShift:
    """Add a difference of states for each change of a value.

    Attributes:
        differences: float32 [4 * 4, D], row `old * 4 + new`.
    """

    differences: np.ndarray

    @property
    def rank(self) -> int:
        """See `Edit.rank`."""
        return TURNS - 1

    def __call__(self, states: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `Edit`."""
        return np.asarray(states + self.differences[source * TURNS + target], np.float32)


def condition_labels(prefixes: np.ndarray) -> dict[str, np.ndarray]:
    """int [R] by condition, the labels of the mean prefixes int [R, K]: the rotation, permuted, under a false semantics."""
    rotation = net_rotation(prefixes)
    order = np.random.Generator(np.random.Philox(SHUFFLE_SEED)).permutation(len(rotation))
    return {
        STEERED: rotation,
        SHUFFLED: rotation[order],
        FALSE: net_rotation(prefixes, alternative_semantics()[0]),
    }


class SiteEdits:
    """The edits at one site.

    Args:
        states: float32 [R, D], states at the mean prefixes.
        prefixes: int [R, K], what their labels are computed from (`CausalSession.labelled_part`).
        codes: int [R], their displacement, -1 for unknown.
        bases: float32 [D, K] by condition (`STEERED` or `FALSE`) and name of `DAS`; empty if none was trained.
    """

    def __init__(
        self,
        states: np.ndarray,
        prefixes: np.ndarray,
        codes: np.ndarray,
        bases: Mapping[tuple[str, str], np.ndarray],
    ) -> None:
        self.edits: dict[tuple[str, str], Edit | DonorSwap] = {}
        changes = np.stack(np.divmod(np.arange(TURNS * TURNS), TURNS), 1)
        for condition, labels in condition_labels(prefixes).items():
            for name, make in EDITS.items():
                self.edits[condition, name] = make(states, labels, TURNS)
            differences, _ = adjusted_differences(states, labels, codes, changes)
            self.edits[condition, ADJUSTED] = ChangeShift(differences)
            self.edits[condition, DONOR] = DonorSwap(states, labels)
            for name in DAS:
                # A subspace is trained under true labels; shuffled ones only choose its donors.
                basis = bases.get((FALSE if condition == FALSE else STEERED, name))
                if basis is not None:
                    self.edits[condition, name] = DonorSwap(states, labels, basis)
        assert {name for _, name in self.edits} <= set(EDIT_NAMES)
        assert {condition for condition, _ in self.edits} == set(CONDITIONS)

    def apply(
        self,
        condition: str,
        name: str,
        states: np.ndarray,
        source: np.ndarray,
        target: np.ndarray,
        rows: np.ndarray,
    ) -> np.ndarray | None:
        """float32 [B, D], the edited states; None where no subspace was trained.

        Args:
            condition: one of `CONDITIONS`.
            name: one of `EDIT_NAMES`.
            states: float32 [B, D].
            source, target: int [B], values before and after, under the semantics of the condition.
            rows: int64 [B], the pairs, which seed the choice of donors.
        """
        edit = self.edits.get((condition, name))
        if edit is None:
            return None
        return edit.replace(states, target, rows) if isinstance(edit, DonorSwap) else edit(states, source, target)
