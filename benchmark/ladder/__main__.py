"""Run `benchmark.ladder.command`."""

import sys

from benchmark.ladder.command import main

sys.exit(main())
