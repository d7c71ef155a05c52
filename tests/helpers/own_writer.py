"""A class of a user's that only writes, and factories that are none."""

from __future__ import annotations

from benchmark.models.interface import Generation


class Mover:
    """Always goes one cell ahead."""

    def generate(self, prompts, max_new_words):
        return [Generation("move(); }", 2, True) for _ in prompts]


def load(random_seed: int | None = None) -> Mover:
    return Mover()


def no_argument() -> Mover:
    return Mover()


def no_model(random_seed: int | None = None) -> object:
    return object()


def failing(random_seed: int | None = None) -> Mover:
    raise FileNotFoundError("weights.pt")


constant = 1
