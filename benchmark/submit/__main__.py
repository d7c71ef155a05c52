"""`python -m benchmark.submit`."""

import sys

from benchmark.submit.command import main

if __name__ == "__main__":
    sys.exit(main())
