"""`python -m benchmark.reproduction`: see `benchmark.reproduction.command`."""

import sys

from benchmark.reproduction.command import main

if __name__ == "__main__":
    sys.exit(main())
