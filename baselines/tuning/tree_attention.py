"""Attention in a row of tokens that is a prefix tree, a block of queries at a time with the keys that they attend to.

Letters: `N` rows, `T` tokens of a row, `Q K` queries and keys of a block, `D` width of a head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

BLOCK = 128
"""Q; measured on one core: 39 ms per layer of 1,333 tokens instead of 192 ms for all queries with all keys."""
IMPLEMENTATION = "prefix_tree"
Block = tuple[slice, torch.Tensor, torch.Tensor]
"""Queries, int64 [K] keys, and mask [Q, K] that is added to the scores."""


def make_blocks(mask: np.ndarray, device: str = "cpu") -> list[Block]:
    """The blocks of a mask, bool [T, T], on a device."""
    blocks = []
    for start in range(0, len(mask), BLOCK):
        part = mask[start : start + BLOCK]
        keys = np.flatnonzero(part.any(0))
        added = torch.zeros(len(part), len(keys)).masked_fill_(torch.from_numpy(~part[:, keys]), float("-inf"))
        blocks.append((slice(start, start + len(part)), torch.from_numpy(keys).to(device), added.to(device)))
    return blocks


def make_causal_mask(num_tokens: int) -> torch.Tensor:
    """Mask [T, T] that is added to the scores of texts without a common beginning.

    On the CPU in bfloat16 the backward pass of the fused attention takes twice as long as that of plain products.
    """
    return torch.full((num_tokens, num_tokens), float("-inf")).triu(1)


def tree_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, blocks: list[Block] | None = None, causal_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
    """An attention function of transformers; without `blocks` or `causal_mask`, or with what it does not know, the fused one.

    Args:
        module: the attention layer.
        query, key, value: [N, heads, T, D]; keys and values may have fewer heads. N is 1 with `blocks`.
        attention_mask: mask for the fused attention.
        blocks: see `make_blocks`; passed to the model with its inputs.
        causal_mask: see `make_causal_mask`; passed to the model with its inputs.
        kwargs: further arguments of attention functions.
    """
    masks = blocks if causal_mask is None else causal_mask
    if masks is None or any(kwargs.get(name) is not None for name in ("softcap", "s_aux")):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    scaling = kwargs.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if causal_mask is not None:
        repeats = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
        output = _attend(query, key, value, scaling, causal_mask)
    else:
        assert blocks is not None
        output = _attend_in_blocks(query, key, value, scaling, blocks)
    return output.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, added: torch.Tensor
) -> torch.Tensor:
    scores = (query @ key.transpose(-2, -1)).float() * scaling + added
    return scores.softmax(-1).to(query.dtype) @ value


# Compiled, it would be compiled again for every number and size of blocks.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, blocks: list[Block]
) -> torch.Tensor:
    repeats = query.shape[1] // key.shape[1]
    outputs = []
    for queries, keys, added in blocks:
        selected, values = (x[0].index_select(1, keys).repeat_interleave(repeats, 0) for x in (key, value))
        outputs.append(_attend(query[0, :, queries], selected, values, scaling, added))
    return torch.cat(outputs, 1)[None]


def install(model: Any) -> bool:
    """Let a model use `tree_attention` where it would use the fused attention; returns whether it does."""
    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return False
    AttentionInterface.register(IMPLEMENTATION, tree_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
    model.set_attn_implementation(IMPLEMENTATION)
    return True
