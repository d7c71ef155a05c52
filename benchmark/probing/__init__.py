"""Probing: protocol, labels, probes, control gap, verdict, semantic content, grids. Knows no model library."""
