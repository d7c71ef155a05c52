"""`python -m benchmark.causal`."""

import sys

from benchmark.causal.command import main

if __name__ == "__main__":
    sys.exit(main())
