"""The suite of the one trained pair that the tests of the pair and those of the known answers share."""

from __future__ import annotations

from dataclasses import replace

from worlds import WORLDS_SUITE

from benchmark.tasks.suite import load_suite

PAIR_SUITE = replace(load_suite(WORLDS_SUITE), blind_length=6)
"""Worlds so small that a pair learns them in 400 steps, programs so long that few of them are alike."""
