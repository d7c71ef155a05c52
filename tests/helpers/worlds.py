"""The suite of small worlds and short programs, whose file is for `load_suite` and `--suite`."""

from __future__ import annotations

from pathlib import Path

WORLDS_SUITE = str(Path(__file__).parent / "worlds_suite.yaml")
