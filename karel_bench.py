"""The command `karel-bench`: checks that Python finds this project's packages, then runs the command.

`benchmark` and `baselines` are names that a folder of the user's may have too. This module's name is not, so it can name
such a folder where `python -m benchmark.run` would run it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from karel_env.command import USAGE_EXIT
from karel_env.shadowing import shadowing_message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    message = shadowing_message()
    if message:
        print(f"error: {message}", file=sys.stderr)
        return USAGE_EXIT
    exit_code: int = importlib.import_module("benchmark.cli.main").main(arguments)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
