"""`python -m benchmark.bench`."""

import sys

from benchmark.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
