"""Analyses of intervals beside the frozen rule: `python -m benchmark.calibrate.intervals.tied_controls`."""
