"""Checks of a model before a run: `python -m benchmark.doctor`."""
