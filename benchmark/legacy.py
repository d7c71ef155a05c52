"""`python -m benchmark.legacy`: see `benchmark.calibrate.legacy`."""

import sys

from benchmark.calibrate.legacy_command import main

if __name__ == "__main__":
    sys.exit(main())
