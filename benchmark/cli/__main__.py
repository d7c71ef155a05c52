"""`python -m benchmark.cli`: the same as `karel-bench`."""

import sys

from benchmark.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
