"""Adapter for causal language models of `transformers`: generation, and hidden states at the items of a program.

A prompt is prefilled once; a common prefix of all prompts is prefilled once for all of them (`preamble.py`). The key-value
cache, over all but the last token, then serves generation and the teacher-forced pass over the program. Hooks capture
the hidden states of that short pass only, not of the prompt. A cache that cannot be cropped (state space models) is
replaced by one full pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList

from benchmark.errors import ModelError
from benchmark.models.architecture import DTYPES as DTYPES
from benchmark.models.architecture import build_untrained_copy, find_blocks, load_stored_model
from benchmark.models.checkpoint import Checkpoint
from benchmark.models.decoding import Grammar, GrammarMask, GumbelSampler, RefuseNaN, find_program_end, stop_at_end
from benchmark.models.devices.device_map import DeviceMap
from benchmark.models.devices.placement import input_device
from benchmark.models.interface import GREEDY, Decoding, Generation, HiddenStates
from benchmark.models.preamble import Preamble
from benchmark.models.token_alignment import align_tokens, select_word_states
from benchmark.models.tokenizer import load_tokenizer
from benchmark.tasks.prompts import prompt_ids
from karel_env.language import WORDS
from karel_env.syntax.dialects import KAREL

CACHE_OUTPUTS = ("cache", "past_key_values", "cache_params", "state")
"""Names of the cache among the outputs of transformers models."""
LONGEST_WORD = max(WORDS, key=len)
MAX_STATE_BYTES = 1 << 30
"""Memory limit for the hidden states of one pass; a batch that would exceed it is split into groups of prompts."""
PADDING_SENSITIVE_TYPES = ("recurrent_gemma", "rwkv", "xlstm")
"""Model types whose states depend on left padding; their prompts are batched by length."""


@dataclass
class _PrefilledBatch:
    """Left-padded prompts after the prefill pass.

    Attributes:
        ids, mask: token ids and attention mask [B, S].
        cache: cache over all but the last token; None if it cannot be cropped.
        caching: whether the model has a cache of any kind.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any
    caching: bool


