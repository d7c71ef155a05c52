"""Small models made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from quick_protocol import QUICK
from transformers import LlamaConfig, LlamaForCausalLM

import benchmark.driver
from baselines.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """An untrained two-layer Llama with the word-level tokenizer, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Runs take seconds."""
    monkeypatch.setattr(benchmark.driver, "STANDARD", QUICK)
