"""The baselines that are no networks, by the name after `baseline:`."""

from __future__ import annotations

from collections.abc import Callable

from baselines.neighbour import Neighbour
from baselines.ngram import Ngram
from baselines.random_program import RandomProgram
from baselines.search import Search
from benchmark.models.interface import ProgramGenerator
from benchmark.tasks.suite import Suite

BASELINES: dict[str, Callable[[Suite], ProgramGenerator]] = {
    "random": RandomProgram,
    "n-gram": Ngram,
    "nearest-neighbour": Neighbour,
    "search": Search,
}
