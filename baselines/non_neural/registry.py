"""Baselines without a network, by the name after `baseline:`."""

from __future__ import annotations

from collections.abc import Callable

from baselines.non_neural.neighbour import NearestNeighbour
from baselines.non_neural.ngram import Ngram
from baselines.non_neural.random_program import RandomProgram
from baselines.non_neural.search import EnumerativeSearch
from benchmark.models.interface import ProgramGenerator
from benchmark.tasks.suite import Suite

BASELINES: dict[str, Callable[[Suite], ProgramGenerator]] = {
    "random": RandomProgram,
    "n-gram": Ngram,
    "nearest-neighbour": NearestNeighbour,
    "search": EnumerativeSearch,
}

EARLIER_DIGESTS: dict[str, tuple[str, ...]] = {
    "random": ("c9cd32023a91c0c6b0a2076c4f2910893bf5b494cf8a08e9809c41c8367d06b7",),
    "n-gram": (
        "bc1059c3af27a22a1eaf4cc52d6534c2854ae5273c507496da8ecf746f470252",
        "96796475eb87b36aa76bddec0d86886304acab66808784f3330c735ad107b094",
    ),
    "nearest-neighbour": (
        "b168ef8bf933cb6053a25d3805296b5b153f009ee29d212231ac40fab577f835",
        "56eea5bc4fb926ac27bda55286004ef76d2ce61ab6a69c9433e52b1be0d6ad19",
    ),
    "search": ("1a5d690764d7dfe3e91753dfea41f0029f3255fa29e78b2a9e82d40f8f8135f0",),
}
"""Digests of earlier sources that give the same answers; an edit that changes an answer removes its entry.

`tests/baselines/test_earlier_digests.py` regenerates answers of the rows that have these digests.
"""
