"""Hidden states of a model at the rows of a probe set, and the standard controls of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.api.inputs import check_names
from benchmark.api.model import Model, as_model
from benchmark.api.probe_set import BlindProbeSet
from benchmark.errors import ModelError
from benchmark.probing.control_gap import RANDOM_INIT, TOKEN_HISTORY
from benchmark.probing.token_history import token_history_states

POSITIONS = READ, EMIT = ("read", "emit")


@dataclass(frozen=True)
class PooledStates:
    """The two views of hidden states that the verdict selects from, without the layers that they are made of.

    Attributes:
        mean: float32 [R, D], mean over layers.
        last: float32 [R, D], last layer.
    """

    mean: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray) -> PooledStates:
        """Pool float32 [R, L, D]."""
        return cls(states.mean(1), np.ascontiguousarray(states[:, -1]))


def hidden_states(model: Any, probes: BlindProbeSet, position: str = READ) -> np.ndarray:
    """Hidden states of a model at every row of a probe set, in batches as a run reads them.

    Args:
        model: a model of `load_model` or `wrap`, or a spec.
        probes: B programs with R rows.
        position: `read`, at the last token of each action word; or `emit`, at the token that predicts it.

    Returns:
        float32 [R, L, D]: layer 0 holds the embeddings, layer L - 1 the output of the last block after the final norm,
        as in `output_hidden_states` of transformers. Takes 4 x R x L x D bytes.

    Raises:
        InputError: another position.
        ModelError: the model cannot be loaded, has no hidden states, or they hold NaN or infinity.

    Source: Jin & Rinard 2024, section 4.1; docs/probing.md, "What is measured".
    """
    check_names("position", [position], POSITIONS)
    states: np.ndarray | None = None
    start = 0
    for values in _read_batches(as_model(model), probes, position):
        if states is None:
            states = np.empty((probes.num_rows, *values.shape[1:]), np.float32)
        states[start : start + len(values)] = values
        start += len(values)
    assert states is not None
    return states


def _read_batches(
    model: Model, probes: BlindProbeSet, position: str, random_seed: int | None = None
) -> Iterator[np.ndarray]:
    """float32 [rows, L, D] per batch of the suite's size."""
    with model.opened(random_seed) as loaded:
        for start in range(0, len(probes), probes.suite.batch):
            stop = min(start + probes.suite.batch, len(probes))
            states = loaded.hidden_states(probes.prompts[start:stop], probes.programs[start:stop])
            in_batch = (probes.row_program >= start) & (probes.row_program < stop)
            rows = states.offsets[probes.row_program[in_batch] - start] + probes.row_word[in_batch]
            values = states.values[getattr(states, position)[rows]]
            if not np.isfinite(values).all():
                raise ModelError(f"{model.spec}: hidden states with NaN or infinity; try another dtype")
            yield values


def pooled_states(model: Any, probes: BlindProbeSet, position: str = READ) -> PooledStates:
    """Hidden states pooled over layers batch by batch, for models whose layers do not fit into memory together.

    Args:
        model: a model of `load_model` or `wrap`, or a spec.
        probes: B programs with R rows.
        position: `read` or `emit`, see `hidden_states`.

    Returns:
        Mean over layers and last layer, float32 [R, D] each; `measure` gives the same result for them as for all layers.

    Raises:
        InputError: another position.
        ModelError: see `hidden_states`.

    Source: docs/probing.md, "What is measured".
    """
    check_names("position", [position], POSITIONS)
    return _pool_batches(_read_batches(as_model(model), probes, position))


def _pool_batches(batches: Iterable[np.ndarray]) -> PooledStates:
    parts = [PooledStates.of(part) for part in batches]
    return PooledStates(np.concatenate([part.mean for part in parts]), np.concatenate([part.last for part in parts]))


def standard_controls(
    model: Any, probes: BlindProbeSet
) -> Mapping[str, PooledStates | np.ndarray | Sequence[PooledStates]]:
    """The controls of the protocol: untrained copies of the model, and a record of the tokens that were read.

    Args:
        model: a model of `load_model` or `wrap`, or a spec.
        probes: B programs with R rows.

    Returns:
        `random-init`: the pooled states, float32 [R, D] each, of every randomly initialised copy of the architecture
        (three in the protocol; probe seed i reads copy i modulo their number). `recorder`: the token-history baseline,
        float32 [R, D'], the one-hot tokens read so far and the one-hot input world.

    Raises:
        ModelError: the model cannot be loaded, or has no untrained copies.

    Source: docs/probing.md, "What is measured"; Hewitt & Liang 2019 on control tasks.
    """
    from benchmark.runner.worker import RANDOM_INIT_SEED

    handle = as_model(model)
    seeds = range(RANDOM_INIT_SEED, RANDOM_INIT_SEED + probes.protocol.random_inits)
    copies = [_pool_batches(_read_batches(handle, probes, READ, seed)) for seed in seeds]
    return {RANDOM_INIT: copies, TOKEN_HISTORY: token_history_control(probes)}


def token_history_control(probes: BlindProbeSet) -> np.ndarray:
    """The token-history baseline of a probe set, which needs no model.

    Args:
        probes: B programs with R rows.

    Returns:
        float32 [R, D'], the one-hot tokens read so far and the one-hot input world at each row.

    Source: docs/probing.md, "What is measured".
    """
    return token_history_states(probes.tasks.programs, probes.worlds, probes.labels)
