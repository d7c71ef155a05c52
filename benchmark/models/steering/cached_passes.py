"""Passes over one token after a cache: keys and values are written in place, and blocks before an edit are not run.

Both leave every bit of the result: only copies and repeated computations are saved.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

RESERVED_TOKENS = 16
"""Tokens that can be written in place after what is cached; more are copied as transformers does."""
_PLAIN_LAYER, _WINDOW_LAYER = "DynamicLayer", "DynamicSlidingWindowLayer"
_LENGTH = "cumulative_length"
"""Attribute of a layer with a window: the number of tokens that it has seen."""


def is_plain(cache: Any) -> bool:
    """Whether every layer of a cache holds all keys and values of its own, none of them out of a window."""
    layers = getattr(cache, "layers", [])
    return bool(layers) and all(_holds_all(layer) for layer in layers)


def _holds_all(layer: Any) -> bool:
    """Whether a layer holds all keys and values, with space in its window for a pass."""
    if not isinstance(getattr(layer, "keys", None), torch.Tensor):
        return False
    if type(layer).__name__ == _WINDOW_LAYER:
        return bool(layer.keys.shape[-2] + RESERVED_TOKENS < layer.sliding_window)
    return type(layer).__name__ == _PLAIN_LAYER


def reserve(cache: Any, width: int = 1) -> None:
    """Have a plain cache write in place of copying all that is cached.

    Args:
        cache: the cache.
        width: tokens of a pass; there is space for these, or for `RESERVED_TOKENS` where that is more.
    """
    for layer in cache.layers:
        layer.update = _update_in_place(layer, max(RESERVED_TOKENS, width))


def _update_in_place(layer: Any, space: int) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    # Not a reference of the layer to itself, which would keep its memory until garbage is collected.
    owner = weakref.ref(layer)
    buffers = [_with_space(part, space) for part in (layer.keys, layer.values)]
    length = layer.keys.shape[-2]
    layer.keys, layer.values = (buffer[..., :length, :] for buffer in buffers)

    def update(
        keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layer = owner()
        assert layer is not None
        start = layer.keys.shape[-2]
        stop = start + keys.shape[-2]
        if stop > buffers[0].shape[-2] or layer.keys.data_ptr() != buffers[0].data_ptr():
            result: tuple[torch.Tensor, torch.Tensor] = type(layer).update(layer, keys, values, *args, **kwargs)
            return result
        for buffer, part in zip(buffers, (keys, values), strict=True):
            buffer[..., start:stop, :] = part
        layer.keys, layer.values = (buffer[..., :stop, :] for buffer in buffers)
        if hasattr(layer, _LENGTH):
            layer.cumulative_length = stop
        return layer.keys, layer.values

    return update


def _with_space(part: torch.Tensor, space: int) -> torch.Tensor:
    """A copy of [..., tokens, D] with space for more tokens."""
    *rest, tokens, width = part.shape
    buffer = part.new_empty((*rest, tokens + space, width))
    buffer[..., :tokens, :] = part
    return buffer


@contextmanager
def restored(cache: Any) -> Iterator[None]:
    """Remove from a plain cache what a pass adds, also where it does not run every block."""
    before = [
        {name: vars(layer)[name] for name in ("keys", "values", _LENGTH) if name in vars(layer)}
        for layer in cache.layers
    ]
    try:
        yield
    finally:
        for layer, parts in zip(cache.layers, before, strict=True):
            vars(layer).update(parts)


@contextmanager
def recorded_outputs(blocks: torch.nn.ModuleList, outputs: list[Any]) -> Iterator[None]:
    """Append what each block returns in a pass."""
    handles = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def skipped_blocks(blocks: Sequence[torch.nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """Within, blocks return what they returned in an unedited pass over the same token, without being run."""
    # accelerate replaces the `forward` of a block that it moves between devices; others have that of their class.
    replaced = [vars(block).get("forward") for block in blocks]
    for block, output in zip(blocks, outputs, strict=True):
        block.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for block, forward in zip(blocks, replaced, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward
