"""Checkpoints of training runs: a reduced measurement of each, curves and phases."""
