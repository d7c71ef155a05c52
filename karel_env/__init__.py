"""Karel: the language, the worlds, the interpreter, the generators. NumPy and Numba only."""
