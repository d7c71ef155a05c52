"""`python -m benchmark.submit.measurements FOLDER`: see `command`."""

import sys

from benchmark.submit.measurements.command import main

if __name__ == "__main__":
    sys.exit(main())
