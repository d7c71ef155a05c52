"""Small models made on the spot, a small protocol, and a whole run with both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from quick_protocol import QUICK
from transformers import LlamaConfig, LlamaForCausalLM
from whole_runs import call, only

import benchmark.driver
from baselines.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """An untrained two-layer Llama with the word-level tokenizer, as save_pretrained writes it."""
    return save_llama(tmp_path_factory.mktemp("models") / "tiny", hidden_size=32, intermediate_size=64)


@pytest.fixture(scope="session")
def wide_folder(tmp_path_factory) -> Path:
    """One whose forward pass takes some 60 MB a prompt."""
    return save_llama(tmp_path_factory.mktemp("models") / "wide", hidden_size=16, intermediate_size=75_000)


def save_llama(folder: Path, **sizes: int) -> Path:
    """An untrained Llama of these sizes."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Runs take seconds."""
    monkeypatch.setattr(benchmark.driver, "STANDARD", QUICK)


@pytest.fixture
def words(tiny_folder) -> list[str]:
    """Options of a run of the tiny model."""
    return ["--model", f"path:{tiny_folder}", "--suite", "smoke"]


@pytest.fixture(scope="session")
def undisturbed(tiny_folder, tmp_path_factory) -> Path:
    """That run, in one process and without any failure."""
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark.driver, "STANDARD", QUICK)
        assert call("--model", f"path:{tiny_folder}", "--suite", "smoke", "--out", out) == 0
    return only(out)


@pytest.fixture(scope="session", autouse=True)
def ray_in_tests():
    """No token file in the home folder, nothing but errors in the output, one thread where several processes compute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "error")
        yield
