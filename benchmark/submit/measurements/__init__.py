"""Measurements of a submission: added to its folder, checked by their evidence, repeated with the weights."""
