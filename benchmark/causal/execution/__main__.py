"""See `benchmark.causal.execution.command`."""

import sys

from benchmark.causal.execution.command import main

if __name__ == "__main__":
    sys.exit(main())
