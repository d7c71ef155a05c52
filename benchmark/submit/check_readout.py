"""Readings of a submission against the sums that its verdict rests on: both come from the same fits.

Readings (`readings.json.gz`) show single states of a few programs, the arrays of `probes.data` sums over all. Whoever
scales or exchanges one of the two leaves the other behind.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmark.probing.control_gap import PriorBaseline
from benchmark.probing.labels import ProbeSet
from benchmark.probing.protocol import POOLS, Protocol
from benchmark.probing.readout import DIGITS, Readout, SemanticsReadout
from benchmark.submit.report import VerificationReport
from karel_env.features import FEATURES, PRIMARY

HALF_DIGIT = 0.5 * 10.0**-DIGITS
SUM_TOLERANCE = 1e-3
"""Relative, of float32 sums."""
PRIOR_TOLERANCE = 1e-5
MAX_STANDARD_ERRORS = 8.0
"""Standard errors by which the programs of the readings may differ from all of their fold."""
MIN_PROGRAMS = 10


def check_readout(
    report: VerificationReport, readings: Readout, arrays: Mapping[str, np.ndarray], probe_set: ProbeSet, tested: PriorBaseline,
    protocol: Protocol,
) -> None:  # fmt: skip
    """Note in `found` where the readings are not of the fits that the arrays sum.

    Args:
        found: of the verification.
        readings: that `read_readings` accepted for this probe set.
        arrays: of `probes.data`.
        probe_set, tested: of the blind set.
        protocol: of the run; the readings are of its first seed.
    """
    feature = FEATURES.index(PRIMARY)
    report.compare("readings.seed", readings.seed, protocol.seeds[0])
    names = [reading.semantics for reading in readings.by_semantics]
    report.compare("readings.semantics", sorted(names), sorted(set(names)))
    for reading in readings.by_semantics:
        entry = f"readings.{reading.semantics}"
        semantics_index = probe_set.semantics.index(reading.semantics)
        pool = POOLS[int(arrays["model.pool"][0, semantics_index, feature])]
        report.compare(f"{entry}.view", reading.view, pool)
        total, prior = (
            float(arrays["model.totals"][0, semantics_index, feature]),
            float(tested.totals[0, semantics_index, feature]),
        )
        if reading.prior:
            # Then the score takes the prior itself, to the last digit of float32.
            report.compare(f"{entry}.prior", total, prior, PRIOR_TOLERANCE * prior)
        else:
            _check_cross_entropies(
                report, entry, reading, readings.task, arrays, probe_set, tested, protocol, semantics_index
            )


def _check_cross_entropies(
    report: VerificationReport, entry: str, reading: SemanticsReadout, tasks: list[int], arrays: Mapping[str, np.ndarray], probe_set: ProbeSet,
    tested: PriorBaseline, protocol: Protocol, semantics_index: int,
) -> None:  # fmt: skip
    """Cross-entropies of the single programs against those of their units and of their fold."""
    feature = FEATURES.index(PRIMARY)
    lower, upper, state_counts = (
        np.array(values) for values in zip(*map(_cross_entropy_bounds, reading.probability), strict=True)
    )
    units = _unit_indices(tested, arrays["model.probe"].shape[-1])
    positions = np.searchsorted(tested.programs, tasks)
    if (positions >= len(tested.programs)).any() or (
        tested.programs[np.minimum(positions, len(tested.programs) - 1)] != tasks
    ).any():
        report.compare(f"{entry}.task", "tested programs", "programs that no seed tests")
        return
    group_lower = np.bincount(units[positions], lower, minlength=arrays["model.probe"].shape[-1])
    stored = arrays["model.probe"][semantics_index, feature].astype(float)
    # Every program of the blind set is tested by one seed under the protocol, so its part is no larger than the whole.
    is_exceeded = (group_lower > stored * (1 + SUM_TOLERANCE) + SUM_TOLERANCE).any()
    report.compare(f"{entry}: no more nats than their group of programs has", bool(is_exceeded), False)
    if len(tasks) < MIN_PROGRAMS or not state_counts.sum():
        return
    test = probe_set.split(protocol.seeds[0]).test
    num_states = int((probe_set.classes[semantics_index, feature, test] >= 0).sum())
    mean = float(arrays["model.totals"][0, semantics_index, feature]) / num_states
    # A ratio of sums over programs drawn at random from those of the fold; rounding widens it at both ends.
    nats = (lower + upper) / 2
    standard_error = float(np.std(nats - mean * state_counts, ddof=1)) / (state_counts.mean() * np.sqrt(len(tasks)))
    rounding = float((upper - lower).sum() / 2 / state_counts.sum())
    is_different = abs(nats.sum() / state_counts.sum() - mean) > MAX_STANDARD_ERRORS * standard_error + rounding
    report.compare(f"{entry}: as many nats per state as its fold has", bool(is_different), False)


def _cross_entropy_bounds(program: list[float | None]) -> tuple[float, float, int]:
    """Least and largest cross-entropy that these rounded probabilities allow, and of how many states."""
    probabilities = np.array([probability for probability in program if probability is not None], float)
    lower = -np.log(np.minimum(probabilities + HALF_DIGIT, 1.0)).sum()
    upper = -np.log(np.maximum(probabilities - HALF_DIGIT, HALF_DIGIT / 10)).sum()
    return float(lower), float(upper), len(probabilities)


def _unit_indices(tested: PriorBaseline, num_units: int) -> np.ndarray:
    """int64 [P], the group of each tested program, as `semantic_content.in_units` cuts them."""
    num_programs = len(tested.programs)
    starts = np.unique(np.linspace(0, num_programs, min(num_units, num_programs), endpoint=False).astype(int))
    return np.searchsorted(starts, np.arange(num_programs), side="right") - 1
