"""Run `benchmark.length.command`."""

import sys

from benchmark.length.command import main

sys.exit(main())
