"""`python -m benchmark.emergence`."""

import sys

from benchmark.emergence.command import main

if __name__ == "__main__":
    sys.exit(main())
