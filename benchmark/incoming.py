"""`python -m benchmark.incoming`: see `benchmark.review.pull_request`."""

import sys

from benchmark.review.pull_request import main

if __name__ == "__main__":
    sys.exit(main())
