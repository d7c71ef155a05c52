"""`python -m benchmark.export`: see `benchmark.submit.export.command`."""

import sys

from benchmark.submit.export.command import main

if __name__ == "__main__":
    sys.exit(main())
