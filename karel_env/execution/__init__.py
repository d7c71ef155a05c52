"""Execution of programs: compiled to flat code, in batches or one action at a time."""
