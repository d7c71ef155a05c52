"""`python -m benchmark.sealed`: see `benchmark.submit.sealed`."""

import sys

from benchmark.submit.sealed import main

if __name__ == "__main__":
    sys.exit(main())
