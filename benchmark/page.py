"""`python -m benchmark.page`: see `benchmark.board.page`."""

import sys

from benchmark.board.page import main

if __name__ == "__main__":
    sys.exit(main())
