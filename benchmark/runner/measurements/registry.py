"""The measurements by name, those that a run makes unless told otherwise, and those of full detail."""

from __future__ import annotations

from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.reach import ReachMeasurement
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.measurements.uses import UsesMeasurement
from benchmark.runner.measurements.uses_detail import UsesDetailMeasurement

MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (
        RepresentsMeasurement(), UsesMeasurement(), PreviewMeasurement(), ReachMeasurement(), UsesDetailMeasurement(),
    )
}  # fmt: skip
STANDARD_MEASUREMENTS = ("represents", "uses")
DETAIL_MEASUREMENTS = ("reach", "uses-detail")
"""Made where full detail is requested."""
