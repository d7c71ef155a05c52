"""Replace states of networks of transformers: the input of a block, or the recurrent state, at one token."""

from __future__ import annotations

from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.steering.recurrent import SteerableRecurrent, find_recurrent_network
from benchmark.models.steering.transformer import SteerableTransformer


def open_steerable(model: HuggingFaceModel) -> SteerableTransformer:
    """Wrap a loaded model: recurrent states for recurrent networks, inputs of blocks otherwise."""
    network = find_recurrent_network(model)
    return SteerableTransformer(model) if network is None else SteerableRecurrent(model, network)
