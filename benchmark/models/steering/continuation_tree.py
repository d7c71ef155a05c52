"""Continuations of several tokens as a tree after a prefix: one row of tokens scores all of them in one pass.

Tokens that continuations begin with are read once, and each attends to the text before it and to its own beginning. So a
prefix has one row, and one cache, in place of one per continuation.

Letters: `B` prefixes, `C` continuations, `N` nodes, `T` tokens of the text with its nodes, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class ContinuationTree:
    """The tokens of continuations, without the last of each, which is scored but not read.

    Attributes:
        ids: int64 [N], token of each node; a node comes after its parent.
        depth: int64 [N], number of tokens from the end of the prefix to the node.
        attends: bool [N, N], whether a node (row) attends to a node (column): to itself and to those before it on its path.
        paths: per continuation its tokens, as pairs of the position in the pass whose logits predict the token (0 is the
            last token of the prefix, 1 + n is node n) and the token.
    """

    ids: torch.Tensor
    depth: torch.Tensor
    attends: torch.Tensor
    paths: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, words: Sequence[Sequence[int]]) -> ContinuationTree:
        """The tree of the ids of C continuations."""
        distinct = {tuple(word[:stop]) for word in words for stop in range(1, len(word))}
        beginnings = sorted(distinct, key=lambda beginning: (len(beginning), beginning))
        number = {beginning: n for n, beginning in enumerate(beginnings)}
        attends = [[row[: len(column)] == column for column in beginnings] for row in beginnings]
        paths = tuple(
            tuple((0 if at == 0 else 1 + number[tuple(word[:at])], token) for at, token in enumerate(word))
            for word in words
        )
        return cls(
            torch.tensor([beginning[-1] for beginning in beginnings], dtype=torch.long),
            torch.tensor([len(beginning) for beginning in beginnings], dtype=torch.long),
            torch.tensor(attends, dtype=torch.bool).reshape(len(beginnings), len(beginnings)),
            paths,
        )

    def mask_kwargs(self, mask: torch.Tensor, width: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Attention mask and position ids of the last `width` tokens of texts that end with the nodes.

        Args:
            mask: int64 [B, T], 0 where a text is padded.
            width: number of tokens of the pass.
            dtype: type of the model's activations.
        """
        total, count, device = mask.shape[1], len(self.ids), mask.device
        allowed = torch.ones(width, total, dtype=torch.bool, device=device).tril(total - width)
        allowed[width - count :, total - count :] = self.attends.to(device)
        allowed = allowed & mask.bool()[:, None, None]
        added = torch.zeros(allowed.shape, dtype=dtype, device=device)
        added.masked_fill_(~allowed, torch.finfo(dtype).min)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        last = positions[:, total - count - 1, None]
        positions = torch.cat([positions[:, : total - count], last + self.depth.to(device)], 1)
        return {"attention_mask": added, "position_ids": positions[:, -width:]}

    def score(self, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities [B, C], and whether the argmax of the vocabulary begins the best continuation [B].

        Args:
            logits: [B, 1 + N, V] from the last token of the prefix on.
        """
        at, tokens = torch.tensor([pair for path in self.paths for pair in path], device=logits.device).T
        # A position at a time: for a large vocabulary, memory for all of them would cost more than the sums.
        norms = torch.stack([part.float().logsumexp(-1) for part in logits.unbind(1)], 1)
        log_probs = logits[:, at, tokens].double() - norms[:, at].double()
        starts = np.cumsum([0, *(len(path) for path in self.paths[:-1])])
        scores: np.ndarray = np.add.reduceat(log_probs.cpu().numpy(), starts, 1)
        first = np.array([path[0][1] for path in self.paths])
        return scores, logits[:, 0].argmax(-1).cpu().numpy() == first[scores.argmax(1)]
