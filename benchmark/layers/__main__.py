"""Run `benchmark.layers.command`."""

import sys

from benchmark.layers.command import main

sys.exit(main())
