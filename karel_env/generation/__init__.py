"""Random tasks: their settings, the random numbers, and programs with and without control flow."""
