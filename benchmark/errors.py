"""What can go wrong, and the exit code of each.

    BenchmarkError              1, run incomplete
    ├── UsageError              2, an option, a suite or a value that cannot be
    ├── ModelError              3, a model or submission that cannot be used
    └── VerificationError       4, recomputed and stored figures differ

A message is one line: what was received, what was expected, what to do next.
"""

from __future__ import annotations


class BenchmarkError(Exception):
    """The run cannot go on; what is already computed stays in its folder."""

    exit_code = 1


class UsageError(BenchmarkError):
    """The command asks for something that does not exist or does not fit."""

    exit_code = 2


class ModelError(BenchmarkError):
    """The model cannot be loaded or cannot take the suite."""

    exit_code = 3


class VerificationError(BenchmarkError):
    """A recomputed figure or digest differs from the stored one."""

    exit_code = 4
