"""A tiny Llama with a sub-word tokenizer, and its fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from byte_pairs import byte_pairs
from transformers import LlamaConfig, LlamaForCausalLM

from baselines.tuning.tuner import Tuner, TuningSettings
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec

TOKENIZER = byte_pairs()


def save_tiny_llama(path: Path) -> Path:
    """Save the network and its tokenizer; returns their folder."""
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=TOKENIZER.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return path


def open_tuner(folder, output, **changes) -> Tuner:
    checkpoint = open_checkpoint(ModelSpec("path", str(folder)))
    settings = TuningSettings(checkpoint.spec, checkpoint.digest, "execute", "laptop", "karel", 6, 1, 0.002, 5)
    return Tuner(checkpoint, replace(settings, **changes), output)
