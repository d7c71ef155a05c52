"""Measurements of a run besides its record: `uses` (docs/causal.md). Each writes a record and an evidence file."""