class HuggingFaceModel:
    """A `LanguageModel` over a transformers folder.

    Args:
        checkpoint: files of the model.
        dtype: one of `DTYPES`.
        device: torch device such as `cpu` or `cuda`.
        random_seed: initialise the weights from this seed instead of loading the stored ones.
        preamble: common prefix of the prompts; its cache is computed once and shared.

    Raises:
        ModelError: the files cannot be loaded as a causal language model with a fast tokenizer.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: str = "float32",
        device: str = "cpu",
        random_seed: int | None = None,
        preamble: str = "",
    ) -> None:
        tokenizer = self.load_tokenizer(checkpoint)
        model = (
            load_stored_model(checkpoint, dtype, device)
            if random_seed is None
            else build_untrained_copy(checkpoint, dtype, random_seed, device)
        )
        if checkpoint.loading.quantization:
            _quantize(model)
        self._adapt(model, tokenizer, device, preamble, checkpoint.device_map)

    @classmethod
    def from_objects(cls, model: Any, tokenizer: Any, device: str, preamble: str = "") -> HuggingFaceModel:
        """The adapter of a model and a tokenizer in memory, see `memory.MemoryCheckpoint.build`."""
        adapter = cls.__new__(cls)
        adapter._adapt(model, tokenizer, device, preamble)
        return adapter

    def _adapt(
        self, model: Any, tokenizer: Any, device: str, preamble: str, device_map: DeviceMap | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = input_device(model, device, device_map)
        if self.device.type == "cuda":
            # Convolutions, such as Mamba's, would round their inputs to TF32 (10-bit mantissa).
            torch.backends.cudnn.allow_tf32 = False
        self.model.eval()
        self.base = self.model.base_model
        self.blocks = find_blocks(self.base, self.model.config)
        signature = inspect.signature(self.model.forward).parameters
        self.takes_position_ids = "position_ids" in signature
        # transformers 5.24 renamed `past_key_values` to `cache` and warns about the old name.
        self.cache_name = "cache" if "cache" in signature else "past_key_values"
        vocab_size = self.model.config.get_text_config().vocab_size
        token_texts = self.tokenizer.batch_decode([[i] for i in range(vocab_size)])
        pad_id = self.tokenizer.pad_token_id
        # The pad token may be missing or outside the model's vocabulary; any id works, since padding is masked.
        self.padding_id = pad_id if pad_id is not None and pad_id < vocab_size else 0
        end_ids = self.model.generation_config.eos_token_id
        self.ends = frozenset(end_ids if isinstance(end_ids, list) else () if end_ids is None else (end_ids,))
        special_ids = {pad_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id} | self.ends
        # Items of the language stay in answers even if the tokenizer marks them as special tokens.
        self.hidden_token_ids = frozenset(
            i for i in special_ids if i is not None and i < vocab_size and token_texts[i].strip() not in WORDS
        )
        self.opens = torch.tensor([text.count("{") - text.count("}") for text in token_texts])
        self.prefilled: dict[tuple[str, ...], _PrefilledBatch] = {}
        self.groups: set[tuple[str, ...]] = set()
        # The last token of a preamble may merge with the text after it, so it is left to the prompts.
        preamble_ids = prompt_ids(self.tokenizer, preamble)[:-1] if preamble else []
        self.preamble = Preamble(preamble_ids, self.model.config.model_type, self.takes_position_ids, self._cache_of)
        self.grammars: dict[str, Grammar] = {}

    @staticmethod
    def load_tokenizer(checkpoint: Checkpoint) -> Any:
        """Load the model's fast tokenizer, with padding on the left; see `tokenizer.load_tokenizer`."""
        return load_tokenizer(checkpoint)

    @staticmethod
    def max_new_tokens(tokenizer: Any, max_new_words: int) -> int:
        """Number of tokens of a program of `max_new_words` items, each the longest one, plus the end-of-sequence token."""
        text = " " + " ".join([LONGEST_WORD] * max_new_words)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding = GREEDY) -> list[Generation]:
        """See `LanguageModel.generate`."""
        generations: dict[int, Generation] = {}
        for group in self.group_prompts(prompts):
            seeds = tuple(decoding.seeds[i] for i in group) if decoding.seeds else ()
            written = self._generate_group([prompts[i] for i in group], max_new_words, replace(decoding, seeds=seeds))
            generations.update(zip(group, written, strict=True))
        return [generations[i] for i in range(len(prompts))]

    def _generate_group(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding) -> list[Generation]:
        max_new_tokens = self.max_new_tokens(self.tokenizer, max_new_words)
        rows = self.new_tokens(prompts, max_new_tokens, decoding)
        return [self._to_generation(row, decoding.dialect) for row in rows]

    @torch.inference_mode()
    def new_tokens(self, prompts: Sequence[str], max_new_tokens: int, decoding: Decoding = GREEDY) -> list[list[int]]:
        """Generate at most `max_new_tokens` token ids per prompt as one batch; shorter rows are padded."""
        batch = self._prefill(prompts)
        length = batch.ids.shape[1]
        output = self.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            **self._cache_kwargs(batch),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.padding_id,
            logits_processor=self._processors(decoding, *batch.ids.shape),
            stopping_criteria=stop_at_end(decoding.dialect, self.opens, self.decode, length),
        )
        if batch.cache is not None:
            batch.cache.crop(length - 1 - batch.cache.get_seq_length())
        rows: list[list[int]] = output[:, length:].tolist()
        return rows

    def _processors(self, decoding: Decoding, rows: int, prompt_length: int) -> LogitsProcessorList:
        processors: list[Any] = [RefuseNaN()]
        if decoding.constrained:
            if decoding.dialect not in self.grammars:
                self.grammars[decoding.dialect] = Grammar(self.tokenizer, len(self.opens), decoding.dialect)
            processors.append(GrammarMask(self.grammars[decoding.dialect], rows, prompt_length))
        if decoding.temperature:
            processors.append(GumbelSampler(decoding))
        return LogitsProcessorList(processors)

    def _to_generation(self, ids: list[int], dialect: str = KAREL) -> Generation:
        """Cut a row of new tokens at the end of its program or its end-of-sequence token."""
        num_tokens = next((i for i, token in enumerate(ids) if token in self.ends), len(ids))
        is_ended = num_tokens < len(ids)
        text = self.decode(ids[:num_tokens])
        end = find_program_end(text, dialect)
        return Generation(text[:end], num_tokens, is_ended or end is not None)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode new tokens without begin-of-sequence, end-of-sequence and padding tokens; other special tokens stay."""
        text: str = self.tokenizer.decode([i for i in ids if i not in self.hidden_token_ids], skip_special_tokens=False)
        return text

    @torch.inference_mode()
    def hidden_states(self, prompts: Sequence[str], programs: Sequence[str]) -> HiddenStates:
        """See `LanguageModel.hidden_states`."""
        alignments = [align_tokens(self.tokenizer, *pair) for pair in zip(prompts, programs, strict=True)]
        states: dict[int, np.ndarray] = {}
        width = self.model.config.get_text_config().hidden_size
        bytes_per_row = (1 + max(len(alignment.ids) for alignment in alignments)) * (len(self.blocks) + 1) * width * 4
        for group in self.group_prompts(prompts, max_size=max(1, MAX_STATE_BYTES // bytes_per_row)):
            batch = self._prefill([prompts[i] for i in group])
            ids, mask = self._program_batch(batch, [alignments[i].ids for i in group])
            states.update(zip(group, self._read_states(batch, ids, mask), strict=True))
        return select_word_states([states[i] for i in range(len(prompts))], alignments)

    @torch.inference_mode()
    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """See `LanguageModel.log_likelihoods`."""
        token_ids = [align_tokens(self.tokenizer, *pair).ids for pair in zip(prompts, programs, strict=True)]
        sums: dict[int, float] = {}
        for group in self.group_prompts(prompts):
            logits, ids, mask = self.forced_logits([prompts[i] for i in group], [token_ids[i] for i in group])
            log_probs = logits.double().log_softmax(-1)
            token_log_probs = log_probs.gather(-1, ids[..., None])[..., 0] * mask
            sums.update(zip(group, token_log_probs.sum(-1).tolist(), strict=True))
        return [(sums[i], len(program_ids)) for i, program_ids in enumerate(token_ids)]

    @torch.inference_mode()
    def forced_logits(
        self, prompts: Sequence[str], token_ids: Sequence[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits [B, width, V] of the probed pass for each token after the prompts, and those tokens' ids and mask
        [B, width]."""
        batch = self._prefill(prompts)
        ids, mask = self._program_batch(batch, token_ids)
        logits = self._run_forward(self.model, batch, ids, mask, logits_to_keep=ids.shape[1]).logits
        return logits[:, -ids.shape[1] : -1], ids[:, 1:], mask[:, 1:]

    @torch.inference_mode()
    def plain_pass(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """States [L, tokens, D] and logits [tokens, V] of one text in one pass without cache, padding or batch."""
        row = torch.tensor([list(ids)], device=self.device)
        with self._capture_layers(row.shape[1]) as layers:
            output = self.model(input_ids=row, use_cache=False, **self._mask_kwargs(torch.ones_like(row), row.shape[1]))
        return torch.cat(layers), output.logits[0].float().cpu()

    def group_prompts(self, prompts: Sequence[str], max_size: int = 0) -> list[list[int]]:
        """Group prompt indices into batches: all prompts, or those of equal length.

        The lengths must be equal for `PADDING_SENSITIVE_TYPES` and where only such prompts can share the preamble. Groups
        have at most `max_size` prompts; 0 is no limit. Their prefilled batches are kept until other prompts are grouped.
        """
        groups: dict[int, list[int]] = {}
        by_length = (
            self.model.config.model_type in PADDING_SENSITIVE_TYPES
            or self.preamble.sharing == "prompts of equal length"
        )
        for index, prompt in enumerate(prompts):
            groups.setdefault(len(prompt_ids(self.tokenizer, prompt)) if by_length else 0, []).append(index)
        step = max_size or len(prompts)
        parts = [group[start : start + step] for group in groups.values() for start in range(0, len(group), step)]
        self.groups = {tuple(prompts[i] for i in part) for part in parts}
        self.prefilled = {group: batch for group, batch in self.prefilled.items() if group in self.groups}
        return parts

    def _program_batch(
        self, batch: _PrefilledBatch, token_ids: Sequence[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask [B, width]: the last token of each prompt, then the tokens of its program."""
        ids = torch.full((len(token_ids), 1 + max(map(len, token_ids))), self.padding_id)
        mask = torch.zeros_like(ids)
        ids[:, 0], mask[:, 0] = batch.ids[:, -1].cpu(), 1
        for row, program_ids in enumerate(token_ids):
            ids[row, 1 : 1 + len(program_ids)] = torch.tensor(program_ids)
            mask[row, 1 : 1 + len(program_ids)] = 1
        return ids.to(self.device), mask.to(self.device)

    def _prefill(self, prompts: Sequence[str]) -> _PrefilledBatch:
        """Prefill prompts; the batches of the last grouped prompts are kept, since reading often follows generation."""
        group = tuple(prompts)
        if group in self.prefilled:
            return self.prefilled[group]
        if group not in self.groups:
            self.prefilled.clear()
        rows = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        num_shared = self.preamble.num_shared(rows)
        ids, mask = self.pad_prompts(rows, num_shared)
        num_new = ids.shape[1] - 1 - num_shared
        output = self.model(
            input_ids=ids[:, num_shared:-1],
            use_cache=True,
            logits_to_keep=1,
            **self._mask_kwargs(mask[:, :-1], num_new),
            **({self.cache_name: self.preamble.repeat_cache(len(prompts))} if num_shared else {}),
        )
        cache = getattr(output, self.cache_name, None)
        if cache is None or not getattr(cache, "is_croppable", False):
            return _PrefilledBatch(
                ids, mask, None, any(getattr(output, name, None) is not None for name in CACHE_OUTPUTS)
            )
        # After a prompt longer than its window, a sliding layer can only be cropped to the entries it has stored.
        cache.activate_past_recording()
        batch = _PrefilledBatch(ids, mask, cache, True)
        self.prefilled[group] = batch
        return batch

    def pad_prompts(self, rows: list[list[int]], num_shared: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask [B, S] of prompts, padded on the left, or after their first `num_shared` tokens."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.padding_id)
        mask = torch.zeros_like(ids)
        for row_index, row in enumerate(rows):
            ids[row_index, :num_shared], mask[row_index, :num_shared] = (
                torch.tensor(row[:num_shared], dtype=ids.dtype),
                1,
            )
            ids[row_index, width - len(row) + num_shared :] = torch.tensor(row[num_shared:])
            mask[row_index, width - len(row) + num_shared :] = 1
        return ids.to(self.device), mask.to(self.device)

    @torch.inference_mode()
    def _cache_of(self, ids: list[int]) -> Any:
        """Cache over one row of tokens; None if the model has none."""
        row = torch.tensor([ids], device=self.device)
        output = self.model(
            input_ids=row, use_cache=True, logits_to_keep=1, **self._mask_kwargs(torch.ones_like(row), row.shape[1])
        )
        return getattr(output, self.cache_name, None)

    def _cache_kwargs(self, batch: _PrefilledBatch) -> dict[str, Any]:
        """Keyword arguments that pass the cache to the model and switch it on, which some configurations turn off.

        Without any cache, `use_cache=False` is needed: transformers would otherwise pass only the newest token.
        """
        if batch.cache is None:
            return {} if batch.caching else {"use_cache": False}
        return {self.cache_name: batch.cache, "use_cache": True}

    def _mask_kwargs(self, mask: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
        """Keyword arguments: attention mask and, if the model takes them, position ids of the last `width` tokens."""
        kwargs = {"attention_mask": mask}
        if self.takes_position_ids:
            kwargs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        return kwargs

    def _read_states(self, batch: _PrefilledBatch, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        """float32 [B, width, L, D], hidden states at the tokens `ids` [B, width], which begin with the prompt's last token."""
        width = ids.shape[1]
        with self._capture_layers(width) as layers:
            output = self._run_forward(self.base, batch, ids, mask)
        last = output.last_hidden_state[:, -width:].float().cpu()
        if last.shape == layers[-1].shape:  # else projected to another width after the blocks, as in OPT-350M
            layers[-1] = last
        return torch.stack(layers, 2).numpy()

    def _run_forward(
        self, module: Any, batch: _PrefilledBatch, ids: torch.Tensor, mask: torch.Tensor, **kwargs: Any
    ) -> Any:
        """Run a module on `ids` [B, width] after the prompts; the cache is cropped back afterwards."""
        full_mask = torch.cat([batch.mask[:, :-1], mask], 1)
        cache_kwargs = self._cache_kwargs(batch)
        tokens = ids if batch.cache is not None else torch.cat([batch.ids[:, :-1], ids], 1)
        mask_kwargs = self._mask_kwargs(full_mask, tokens.shape[1])
        output = module(input_ids=tokens, **(cache_kwargs or {"use_cache": False}), **mask_kwargs, **kwargs)
        if batch.cache is not None:
            batch.cache.crop(-ids.shape[1])
        return output

    @contextmanager
    def _capture_layers(self, width: int) -> Iterator[list[torch.Tensor]]:
        """Record the input of every block and the output of the last one, at the last `width` tokens."""
        layers: list[torch.Tensor] = []

        def record_input(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            block_input = args[0] if args else kwargs["hidden_states"]
            layers.append(block_input[:, -width:].float().cpu())

        def record_output(_: torch.nn.Module, __: Any, block_output: Any) -> None:
            record_input(_, block_output if isinstance(block_output, tuple) else (block_output,), {})

        handles = [block.register_forward_pre_hook(record_input, with_kwargs=True) for block in self.blocks]
        handles.append(self.blocks[-1].register_forward_hook(record_output))
        try:
            yield layers
        finally:
            for handle in handles:
                handle.remove()


def _quantize(model: torch.nn.Module) -> None:
    """Quantize linear layers to int8 weights with one scale per output; products use the model's dtype."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ModelError("--quantization int8: needs torchao; pip install torchao") from error
    quantize_(model, Int8WeightOnlyConfig())
