"""The width of a model's keys and values, by which memory is estimated and limited, against the caches of the models themselves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers

from benchmark.models.json_files import key_width
from benchmark.models.steering import transformer

SMALL = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
CONFIGS = {
    "as many heads of keys as of queries": transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **SMALL
    ),
    "grouped queries": transformers.Qwen2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, intermediate_size=64, **SMALL
    ),
    "heads wider than their share": transformers.Gemma3TextConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=48, intermediate_size=64,
        **SMALL,
    ),
    "GPT-J": transformers.GPTJConfig(n_embd=64, n_layer=2, n_head=4, rotary_dim=8, **SMALL),
    "one head of keys": transformers.GPTBigCodeConfig(n_embd=64, n_layer=2, n_head=4, multi_query=True, **SMALL),
    "Falcon, one head of keys": transformers.FalconConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, multi_query=True, new_decoder_architecture=False, **SMALL
    ),
    "Falcon, grouped queries that the cache repeats": transformers.FalconConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, multi_query=True,
        new_decoder_architecture=True, **SMALL,
    ),
}  # fmt: skip


def first_layer_cache(model, num_tokens):
    """Keys and values of the first layer, each [1, heads, num_tokens, width of a head]."""
    with torch.no_grad():
        cache = model(torch.zeros(1, num_tokens, dtype=torch.long), use_cache=True).past_key_values
    return cache.layers[0].keys, cache.layers[0].values


@pytest.mark.parametrize("name", CONFIGS)
def test_the_width_of_the_keys_is_that_of_the_models_cache(name):
    config = CONFIGS[name]
    keys, values = first_layer_cache(transformers.AutoModelForCausalLM.from_config(config).eval(), 3)
    assert keys.shape[1] * keys.shape[3] == values.shape[1] * values.shape[3] == key_width(config.to_dict(), 64)


def test_the_sizes_of_a_nested_text_model_count():
    text = CONFIGS["grouped queries"].to_dict()
    assert key_width({"model_type": "many_kinds_of_input", "text_config": text}, 64) == key_width(text, 64) == 16


@pytest.mark.parametrize("key_heads", [1, 2, 8])
def test_the_prefixes_of_an_edited_batch_fill_the_cache_that_is_allowed(key_heads):
    config = transformers.LlamaConfig(
        hidden_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=key_heads,
        intermediate_size=64,
        **SMALL,
    )
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    bytes_per_layer = sum(part.nbytes for part in first_layer_cache(network, transformer._TYPICAL_TOKENS))
    blocks = [None] * 48
    model = SimpleNamespace(model=network, blocks=blocks)
    rows = transformer.SteerableTransformer(model).batch_rows
    assert rows < transformer._MAX_ROWS
    per_row = bytes_per_layer * len(blocks)
    assert rows * per_row <= transformer._MAX_CACHE_BYTES < (rows + 1) * per_row
