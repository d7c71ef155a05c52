"""Training whose second process writes its part of a state a second later than the first."""

from __future__ import annotations

import sys
import time

import torch
from accelerate import PartialState

import baselines.train

if __name__ == "__main__":
    save = torch.save

    def slow_save(*arguments, **named):
        if PartialState().process_index == 1:
            time.sleep(1)
        save(*arguments, **named)

    torch.save = slow_save
    sys.exit(baselines.train.main())
