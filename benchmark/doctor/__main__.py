"""`python -m benchmark.doctor`."""

import sys

from benchmark.doctor.command import main

if __name__ == "__main__":
    sys.exit(main())
