"""Replace the recurrent state before a token: LSTM cells, and state space models with a cache of recurrent states.

Prompts of one length are run together, since padding would change the state. Edits start the last token of the prefix
from another state.

Letters: `B` prefixes, `D` width of a site, `G` see `words`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from benchmark.errors import ModelError
from benchmark.models.huggingface import CACHE_OUTPUTS, HuggingFaceModel
from benchmark.models.steering.hooks import PassHooks, hook_blocks
from benchmark.models.steering.transformer import PrefixGroup, SteerableTransformer
from benchmark.models.steering.words import (
    AT_PREFIX,
    NEXT_WORDS,
    PrefixTokens,
    are_complete,
    score_words,
    words_to_texts,
)


class RecurrentNetwork(Protocol):
    """A network that reads one token at a time; a state is a list of tensors or a cache, of B rows."""

    @property
    def num_layers(self) -> int:
        """Number of layers with a recurrent state."""
        ...

    def step(self, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Logits [B, width, V] of tokens [B, width] after a state (None at the beginning), and the state after them."""
        ...

    def select(self, state: Any, rows: torch.Tensor) -> Any:
        """A copy of the state of some rows."""
        ...

    def read(self, state: Any) -> list[torch.Tensor]:
        """Recurrent state [B, D] of every layer."""
        ...

    def replace(self, state: Any, layer: int, values: torch.Tensor) -> Any:
        """A copy of the state with that of one layer set to [B, D]."""
        ...


def find_recurrent_network(model: HuggingFaceModel) -> RecurrentNetwork | None:
    """The recurrent network of a model; None if it has no recurrent state, or has attention beside it."""
    cells = [[m for m in block.modules() if isinstance(m, torch.nn.LSTM)] for block in model.blocks]
    if all(len(row) == 1 for row in cells):
        return LstmNetwork(model, [row[0] for row in cells])
    with torch.inference_mode():
        output = model.model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device), use_cache=True)
    cache = next((c for name in CACHE_OUTPUTS if (c := getattr(output, name, None)) is not None), None)
    layers = getattr(cache, "layers", [])
    if layers and all(_is_recurrent(layer) for layer in layers):
        return CacheNetwork(model, len(layers))
    return None


def _is_recurrent(layer: Any) -> bool:
    states = getattr(layer, "recurrent_states", None)
    return isinstance(states, dict) and states.get(0) is not None and not hasattr(layer, "keys")


