"""Word scores as a differentiable function of one state, for edits that are trained by gradient.

What precedes the last token of a prefix is cached as in other passes; the pass over that token is recorded by autograd from
the edited state on. Weights take no gradient.

Letters: `B` prefixes, `D` width of a site, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from benchmark.errors import ModelError
from benchmark.models.steering.cached_passes import is_plain, recorded_outputs, restored, skipped_blocks
from benchmark.models.steering.hooks import PassHooks, hook_blocks
from benchmark.models.steering.recurrent import LstmNetwork, RecurrentGroup
from benchmark.models.steering.transformer import PrefixGroup
from benchmark.models.steering.words import AT_PREFIX, PreparedTokens


class _GradientPass(Protocol):
    def log_probs(self, states: torch.Tensor) -> torch.Tensor:
        """float [B, V], log-probabilities of the next token after the state [B, D] is set."""
        ...


class DifferentiableTokens:
    """Prepared prefixes whose word scores can be differentiated by the state of one site.

    Args:
        prepared: the prefixes; caches of blocks before the site are given up.
        site: index of the site.

    Raises:
        ModelError: the network, or its tokenizer, does not allow it.
    """

    def __init__(self, prepared: PreparedTokens, site: int) -> None:
        prepared.model.model.requires_grad_(False)
        self.count = prepared.count
        self.parts = [(torch.from_numpy(rows), _open_pass(group, site)) for rows, group in prepared.parts]
        self.words = [
            torch.tensor([[word[0] for word in item.words] for item in group.tokens]) for _, group in prepared.parts
        ]

    def word_scores(self, states: torch.Tensor) -> torch.Tensor:
        """float [B, 6], log-probabilities of the six continuations after the state float [B, D] is set."""
        scores = [
            gradient_pass.log_probs(states[rows]).gather(1, words)
            for (rows, gradient_pass), words in zip(self.parts, self.words, strict=True)
        ]
        order = torch.cat([rows for rows, _ in self.parts]).argsort()
        return torch.cat(scores)[order]


def _open_pass(group: Any, site: int) -> _GradientPass:
    if group.has_several_tokens:
        raise ModelError("a word has several tokens; a subspace is trained on models with one token per word")
    if isinstance(group, RecurrentGroup):
        return _RecurrentPass(group, site)
    return _TransformerPass(group, site)


class _TransformerPass:
    """A pass from the input of a block on."""

    def __init__(self, group: PrefixGroup, site: int) -> None:
        if group.cache is None or not is_plain(group.cache):
            raise ModelError("the cache of the network cannot be restored; a subspace is trained on plain caches")
        if not group.outputs:
            with recorded_outputs(group.model.blocks, group.outputs):
                group._run(PassHooks(0), AT_PREFIX)
        self.group, self.site, self.cache = group, site, group.cache
        self.outputs = [_cloned(output) for output in group.outputs[:site]]
        self.mask = group._mask(group.prefix_ids.shape[1]).clone()
        self.ids = group.prefix_ids[:, -1:].clone()
        group.prompt_cache = None
        for index, layer in enumerate(self.cache.layers):
            # Keys and values of blocks that are not run need no memory, only their length.
            layer.__dict__.pop("update", None)
            for name in ("keys", "values"):
                part = getattr(layer, name)
                setattr(layer, name, part.new_zeros(1).clone().expand(part.shape) if index < site else part.clone())

    def log_probs(self, states: torch.Tensor) -> torch.Tensor:
        model, hooks = self.group.model, PassHooks(0, self.site, states.to(self.group.model.device))
        blocks: Sequence[torch.nn.Module] = list(model.blocks)[: self.site]
        with hook_blocks(model.blocks, hooks), restored(self.cache), skipped_blocks(blocks, self.outputs):
            output = model.model(
                input_ids=self.ids,
                logits_to_keep=1,
                use_cache=True,
                **{model.cache_name: self.cache},
                **model._mask_kwargs(self.mask, 1),
            )
        if hooks.fired != 1:
            raise ModelError(f"the hook fired {hooks.fired} times in a pass, expected once; no subspace can be trained")
        return output.logits[:, -1].float().log_softmax(-1).cpu()


class _RecurrentPass:
    """A pass from the recurrent state before the last token on."""

    def __init__(self, group: RecurrentGroup, site: int) -> None:
        if not isinstance(group.owner.network, LstmNetwork):
            raise ModelError("recurrent states in a cache take no gradient; a subspace is trained on LSTM cells")
        self.network: LstmNetwork = group.owner.network
        self.site, self.state = site, [part.clone() for part in group.before[AT_PREFIX]]
        self.ids = group.prefix_ids[:, -1:].clone()

    def log_probs(self, states: torch.Tensor) -> torch.Tensor:
        state, widths = self.state, [part.shape[1] for part in self.state]
        is_every = self.site == len(widths)
        parts = states.split(widths, -1) if is_every else (states,)
        for layer, part in zip(range(len(widths)) if is_every else [self.site], parts, strict=True):
            state = self.network.replace(state, layer, part)
        logits, _ = self.network.step(self.ids, state)
        return logits[:, -1].float().log_softmax(-1).cpu()


def _cloned(output: Any) -> Any:
    """A copy of what a block returned whose tensors autograd can use."""
    if isinstance(output, torch.Tensor):
        return output.clone()
    if isinstance(output, tuple):
        return tuple(_cloned(part) for part in output)
    return output
