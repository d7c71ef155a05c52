"""`python -m benchmark.calibrate`."""

import sys

from benchmark.calibrate.command import main

if __name__ == "__main__":
    sys.exit(main())
