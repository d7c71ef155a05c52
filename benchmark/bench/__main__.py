"""`python -m benchmark.bench`."""

import sys

from benchmark.bench.probing import main

if __name__ == "__main__":
    sys.exit(main())
