"""`python -m benchmark.export`: see `benchmark.submit.export`."""

import sys

from benchmark.submit.export import main

if __name__ == "__main__":
    sys.exit(main())
