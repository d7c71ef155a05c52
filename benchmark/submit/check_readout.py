"""Check `readings.json.gz` against `probes.data`: both are computed from the same probe fits.

The readout holds label probabilities per state for a few programs; the arrays hold sums of cross-entropies over all
programs. A file that is scaled or replaced no longer agrees with the other.
"""

from __future__ import annotations

import numpy as np

from benchmark.probing.control_gap import Evidence, PriorBaseline
from benchmark.probing.labels import ProbeSet
from benchmark.probing.protocol import POOLS, Protocol
from benchmark.probing.readout import DIGITS, Readout, SemanticsReadout
from benchmark.submit.report import VerificationReport
from karel_env.features import FEATURES, PRIMARY

HALF_DIGIT = 0.5 * 10.0**-DIGITS
SUM_TOLERANCE = 1e-3
"""Relative tolerance of float32 sums."""
PRIOR_TOLERANCE = 1e-5
MAX_STANDARD_ERRORS = 8.0
"""Largest accepted distance, in standard errors, between the mean of the readout's programs and the mean of their fold."""
MIN_PROGRAMS = 10


def check_readout(
    report: VerificationReport, readings: Readout, model: Evidence, probe_set: ProbeSet, tested: PriorBaseline,
    protocol: Protocol,
) -> None:  # fmt: skip
    """Add a mismatch to `report` for every semantics whose readout does not agree with the evidence.

    Args:
        report: report of the verification.
        readings: readout that was accepted for this probe set.
        model: evidence of the model.
        probe_set, tested: blind probe set and its prior baseline.
        protocol: protocol of the run; the readout is of its first seed.
    """
    feature = FEATURES.index(PRIMARY)
    report.compare("readings.seed", readings.seed, protocol.seeds[0])
    names = [reading.semantics for reading in readings.by_semantics]
    report.compare("readings.semantics", sorted(names), sorted(set(names)))
    for reading in readings.by_semantics:
        entry = f"readings.{reading.semantics}"
        semantics_index = probe_set.semantics.index(reading.semantics)
        pool = POOLS[int(model.pool[0, semantics_index, feature])]
        report.compare(f"{entry}.view", reading.view, pool)
        total, prior = (
            float(model.totals[0, semantics_index, feature]),
            float(tested.totals[0, semantics_index, feature]),
        )
        if reading.prior:
            # The score is that of the prior, within float32 precision.
            report.compare(f"{entry}.prior", total, prior, PRIOR_TOLERANCE * prior)
        else:
            _check_cross_entropies(
                report, entry, reading, readings.task, model, probe_set, tested, protocol, semantics_index
            )


def _check_cross_entropies(
    report: VerificationReport, entry: str, reading: SemanticsReadout, tasks: list[int], model: Evidence, probe_set: ProbeSet,
    tested: PriorBaseline, protocol: Protocol, semantics_index: int,
) -> None:  # fmt: skip
    """Check the cross-entropies per program against the sums of their groups of programs and of their fold."""
    feature = FEATURES.index(PRIMARY)
    lower, upper, state_counts = (
        np.array(values) for values in zip(*map(_cross_entropy_bounds, reading.probability), strict=True)
    )
    units = _unit_indices(tested, model.probe.shape[-1])
    positions = np.searchsorted(tested.programs, tasks)
    if (positions >= len(tested.programs)).any() or (
        tested.programs[np.minimum(positions, len(tested.programs) - 1)] != tasks
    ).any():
        report.compare(f"{entry}.task", "tested programs", "programs that no seed tests")
        return
    group_lower = np.bincount(units[positions], lower, minlength=model.probe.shape[-1])
    stored = model.probe[semantics_index, feature].astype(float)
    # The protocol tests every program of the blind set with one seed, so a program has at most the sum of its group.
    is_exceeded = (group_lower > stored * (1 + SUM_TOLERANCE) + SUM_TOLERANCE).any()
    report.compare(f"{entry}: no more nats than their group of programs has", bool(is_exceeded), False)
    if len(tasks) < MIN_PROGRAMS or not state_counts.sum():
        return
    test = probe_set.split(protocol.seeds[0]).test
    num_states = int((probe_set.classes[semantics_index, feature, test] >= 0).sum())
    mean = float(model.totals[0, semantics_index, feature]) / num_states
    # Ratio estimate over programs sampled at random from the fold; rounding of the probabilities widens both bounds.
    nats = (lower + upper) / 2
    standard_error = float(np.std(nats - mean * state_counts, ddof=1)) / (state_counts.mean() * np.sqrt(len(tasks)))
    rounding = float((upper - lower).sum() / 2 / state_counts.sum())
    is_different = abs(nats.sum() / state_counts.sum() - mean) > MAX_STANDARD_ERRORS * standard_error + rounding
    report.compare(f"{entry}: as many nats per state as its fold has", bool(is_different), False)


def _cross_entropy_bounds(program: list[float | None]) -> tuple[float, float, int]:
    """Compute the bounds of the cross-entropy of a program from its rounded probabilities.

    Returns:
        Lower bound and upper bound in nats, and the number of states.
    """
    probabilities = np.array([probability for probability in program if probability is not None], float)
    lower = -np.log(np.minimum(probabilities + HALF_DIGIT, 1.0)).sum()
    upper = -np.log(np.maximum(probabilities - HALF_DIGIT, HALF_DIGIT / 10)).sum()
    return float(lower), float(upper), len(probabilities)


def _unit_indices(tested: PriorBaseline, num_units: int) -> np.ndarray:
    """Compute the group of each tested program, int64 [P], with the same boundaries as the stored group sums."""
    num_programs = len(tested.programs)
    starts = np.unique(np.linspace(0, num_programs, min(num_units, num_programs), endpoint=False).astype(int))
    return np.searchsorted(starts, np.arange(num_programs), side="right") - 1
