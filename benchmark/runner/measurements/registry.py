"""The measurements by name, and those that a run makes unless told otherwise."""

from __future__ import annotations

from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.reach import ReachMeasurement
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.measurements.uses import UsesMeasurement

MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (RepresentsMeasurement(), UsesMeasurement(), PreviewMeasurement(), ReachMeasurement())
}
STANDARD_MEASUREMENTS = ("represents", "uses")
