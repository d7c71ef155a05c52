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
from benchmark.probing.readout import DIGITS, SemanticsReadout, Readout
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
        s = probe_set.semantics.index(reading.semantics)
        view = POOLS[int(arrays["model.pool"][0, s, feature])]
        report.compare(f"{entry}.view", reading.view, view)
        total, prior = float(arrays["model.totals"][0, s, feature]), float(tested.totals[0, s, feature])
        if reading.prior:
            # Then the score takes the prior itself, to the last digit of float32.
            report.compare(f"{entry}.prior", total, prior, PRIOR_TOLERANCE * prior)
        else:
            _compare_sums(report, entry, reading, readings.task, arrays, probe_set, tested, protocol, s)


def _compare_sums(
    found: VerificationReport, entry: str, reading: SemanticsReadout, tasks: list[int], arrays: Mapping[str, np.ndarray], probe_set: ProbeSet,
    tested: PriorBaseline, protocol: Protocol, s: int,
) -> None:  # fmt: skip
    """Cross-entropies of the single programs against those of their units and of their fold."""
    feature = FEATURES.index(PRIMARY)
    low, high, states = (np.array(values) for values in zip(*map(_cross_entropy_bounds, reading.probability), strict=True))
    units = _unit_indices(tested, arrays["model.probe"].shape[-1])
    place = np.searchsorted(tested.programs, tasks)
    if (place >= len(tested.programs)).any() or (
        tested.programs[np.minimum(place, len(tested.programs) - 1)] != tasks
    ).any():
        found.compare(f"{entry}.task", "tested programs", "programs that no seed tests")
        return
    least = np.bincount(units[place], low, minlength=arrays["model.probe"].shape[-1])
    stored = arrays["model.probe"][s, feature].astype(float)
    # Every program of the blind set is tested by one seed under the protocol, so its part is no larger than the whole.
    exceeds = (least > stored * (1 + SUM_TOLERANCE) + SUM_TOLERANCE).any()
    found.compare(f"{entry}: no more nats than their group of programs has", bool(exceeds), False)
    if len(tasks) < MIN_PROGRAMS or not states.sum():
        return
    test = probe_set.split(protocol.seeds[0]).test
    count = int((probe_set.classes[s, feature, test] >= 0).sum())
    mean = float(arrays["model.totals"][0, s, feature]) / count
    # A ratio of sums over programs drawn at random from those of the fold; rounding widens it at both ends.
    nats = (low + high) / 2
    spread = float(np.std(nats - mean * states, ddof=1)) / (states.mean() * np.sqrt(len(tasks)))
    rounding = float((high - low).sum() / 2 / states.sum())
    off = abs(nats.sum() / states.sum() - mean) > MAX_STANDARD_ERRORS * spread + rounding
    found.compare(f"{entry}: as many nats per state as its fold has", bool(off), False)


def _cross_entropy_bounds(program: list[float | None]) -> tuple[float, float, int]:
    """Least and largest cross-entropy that these rounded probabilities allow, and of how many states."""
    known = np.array([share for share in program if share is not None], float)
    low = -np.log(np.minimum(known + HALF_DIGIT, 1.0)).sum()
    high = -np.log(np.maximum(known - HALF_DIGIT, HALF_DIGIT / 10)).sum()
    return float(low), float(high), len(known)


def _unit_indices(tested: PriorBaseline, units: int) -> np.ndarray:
    """int64 [P], the group of each tested program, as `semantic_content.in_units` cuts them."""
    count = len(tested.programs)
    starts = np.unique(np.linspace(0, count, min(units, count), endpoint=False).astype(int))
    return np.searchsorted(starts, np.arange(count), side="right") - 1
