"""What a measurement stores: the words that were written for each pair under each edit, as integers. NumPy only.

Letters: `P` pairs, `S` semantics (0 is the original), `L` sites, `V` random draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from benchmark.errors import SubmissionError

NOT_RUN = -1
"""Word of a pair that was not run under an edit."""


@dataclass(frozen=True)
class CausalEvidence:
    """Words written per pair, index in `targets.NEXT_WORDS`, `NOT_RUN` where an edit was not made.

    Attributes:
        is_solved: bool [P], whether the program that the model writes from the prefix, unedited, solves the task.
        unedited: int8 [P].
        is_argmax: bool [P], whether that word begins with the most probable token of the full vocabulary.
        choose: int8 [S, L, P], the mean shift under each semantics at each site, on choose pairs.
        steered: int8 [S, P], the same at the site chosen for each semantics, on report pairs.
        random: int8 [V, P], vectors of random direction, on strict report pairs.
        other_value: int8 [P], the shift to another value than the target's, on report pairs that have one.
        wrong_position: int8 [P], the shift at the last token of the prompt, on strict report pairs.
        clamped: int8 [P], the shift with later activations in their natural range, on strict report pairs.
        untrained_choose: int8 [L, P], the mean shift in the untrained copy, on choose pairs.
        untrained: int8 [P], the same at its own site, on strict report pairs.
        merge_scores: float32 [R, 6], log-probabilities of the prefixes of `merges.merge_pairs`.
    """

    is_solved: np.ndarray
    unedited: np.ndarray
    is_argmax: np.ndarray
    choose: np.ndarray
    steered: np.ndarray
    random: np.ndarray
    other_value: np.ndarray
    wrong_position: np.ndarray
    clamped: np.ndarray
    untrained_choose: np.ndarray
    untrained: np.ndarray
    merge_scores: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, as a file stores them."""
        narrow = {np.dtype(bool): np.uint8}
        return {f.name: (a := getattr(self, f.name)).astype(narrow.get(a.dtype, a.dtype)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> CausalEvidence:
        """The inverse of `to_arrays`.

        Raises:
            SubmissionError: an array is missing.
        """
        missing = [f.name for f in fields(cls) if f.name not in arrays]
        if missing:
            raise SubmissionError(f"causal evidence: no array {missing[0]}; expected {', '.join(_NAMES)}")
        values = {name: arrays[name] for name in _NAMES}
        return cls(**{name: a.astype(bool) if a.dtype == np.uint8 else a for name, a in values.items()})


_NAMES = tuple(f.name for f in fields(CausalEvidence))


def has_edits(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a model was edited, from the arrays of its evidence: one that solves far too few tasks need not be."""
    return bool((arrays["choose"] != NOT_RUN).any())
