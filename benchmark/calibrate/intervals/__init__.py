"""Analyses of intervals beside the frozen rule."""
