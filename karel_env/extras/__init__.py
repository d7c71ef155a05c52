"""What the benchmark never imports: named tasks and worlds, pictures, formats of public data sets, the NumPy interpreter."""
