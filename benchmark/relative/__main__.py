"""`python -m benchmark.relative`: see `benchmark.relative.command`."""

import sys

from benchmark.relative.command import main

if __name__ == "__main__":
    sys.exit(main())
