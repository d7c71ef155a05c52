"""Constants of the interpreter and of the random streams that are read where nothing compiled is imported, as by options."""

from __future__ import annotations

import numpy as np

MODES = ("noop", "crash", "turn180")
"""What an illegal action does: nothing, end the execution, or turn the robot around."""
MAX_EVENTS = 1000
"""Budget of events of an execution if none is given."""
EVENT_LIMIT = 30_000
"""Largest budget of events, and largest count of markers that a limit can be."""
GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""Odd constant of the counter-based random streams, see `draws`."""
