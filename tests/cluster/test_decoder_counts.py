"""The counts of large models: the same formulas, held against small models that are built, and against docs/cluster.md."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmark.cluster.decoder_counts import (
    FEW_SHOT_LAPTOP,
    GEMMA3_270M,
    LLAMA_8B,
    LLAMA_70B,
    QWEN2_0_5B,
    SMOLLM2_135M,
    DecoderShape,
    RunTokens,
)

DOCS = Path(__file__).parents[2] / "docs"
SHAPES = [
    DecoderShape(2, 32, 64, 2, 2, 16, 50), DecoderShape(3, 48, 100, 6, 2, 8, 70), DecoderShape(1, 64, 96, 4, 1, 16, 33, True),
]  # fmt: skip


def build(shape: DecoderShape, device: str = "cpu") -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner, head_dim=shape.head_width,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads,
        tie_word_embeddings=shape.tied, attn_implementation="eager", max_position_embeddings=64,
    )  # fmt: skip
    with torch.device(device):
        return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_counts_are_those_of_a_model_that_is_built(shape) -> None:
    model, batch, tokens = build(shape), 3, 11
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    ids = torch.zeros(batch, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        output = model(ids, use_cache=True, output_hidden_states=True)
    # The rotary angles are a product too, which the formula leaves out.
    assert counter.get_total_flops() == pytest.approx(batch * shape.prompt_operations(tokens), rel=0.01)
    cached = sum(tensor.nbytes for layer in output.past_key_values.layers for tensor in (layer.keys, layer.values))
    assert cached == shape.cache_bytes(batch * tokens, 4)
    assert sum(states.nbytes for states in output.hidden_states) == shape.pass_state_bytes(batch * tokens)
    assert output.hidden_states[-1][0].nbytes * 2 == shape.state_bytes(tokens)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_tokens_behind_a_cached_preamble_are_counted(shape) -> None:
    model, preamble, tokens = build(shape), 7, 5
    cache = model(torch.zeros(1, preamble, dtype=torch.long), use_cache=True).past_key_values
    # transformers 5.24 renamed the argument.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, tokens, dtype=torch.long), logits_to_keep=1, **{name: cache})
    expected = shape.operations(RunTokens(tokens, preamble + tokens, 1))
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("shape", [SMOLLM2_135M, QWEN2_0_5B, LLAMA_8B, LLAMA_70B])
def test_weights_of_large_models_are_counted_without_building_them(shape) -> None:
    model = build(shape, "meta")
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())


def table_rows(shape: DecoderShape) -> list[str]:
    """The figures of a column of the table: 50 prompts of 130 tokens per batch, 24,000 rows, 7,000 prompts."""
    tokens, batch, rows, prompts = 130, 50, 24_000, 7_000
    return [
        f"{shape.parameters / 1e9:.2f}", f"{shape.weight_bytes() / 1e9:.1f} GB",
        f"{shape.cache_bytes(batch * tokens) / 1e9:.2f} GB", f"{shape.pass_state_bytes(batch * 12) / 1e9:.2f} GB",
        f"{shape.state_bytes(rows) / 1e9:.2f} GB", f"{shape.prompt_operations(tokens) / 1e12:.2f}",
        f"{prompts * shape.prompt_operations(tokens) / 1e15:.1f}",
    ]  # fmt: skip


def test_cluster_md_has_these_figures() -> None:
    lines = (DOCS / "cluster.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| count | 8B | 70B |"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines[start + 2 : start + 9]]
    assert cells == [list(pair) for pair in zip(table_rows(LLAMA_8B), table_rows(LLAMA_70B), strict=True)]


def test_pretrained_md_has_the_cost_of_a_row() -> None:
    expected = [
        [
            f"{shape.parameters / 1e9:.2f}, {shape.layers * shape.block_weights / 1e9:.2f}",
            f"{shape.operations(FEW_SHOT_LAPTOP) / 1e12:,.0f}",
        ]
        for shape in (SMOLLM2_135M, GEMMA3_270M, QWEN2_0_5B, LLAMA_8B, LLAMA_70B)
    ]
    lines = (DOCS / "pretrained.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "operations of a row" in line)
    assert [[cell.strip() for cell in line.split("|")[2:4]] for line in lines[start + 2 : start + 7]] == expected