class LstmNetwork:
    """Blocks with one `torch.nn.LSTM` per block; the state of a layer is its output and its cell, [B, 2 D]."""

    def __init__(self, model: HuggingFaceModel, cells: list[torch.nn.LSTM]) -> None:
        self.model, self.cells = model, cells
        self.num_layers = len(cells)

    def step(self, ids: torch.Tensor, state: list[torch.Tensor] | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See `RecurrentNetwork.step`.

        Raises:
            ModelError: a cell does not run once per pass.
        """
        ends: list[torch.Tensor] = []
        with self._cells_from(state, ends):
            logits: torch.Tensor = self.model.model(input_ids=ids).logits
        if len(ends) != len(self.cells):
            raise ModelError(f"recurrent state: {len(ends)} cells ran in a pass, expected {len(self.cells)}")
        return logits, ends

    @contextmanager
    def _cells_from(self, state: list[torch.Tensor] | None, ends: list[torch.Tensor]) -> Iterator[None]:
        def start(index: int) -> Callable[..., Any]:
            def hook(_: torch.nn.Module, args: tuple[Any, ...]) -> Any:
                if state is None:
                    return args
                hidden, cell = (part[None].contiguous() for part in state[index].chunk(2, -1))
                return (args[0], (hidden, cell))

            return hook

        def end(_: torch.nn.Module, __: Any, output: Any) -> None:
            ends.append(torch.cat([output[1][0][0], output[1][1][0]], -1))

        with ExitStack() as stack:
            for index, cell in enumerate(self.cells):
                stack.callback(cell.register_forward_pre_hook(start(index)).remove)
                stack.callback(cell.register_forward_hook(end).remove)
            yield

    def select(self, state: list[torch.Tensor], rows: torch.Tensor) -> list[torch.Tensor]:
        """See `RecurrentNetwork.select`."""
        return [part[rows.to(part.device)] for part in state]

    def read(self, state: list[torch.Tensor]) -> list[torch.Tensor]:
        """See `RecurrentNetwork.read`."""
        return state

    def replace(self, state: list[torch.Tensor], layer: int, values: torch.Tensor) -> list[torch.Tensor]:
        """See `RecurrentNetwork.replace`."""
        return [*state[:layer], values.to(state[layer]), *state[layer + 1 :]]


class CacheNetwork:
    """State space models whose cache holds recurrent states; tokens after a state are read one by one."""

    def __init__(self, model: HuggingFaceModel, num_layers: int) -> None:
        self.model, self.num_layers = model, num_layers

    def step(self, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """See `RecurrentNetwork.step`."""
        if state is None:
            return self._forward(ids, None)
        state = copy.deepcopy(state)
        logits = []
        for column in range(ids.shape[1]):
            part, state = self._forward(ids[:, column : column + 1], state)
            logits.append(part)
        return torch.cat(logits, 1), state

    def _forward(self, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        kwargs = {} if state is None else {self.model.cache_name: state}
        output = self.model.model(input_ids=ids, use_cache=True, **kwargs)
        return output.logits, next(c for name in CACHE_OUTPUTS if (c := getattr(output, name, None)) is not None)

    def select(self, state: Any, rows: torch.Tensor) -> Any:
        """See `RecurrentNetwork.select`."""
        selected = copy.deepcopy(state)
        selected.reorder_cache(rows)
        return selected

    def read(self, state: Any) -> list[torch.Tensor]:
        """See `RecurrentNetwork.read`."""
        return [layer.recurrent_states[0].flatten(1) for layer in state.layers]

    def replace(self, state: Any, layer: int, values: torch.Tensor) -> Any:
        """See `RecurrentNetwork.replace`."""
        replaced = copy.deepcopy(state)
        states = replaced.layers[layer].recurrent_states
        states[0] = values.to(states[0]).reshape(states[0].shape)
        return replaced


class SteerableRecurrent(SteerableTransformer):
    """A `SteerableModel` whose sites are the recurrent state of each layer before a token, and of all layers.

    Attributes:
        labels_precede_last_word: whether class means are those of the rotation before the last word, which is what the state
            before that word can hold, instead of the rotation after it: those means are mixtures over the last word, and an edit
            by them is shorter than the distance of two values.
    """

    labels_precede_last_word = True

    def __init__(
        self, model: HuggingFaceModel, network: RecurrentNetwork, continuations: Sequence[str] = NEXT_WORDS
    ) -> None:
        super().__init__(model, continuations)
        self.network = network
        self.reads_trees = False
        self.sites = (*(f"recurrent state {i}" for i in range(network.num_layers)), "all recurrent states")

    def _prompt_key(self, item: PrefixTokens) -> tuple[int, ...]:
        return (len(item.prompt),)

    def _prepare_group(self, tokens: Sequence[PrefixTokens], is_tree: bool) -> RecurrentGroup:
        return RecurrentGroup(self, tokens)


class RecurrentGroup(PrefixGroup):
    """Prefixes after prompts of one length, with the recurrent state before the last token."""

    owner: SteerableRecurrent

    def _read_prompts(self) -> None:
        prompts = {tuple(item.prompt): None for item in self.tokens}
        number = {prompt: i for i, prompt in enumerate(prompts)}
        device, network = self.model.device, self.owner.network
        rows = torch.tensor([number[tuple(item.prompt)] for item in self.tokens], device=device)
        rows = rows.repeat_interleave(self.copies)
        ids = torch.tensor([list(prompt) for prompt in prompts], device=device)
        self.prefix_ids = torch.tensor([item.prefix for item in self.tokens], device=device)
        self.prefix_ids = self.prefix_ids.repeat_interleave(self.copies, 0)
        self.tail = self._tails()
        at_prompt = network.select(network.step(ids[:, :-1], None)[1], rows)
        self.last_prompt = ids[rows][:, -1:]
        head = torch.cat([self.last_prompt, self.prefix_ids[:, :-1]], 1)
        self.before = {AT_PREFIX: network.step(head, at_prompt)[1], "prompt": at_prompt}

    def states(self, position: str) -> list[np.ndarray]:
        """Recurrent states before the token at a position, float32 [B, D] per site."""
        layers = self.owner.network.read(self.before[position])
        values = [part[:: self.copies].float().cpu().numpy() for part in layers]
        return [*values, np.concatenate(values, 1)]

    @torch.inference_mode()
    def score(
        self, site: int, values: np.ndarray | None, position: str, ranges: Sequence[Any] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `PrefixGroup.score`; every activation of the pass comes after the recurrent state."""
        network, state = self.owner.network, self.before[position]
        if values is not None:
            edited = torch.from_numpy(np.repeat(values, self.copies, 0)).to(self.model.device)
            widths = [part.shape[1] for part in network.read(state)]
            is_every = site == len(widths)
            parts = edited.split(widths, -1) if is_every else [edited]
            for layer, part in zip(range(len(widths)) if is_every else [site], parts, strict=True):
                state = network.replace(state, layer, part)
        return score_words(self.tokens, self._run_from(state, PassHooks(0, ranges=ranges), position))

    @torch.inference_mode()
    def complete(self, max_new_words: int) -> list[str] | None:
        """See `PrefixGroup.complete`."""
        if self.has_several_tokens:
            return None
        words = torch.tensor([word[0] for word in self.tokens[0].words], device=self.model.device)
        state, ids = self.before[AT_PREFIX], self.prefix_ids[:, -1:]
        written: list[np.ndarray] = []
        while len(written) < max_new_words and not are_complete(written):
            logits, state = self.owner.network.step(ids, state)
            best = logits[:, -1].index_select(-1, words).argmax(-1)
            written.append(best.cpu().numpy())
            ids = words[best][:, None]
        return words_to_texts(written)

    def _run(self, hooks: PassHooks, position: str) -> torch.Tensor:
        return self._run_from(self.before[position], hooks, position)

    @torch.inference_mode()
    def _run_from(self, state: Any, hooks: PassHooks, position: str) -> torch.Tensor:
        """Logits [B * G, 1 + tail, V] from a state; `hooks` apply at the last token of the prefix."""
        network = self.owner.network
        first = self.prefix_ids[:, -1:]
        if position != AT_PREFIX:
            head = torch.cat([self.last_prompt, self.prefix_ids[:, :-1]], 1)
            state = network.step(head, state)[1]
        with hook_blocks(self.model.blocks, hooks):
            logits, state = network.step(first, state)
        if self.tail.shape[1]:
            logits = torch.cat([logits, network.step(self.tail, state)[0]], 1)
        return logits
