"""`python -m benchmark.leaderboard`: see `benchmark.board.tables`."""

import sys

from benchmark.board.tables import main

if __name__ == "__main__":
    sys.exit(main())
