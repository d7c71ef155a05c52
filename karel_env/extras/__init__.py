"""Modules that the benchmark does not import: named tasks and worlds, pictures, formats of public data sets, the NumPy interpreter."""
