"""The measurements by name, those that a run makes unless told otherwise, and those of full detail."""

from __future__ import annotations

from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.measurements.uses import UsesMeasurement
from benchmark.runner.measurements.uses_detail import UsesDetailMeasurement

MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (RepresentsMeasurement(), UsesMeasurement(), UsesDetailMeasurement())
}
STANDARD_MEASUREMENTS = ("represents", "uses")
DETAIL_MEASUREMENTS = tuple(name for name in MEASUREMENTS if name not in STANDARD_MEASUREMENTS)
"""Made where full detail is requested."""
