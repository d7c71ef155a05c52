"""`python -m benchmark.board`."""

import sys

from benchmark.board.command import main

if __name__ == "__main__":
    sys.exit(main())
