"""`python -m benchmark.compare`: see `benchmark.board.comparison`."""

import sys

from benchmark.board.comparison import main

if __name__ == "__main__":
    sys.exit(main())
