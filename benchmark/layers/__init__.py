"""Probe every layer of a model for rotation, beside randomly initialised copies of it."""
