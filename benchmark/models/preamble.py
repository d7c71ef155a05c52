"""A common prefix of all prompts, such as a description and solved examples, whose cache is computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

Sharing = Literal["all prompts", "prompts of equal length", "none"]
MASK_WINDOW_TYPES = ("gpt_neo",)
"""Model types with sliding windows that their caches do not report."""


class Preamble:
    """The tokens that all prompts begin with, and the model's cache over them.

    Prompts that share a preamble are padded after it. Models with sliding windows, which would count that padding, and
    models without position ids, which would count it as positions, share it among prompts of equal length, which
    need no padding.

    Args:
        ids: its tokens; empty: prompts share nothing.
        model_type: `model_type` of the configuration.
        takes_position_ids: whether the model takes position ids.
        compute_cache: a function from tokens to the model's cache over them, one row.
    """

    def __init__(
        self, ids: list[int], model_type: str, takes_position_ids: bool, compute_cache: Callable[[list[int]], Any]
    ) -> None:
        self.ids = ids
        self.allows_padding = takes_position_ids and model_type not in MASK_WINDOW_TYPES
        self.compute_cache = compute_cache

    @cached_property
    def cache(self) -> Any:
        """Cache over the preamble, one row."""
        return self.compute_cache(self.ids)

    @cached_property
    def sharing(self) -> Sharing:
        """Which prompts can share the preamble. Its cache must be one that can be copied for several rows, and cropped."""
        if not self.ids or not getattr(self.cache, "is_croppable", False):
            return "none"
        layers = self.cache.layers
        if not all(hasattr(layer, "batch_repeat_interleave") for layer in layers):
            return "none"
        has_windows = any(layer.is_sliding for layer in layers)
        return "all prompts" if self.allows_padding and not has_windows else "prompts of equal length"

    def num_shared(self, rows: Sequence[list[int]]) -> int:
        """Number of tokens that a batch of prompts [B] of token ids takes from the cache: all of the preamble, or 0."""
        length = len(self.ids)
        if self.sharing == "none" or any(row[:length] != self.ids or len(row) <= length + 1 for row in rows):
            return 0
        return length if self.sharing == "all prompts" or len({len(row) for row in rows}) == 1 else 0

    def repeat_cache(self, rows: int) -> Any:
        """A copy of the cache for a number of rows."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache
