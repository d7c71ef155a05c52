"""Tiny models of many families with random weights, and sub-word tokenizers trained on the spot."""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT

SUITE = load_suite("smoke")
END = "<end>"
VOCABULARY = 310
"""So few that words stay in pieces."""
WINDOW = 16
"""Of sliding attention, in tokens: fewer than a prompt or an answer has."""
LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2}
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", GPT),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        {"hidden_size": 32, "num_layers": 4, "num_heads": 2, "attention_types": [[["global", "local"], 2]], "window_size": 8},
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", {**LLAMA, "num_attention_heads": 2}),
    "gpt-j": ("GPTJForCausalLM", {**GPT, "rotary_dim": 8}),
    "codegen": ("CodeGenForCausalLM", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "opt": (
        "OPTForCausalLM",
        {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32},
    ),
    "opt-projected": (
        "OPTForCausalLM",
        {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16,
         "do_layer_norm_before": False},
    ),
    "llama": ("LlamaForCausalLM", LLAMA),
    "qwen2": ("Qwen2ForCausalLM", LLAMA),
    "qwen3": ("Qwen3ForCausalLM", LLAMA),
    "mistral": ("MistralForCausalLM", {**LLAMA, "sliding_window": WINDOW}),
    "gemma": ("GemmaForCausalLM", LLAMA),
    "gemma2": ("Gemma2ForCausalLM", {**LLAMA, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3ForCausalLM", {**LLAMA, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
    "phi": ("PhiForCausalLM", LLAMA),
    "phi3": ("Phi3ForCausalLM", LLAMA),
    "falcon": ("FalconForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "falcon-alibi": (
        "FalconForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True, "new_decoder_architecture": False},
    ),
    "bloom": ("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": ("MptForCausalLM", {"d_model": 32, "n_layers": 2, "n_heads": 4}),
    "mixtral": ("MixtralForCausalLM", {**LLAMA, "num_local_experts": 4}),
    "olmoe": ("OlmoeForCausalLM", {**LLAMA, **EXPERTS}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", {**LLAMA, **EXPERTS}),
    "granite": ("GraniteForCausalLM", {**LLAMA, "embedding_multiplier": 3.0, "logits_scaling": 2.0}),
    "mamba": ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "mamba2": (
        "Mamba2ForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 16},
    ),
    "jamba": (
        "JambaForCausalLM",
        {**LLAMA, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "use_mamba_kernels": False,
         "mamba_d_state": 4, "mamba_dt_rank": 4},
    ),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        {**LLAMA, **EXPERTS, "num_hidden_layers": 4, "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2,
         "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    ),
    "falcon-h1": (
        "FalconH1ForCausalLM",
        {**LLAMA, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16},
    ),
    "lfm2": ("Lfm2ForCausalLM", {**LLAMA, "layer_types": ["conv", "full_attention", "conv"]}),
    "recurrent-gemma": ("RecurrentGemmaForCausalLM", {**LLAMA, "attention_window_size": WINDOW, "lru_width": 32}),
}  # fmt: skip

SIMILAR = frozenset({
    "gpt-j", "opt", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi", "phi3", "falcon", "bloom", "mpt", "olmoe",
    "qwen3-moe", "granite", "falcon-h1", "jamba",
})  # fmt: skip
"""Families whose attention, cache, positions and experts work as those of another one; they are tested by `-m slow`."""


def family_params(names: Iterable[str], quick: Container[str] | None = None) -> list[Any]:
    """Names as parameters, those outside of `quick` marked slow; by default those of `SIMILAR` are."""
    is_quick = {name: name not in SIMILAR if quick is None else name in quick for name in names}
    return [name if is_quick[name] else pytest.param(name, marks=pytest.mark.slow) for name in names]


@cache
def cases() -> tuple[list[str], list[str]]:
    """Prompts of two lengths (the last example, and the last output), and programs."""
    prompts, programs = _whole_cases()
    shown = [p[p.rindex(("input", "output")[i % 2]) :] for i, p in enumerate(prompts)]
    return shown, programs


@cache
def _whole_cases() -> tuple[list[str], list[str]]:
    """Whole prompts, and programs."""
    tasks = tasks_of(SUITE).take(np.arange(4))
    return render_prompts(SUITE, tasks), [t.removeprefix(HEADER_TEXT).strip() for t in tasks.programs.texts()]


def byte_pair_tokenizer(begin: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level pairs, as in GPT-2; with a mark of the text's beginning, if asked."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(inner, begin, initial_alphabet=alphabet)


def metaspace_tokenizer(begin: bool = True, split: bool = True) -> PreTrainedTokenizerFast:
    """Pairs over texts whose spaces are signs of their own, as in Llama 2: a word's sign stands before it.

    Not split at spaces, pairs grow beyond words, and the words have no tokens of their own.
    """
    inner = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=split)
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    return _trained(inner, begin)


def _trained(inner: Tokenizer, begin: bool, **options: Any) -> PreTrainedTokenizerFast:
    prompts, programs = _whole_cases()
    marks = [END, "<begin>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 30 * bool(options),
        special_tokens=marks[:2] if options else marks,
        show_progress=False,
        **options,
    )
    inner.train_from_iterator([*prompts[:2], *programs[:2]], trainer)
    if begin:
        inner.post_processor = processors.TemplateProcessing(
            single="<begin> $A", pair="<begin> $A $B", special_tokens=[("<begin>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token=END, bos_token="<begin>" if begin else None
    )


def save(family: str, folder: Path, tokenizer: Any = None) -> Path:
    """A model of the family, as save_pretrained writes it.

    Weights are drawn wider than an untrained model's, norms and biases too, so that what is written varies and a
    state before the final norm is not one behind it.
    """
    tokenizer = tokenizer or byte_pair_tokenizer()
    kind, fields = FAMILIES[family]
    chosen = getattr(transformers, kind)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(1)
    model = chosen(chosen.config_class(vocab_size=len(tokenizer), **ends, **fields))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                module.weight.normal_(std=0.2)
        for name, weight in model.named_parameters():
            if weight.ndim == 1 and ("norm" in name or "ln_" in name or "bias" in name):
                weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
