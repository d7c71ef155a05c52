"""Replace the input of a block at one token.

A prompt is read once for all its prefixes, and what precedes the last token of the prefix is cached; an edit then costs a
pass over that token alone, and over the tokens of continuations of several tokens, which are a tree where the model
attends as a mask says. Without a cache that can be cropped, every pass reads the full text. Prefixes without a tree are
grouped so that no token needs padding after the prompt.

Letters: `B` prefixes, `C` continuations, `D` width of a site, `V` vocabulary, `G` see `words`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmark.errors import ModelError
from benchmark.models.huggingface import CACHE_OUTPUTS, PADDING_SENSITIVE_TYPES, HuggingFaceModel
from benchmark.models.json_files import key_width
from benchmark.models.steering.cached_passes import (
    RESERVED_TOKENS,
    is_plain,
    recorded_outputs,
    reserve,
    restored,
    skipped_blocks,
)
from benchmark.models.steering.continuation_tree import ContinuationTree
from benchmark.models.steering.hooks import PassHooks, hook_blocks
from benchmark.models.steering.words import (
    AT_PREFIX,
    NEXT_WORDS,
    PrefixTokens,
    PreparedTokens,
    are_complete,
    num_copies,
    score_words,
    words_to_texts,
)
from benchmark.models.token_alignment import align_tokens
from benchmark.tasks.prompts import prompt_ids

if TYPE_CHECKING:
    from benchmark.models.steering.differentiable import DifferentiableTokens

_MAX_ROWS = 256
"""Largest number of rows of one forward pass."""
_TYPICAL_TOKENS, _MAX_CACHE_BYTES = 256, 1 << 28
"""Tokens of a prompt, and bytes of the cache, by which the rows of a pass are limited."""
_WINDOW_NAMES = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size")
_MAX_CHECKED_ROWS = 4
_TREE_TOLERANCE, _HALF_TREE_TOLERANCE = 1e-3, 0.3
"""Largest difference in nats of the scores of a tree and of a row per continuation, in float32 and in types of 16 bits."""


PrefixAlignment = tuple[list[int], tuple[tuple[int, ...], ...]]
"""Ids of a prefix after its prompt, and of each continuation after it."""


class SteerableTransformer:
    """A `SteerableModel` whose sites are the inputs of the blocks.

    Args:
        model: the model.
        continuations: what is scored after a prefix, canonical text; the six words by default.
    """

    def __init__(self, model: HuggingFaceModel, continuations: Sequence[str] = NEXT_WORDS) -> None:
        self.model, self.continuations = model, tuple(continuations)
        self.sites = tuple(f"block {i}" for i in range(len(model.blocks)))
        config = model.model.config.get_text_config()
        cached_width = key_width(config.to_dict(), config.hidden_size)
        bytes_per_row = _TYPICAL_TOKENS * len(model.blocks) * 2 * cached_width * 4
        self.batch_rows = max(1, min(_MAX_ROWS, _MAX_CACHE_BYTES // bytes_per_row))
        self.prompt_tokens: dict[str, list[int]] = {}
        self.prefix_tokens: dict[str, PrefixAlignment] = {}
        self.is_line_enough: bool | None = None
        self.is_skippable: dict[int, bool] = {}
        self.reads_trees: bool | None = None
        self.window = min(_windows(config), default=math.inf)
        self.has_solved_examples = self.continuations != NEXT_WORDS

    def prepare(self, prompts: Sequence[str], prefixes: Sequence[str]) -> PreparedTokens:
        """See `SteerableModel.prepare`."""
        tokens = [self._tokens(prompt, prefix) for prompt, prefix in zip(prompts, prefixes, strict=True)]
        with_trees = self._may_read_trees(tokens)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for row, item in enumerate(tokens):
            is_tree = with_trees and num_copies(item) > 1
            # The mask of a tree leaves padding before a prefix out; other prefixes of a group have one length.
            length = 0 if is_tree else len(item.prefix)
            groups.setdefault((is_tree, item.words, length, *self._prompt_key(item)), []).append(row)
        parts = []
        for (is_tree, *_), rows in groups.items():
            step = max(1, self.batch_rows // (1 if is_tree else num_copies(tokens[rows[0]])))
            for start in range(0, len(rows), step):
                chunk = rows[start : start + step]
                parts.append((np.array(chunk), self._prepare_group([tokens[i] for i in chunk], is_tree)))
        return PreparedTokens(len(tokens), len(self.continuations), parts, self.model, prompts, prefixes)

    def prepare_differentiable(
        self, prompts: Sequence[str], prefixes: Sequence[str], site: int
    ) -> tuple[DifferentiableTokens, np.ndarray]:
        """Prefixes whose word scores can be differentiated by the state of a site, and that state, float32 [B, D].

        Raises:
            ModelError: the network, or its tokenizer, does not allow it.
        """
        from benchmark.models.steering.differentiable import DifferentiableTokens

        prepared = self.prepare(prompts, prefixes)
        states = prepared.states()[site]
        return DifferentiableTokens(prepared, site), states

    def _tokens(self, prompt: str, prefix: str) -> PrefixTokens:
        """Tokens of a prefix; those after the prompt are the same after every prompt, which ends with the header."""
        if prompt not in self.prompt_tokens:
            self.prompt_tokens[prompt] = prompt_ids(self.model.tokenizer, prompt)
        if prefix not in self.prefix_tokens:
            self.prefix_tokens[prefix] = self._align_short(prompt, prefix)
        return PrefixTokens(self.prompt_tokens[prompt], *self.prefix_tokens[prefix])

    def _align_short(self, prompt: str, prefix: str) -> PrefixAlignment:
        """As `_align`, after the last line of the prompt where that gave the same tokens the first time: it is faster."""
        line = prompt[prompt.rfind("\n") + 1 :]
        if self.is_line_enough is None:
            aligned = self._align(prompt, prefix)
            try:
                self.is_line_enough = self._align(line, prefix) == aligned
            except ModelError:
                self.is_line_enough = False
            return aligned
        return self._align(line if self.is_line_enough else prompt, prefix)

    def _align(self, prompt: str, prefix: str) -> PrefixAlignment:
        """Tokens of a prefix after a prompt, and of each continuation after both."""
        count = len(prefix.split(" "))
        aligned = [align_tokens(self.model.tokenizer, prompt, f"{prefix} {word}") for word in self.continuations]
        ids = [a.ids[: int(a.first[count]) - 1] for a in aligned]
        if any(row != ids[0] for row in ids):
            raise ModelError("tokenizer: the tokens of a prefix depend on the word after it; cannot be edited")
        return ids[0], tuple(tuple(a.ids[int(a.first[count]) - 1 :]) for a in aligned)

    def _prompt_key(self, item: PrefixTokens) -> tuple[int, ...]:
        """What prompts of one group share: their length, where padding would change states or part their common beginning."""
        padded = self.model.model.config.model_type not in PADDING_SENSITIVE_TYPES
        return () if padded and not self.has_solved_examples else (len(item.prompt),)

    def _may_read_trees(self, tokens: Sequence[PrefixTokens]) -> bool:
        """Whether continuations of several tokens are read as trees; tried on the first prefixes that have any."""
        items = [item for item in tokens if num_copies(item) > 1]
        if not items or self.reads_trees is False:
            return False
        num_tokens = (max(len(item.prompt) for item in items), max(len(item.prefix) for item in items))
        num_nodes = max(sum(map(len, item.words)) for item in items)
        if sum(num_tokens) + max(num_nodes, RESERVED_TOKENS) >= self.window:
            return False
        if self.reads_trees is None:
            self.reads_trees = self._try_tree(items)
        return self.reads_trees

    def _try_tree(self, tokens: Sequence[PrefixTokens]) -> bool:
        """Whether a tree gives the first of some prefixes the scores of a row per continuation."""
        first = tokens[0]
        alike = [t for t in tokens if (t.words, self._prompt_key(t)) == (first.words, self._prompt_key(first))]
        checked = alike[:_MAX_CHECKED_ROWS]
        copies = [PrefixGroup(self, [item]) for item in checked]
        if not self.model.takes_position_ids or not all(is_plain(group.cache) for group in copies):
            return False
        tree = self._prepare_group(checked, True)
        try:
            scores = tree.score(0, None, AT_PREFIX, None)[0]
        except Exception:  # a network that takes no mask of every query and key may raise anything
            return False
        expected = np.concatenate([group.score(0, None, AT_PREFIX, None)[0] for group in copies])
        is_float32 = self.model.model.dtype == torch.float32
        tolerance = _TREE_TOLERANCE if is_float32 else _HALF_TREE_TOLERANCE
        return bool(np.abs(scores - expected).max() <= tolerance)

    def _prepare_group(self, tokens: Sequence[PrefixTokens], is_tree: bool) -> PrefixGroup:
        return PrefixGroup(self, tokens, ContinuationTree.of(tokens[0].words) if is_tree else None)


def _windows(config: Any) -> list[int]:
    """The windows of attention that a configuration names, in tokens."""
    values = [getattr(config, name, None) for name in _WINDOW_NAMES]
    return [value for value in values if isinstance(value, int)]


class PrefixGroup:
    """Prefixes after their prompts, with what precedes their last token cached.

    Args:
        owner: the model.
        tokens: the prefixes, all with the same continuations, and without a tree of one length.
        tree: the continuations as a tree; None for a row per continuation where they have several tokens.
    """

    def __init__(
        self, owner: SteerableTransformer, tokens: Sequence[PrefixTokens], tree: ContinuationTree | None = None
    ) -> None:
        self.owner, self.model, self.tokens, self.tree = owner, owner.model, tokens, tree
        self.copies = 1 if tree is not None else num_copies(tokens[0])
        self.natural: dict[str, list[torch.Tensor]] = {}
        self.outputs: list[Any] = []
        with torch.inference_mode():
            self._read_prompts()

    def _read_prompts(self) -> None:
        prompts = {tuple(item.prompt): None for item in self.tokens}
        number = {prompt: i for i, prompt in enumerate(prompts)}
        rows = [number[tuple(item.prompt)] for item in self.tokens]
        self.rows = torch.tensor(rows, device=self.model.device).repeat_interleave(self.copies)
        ids, mask = self.model.pad_prompts([list(prompt) for prompt in prompts])
        self.ids, self.mask = ids[self.rows], mask[self.rows]
        beginning = self._read_beginning(ids)
        start = 0 if beginning is None else beginning.get_seq_length()
        self.prompt_cache = self._fill(beginning, ids[:, start:-1], mask[:, :-1])
        prefixes = self.model.pad_prompts([item.prefix for item in self.tokens])
        self.prefix_ids, self.prefix_mask = (part.repeat_interleave(self.copies, 0) for part in prefixes)
        self.tail = self._tails()
        self.cache = None
        if self.prompt_cache is not None:
            cache = self._select(self.prompt_cache)
            head = torch.cat([self.ids[:, -1:], self.prefix_ids[:, :-1]], 1)
            self.cache = self._fill(cache, head, self._mask(head.shape[1] - 1))
            if is_plain(self.cache):
                reserve(self.cache, 1 + self.tail.shape[1])

    def _read_beginning(self, ids: torch.Tensor) -> Any:
        """A cache over the common beginning of prompts [B, T] of one length, read for one of them; None without one."""
        differs = (ids[:, :-1] != ids[:1, :-1]).any(0).nonzero()
        length = int(differs[0]) if len(differs) else 0
        if not self.owner.has_solved_examples or length == 0:
            return None
        cache = self._fill(None, ids[:1, :length], self.mask.new_ones(1, length))
        if cache is not None:
            cache.batch_repeat_interleave(len(ids))
        return cache

    def _mask(self, extra: int) -> torch.Tensor:
        """Attention mask of the prompts and `extra` tokens after them."""
        after = self.mask.new_ones(len(self.mask), max(0, extra - self.prefix_mask.shape[1]))
        return torch.cat([self.mask, self.prefix_mask[:, :extra], after], 1)

    def _tails(self) -> torch.Tensor:
        """int64 [B * G, width], tokens of the continuations but their last: nodes of the tree, or padded at the end."""
        if self.tree is not None:
            return self.tree.ids.to(self.model.device).expand(len(self.tokens), -1)
        width = max(len(word) for word in self.tokens[0].words) - 1
        rows = [list(word[:-1]) for item in self.tokens for word in item.words[: self.copies]]
        padded = [row + [self.model.padding_id] * (width - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device=self.model.device).reshape(len(rows), width)

    def _fill(self, cache: Any, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        """Run tokens after a cache and return the longer cache; None if its rows cannot be selected, or it cannot be
        cropped again."""
        if ids.shape[1] == 0:
            return cache
        model = self.model
        kwargs = {} if cache is None else {model.cache_name: cache}
        output = model.model(
            input_ids=ids, use_cache=True, logits_to_keep=1, **model._mask_kwargs(mask, ids.shape[1]), **kwargs
        )
        filled = next((c for name in CACHE_OUTPUTS if (c := getattr(output, name, None)) is not None), None)
        if filled is None or not getattr(filled, "is_croppable", False):
            return None
        if not all(hasattr(layer, "batch_select_indices") for layer in filled.layers):
            return None
        if cache is None:
            filled.activate_past_recording()
        return filled

    def _select(self, cache: Any) -> Any:
        selected = copy.deepcopy(cache)
        # Indices in main memory select from keys of any device.
        is_spread = getattr(self.model.model, "hf_device_map", None) is not None
        selected.batch_select_indices(self.rows.cpu() if is_spread else self.rows)
        return selected

    @property
    def has_several_tokens(self) -> bool:
        """Whether a continuation has more than one token."""
        return self.copies > 1 or self.tail.shape[1] > 0

    def states(self, position: str) -> list[np.ndarray]:
        """Inputs of the blocks at a position, float32 [B, D] each."""
        return [part[:: self.copies].numpy() for part in self._natural(position)[:-1]]

    def activations(self) -> list[np.ndarray]:
        """Inputs of the blocks and output of the last one at the prefix, float32 [B, D] each."""
        return [part[:: self.copies].numpy() for part in self._natural(AT_PREFIX)]

    def _natural(self, position: str) -> list[torch.Tensor]:
        """Activations [B * G, D] of an unedited run at a position."""
        if position not in self.natural:
            hooks = PassHooks(self._column(position))
            self._run(hooks, position)
            self.natural[position] = hooks.recorded
        return self.natural[position]

    def _to_copies(self, values: np.ndarray, site: int, position: str) -> torch.Tensor:
        """States [B, D] for each copy of a row, [B * G, D].

        Copies of a row may differ by rounding. That difference stays, so that an edit by zero changes no bit.
        """
        copied = torch.from_numpy(values).repeat_interleave(self.copies, 0)
        if self.copies > 1:
            own = self._natural(position)[site]
            first = own[:: self.copies].repeat_interleave(self.copies, 0)
            copied = torch.where(own == first, copied, copied + (own - first))
        return copied.to(self.model.device)

    def _column(self, position: str) -> int:
        return self.tail.shape[1] + (0 if position == AT_PREFIX else self.prefix_ids.shape[1])

    @torch.inference_mode()
    def score(
        self, site: int, values: np.ndarray | None, position: str, ranges: Sequence[Any] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities [B, 6] and whether the argmax of the vocabulary begins the best word [B]."""
        hooks = PassHooks(self._column(position), site, ranges=ranges)
        if values is not None:
            hooks.values = self._to_copies(values, site, position)
        elif ranges is not None:
            hooks.site = -1
        logits = self._run_from_site(hooks) if self._may_skip(hooks, position) else self._run(hooks, position)
        if values is not None and hooks.fired != 1:
            raise ModelError(
                f"{self.owner.sites[site]}: the hook fired {hooks.fired} times in a pass, expected once; this network "
                "cannot be edited there"
            )
        return score_words(self.tokens, logits) if self.tree is None else self.tree.score(logits)

    def _may_skip(self, hooks: PassHooks, position: str) -> bool:
        """Whether blocks before the edit need not be run: what they compute is that of an unedited pass."""
        is_edit = hooks.values is not None and hooks.site > 0 and position == AT_PREFIX
        return is_edit and is_plain(self.cache) and self.owner.is_skippable.get(hooks.site, True)

    def _run_from_site(self, hooks: PassHooks) -> torch.Tensor:
        """Logits as of `_run`; the first time that a site is edited, both ways are compared."""
        if not self.outputs:
            with recorded_outputs(self.model.blocks, self.outputs):
                self._run(PassHooks(0), AT_PREFIX)
        site = hooks.site
        with skipped_blocks(list(self.model.blocks)[:site], self.outputs[:site]):
            logits = self._run(hooks, AT_PREFIX)
        if site in self.owner.is_skippable:
            return logits
        complete = PassHooks(hooks.column, site, hooks.values, hooks.ranges)
        expected = self._run(complete, AT_PREFIX)
        self.owner.is_skippable[site] = torch.equal(logits, expected)
        return expected

    @torch.inference_mode()
    def complete(self, max_new_words: int) -> list[str] | None:
        """The words written greedily after each prefix; None where a word has several tokens or nothing is cached."""
        if self.has_several_tokens or self.cache is None:
            return None
        words = torch.tensor([word[0] for word in self.tokens[0].words], device=self.model.device)
        ids, length = self.prefix_ids[:, -1:], self.prefix_ids.shape[1]
        written: list[np.ndarray] = []
        while len(written) < max_new_words and not are_complete(written):
            logits = self.model.model(
                input_ids=ids,
                logits_to_keep=1,
                use_cache=True,
                **{self.model.cache_name: self.cache},
                **self.model._mask_kwargs(self._mask(length + len(written)), 1),
            ).logits
            best = logits[:, -1].index_select(-1, words).argmax(-1)
            written.append(best.cpu().numpy())
            ids = words[best][:, None]
        self.cache.crop(-len(written))
        return words_to_texts(written)

    @torch.inference_mode()
    def _run(self, hooks: PassHooks, position: str) -> torch.Tensor:
        """Logits [B * G, 1 + tail, V] from the last token of the prefix on."""
        tokens = torch.cat([self.prefix_ids[:, -1:], self.tail], 1)
        cache = self.cache
        if cache is None:
            tokens = torch.cat([self.ids, self.prefix_ids, self.tail], 1)
        elif position != AT_PREFIX:
            cache = self._select(self.prompt_cache)
            tokens = torch.cat([self.ids[:, -1:], self.prefix_ids, self.tail], 1)
        mask = self._mask(self.prefix_ids.shape[1] + self.tail.shape[1])
        keep, width = 1 + self.tail.shape[1], tokens.shape[1]
        mask_kwargs = (
            self.model._mask_kwargs(mask, width)
            if self.tree is None
            else self.tree.mask_kwargs(mask, width, self.model.model.dtype)
        )
        kwargs: dict[str, Any] = {"use_cache": False} if cache is None else {
            self.model.cache_name: cache, "use_cache": True
        }  # fmt: skip
        with hook_blocks(self.model.blocks, hooks), restored(cache) if is_plain(cache) else nullcontext():
            output = self.model.model(input_ids=tokens, logits_to_keep=keep, **mask_kwargs, **kwargs)
        if cache is not None and not is_plain(cache):
            cache.crop(-tokens.shape[1])
        logits: torch.Tensor = output.logits[:, -keep:]
        return logits
