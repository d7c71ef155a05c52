"""Replace states of networks of transformers: the input of a block, or the recurrent state, at one token."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.steering.recurrent import SteerableRecurrent, find_recurrent_network
from benchmark.models.steering.transformer import SteerableTransformer
from benchmark.models.steering.words import NEXT_WORDS


def open_steerable(model: HuggingFaceModel, continuations: Sequence[str] = NEXT_WORDS) -> SteerableTransformer:
    """Wrap a loaded model: recurrent states for recurrent networks, inputs of blocks otherwise.

    Args:
        model: the model.
        continuations: texts whose probability after a prefix is scored; the six next words of a program by default.
    """
    network = find_recurrent_network(model)
    if network is None:
        return SteerableTransformer(model, continuations)
    return SteerableRecurrent(model, network, continuations)
