"""Counts of a decoder of the Llama family from its configuration alone: weights, bytes and operations.

docs/cluster.md states them for models of 8 and 70 billion weights, docs/pretrained.md for a row of the few-shot track.
Letters: `L` blocks, `D` width, `V` vocabulary, `R` rows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunTokens:
    """The tokens that a run sends through a model.

    Attributes:
        computed: tokens that are computed; those of a shared preamble count once.
        context: mean number of positions that a computed token attends to, as computed: masked ones count.
        logits: tokens at which the output layer is applied; states need none.
    """

    computed: int
    context: float
    logits: int


FEW_SHOT_LAPTOP = RunTokens(computed=750_000, context=920.0, logits=44_000)
"""A row of the few-shot track on `laptop` with the tokenizer of SmolLM2, rounded: 2,000 prompts of 158 tokens (padded) behind
824 that they share, their answers twice (greedy and under the grammar), and six readings of 1,000 programs, 66 tokens each."""


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder with grouped queries and a gated feed-forward layer.

    Attributes:
        layers: L.
        width: D.
        inner: width of the feed-forward layer.
        heads, key_heads: heads of queries, and of keys and values.
        head_width: width of a head.
        vocabulary: V.
        tied: whether the output layer has the weights of the embeddings.
    """

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    tied: bool = False

    @property
    def block_weights(self) -> int:
        """Weights of the matrices of a block: queries and output, keys and values, three of the feed-forward layer."""
        attention = 2 * self.width * self.head_width * (self.heads + self.key_heads)
        return attention + 3 * self.width * self.inner

    @property
    def parameters(self) -> int:
        """All weights, those of the two norms of a block and of the final norm included."""
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return embeddings + self.layers * (self.block_weights + 2 * self.width) + self.width

    def weight_bytes(self, bytes_per_weight: int = 2) -> int:
        """Bytes of the weights; 2 per weight in bfloat16."""
        return self.parameters * bytes_per_weight

    def cache_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        """Bytes of the keys and values of `tokens` tokens, over all prompts of a batch."""
        return 2 * self.layers * self.key_heads * self.head_width * tokens * bytes_per_value

    def operations(self, tokens: RunTokens) -> float:
        """Floating-point operations of a run."""
        matrices = self.layers * self.block_weights * tokens.computed + self.vocabulary * self.width * tokens.logits
        attention = 4 * self.layers * self.heads * self.head_width * tokens.computed * tokens.context
        return 2 * matrices + attention

    def prompt_operations(self, tokens: int) -> float:
        """Those of one pass over a prompt of `tokens` tokens, every pair of positions computed, with all logits."""
        return self.operations(RunTokens(tokens, tokens, tokens))

    def state_bytes(self, rows: int, views: int = 2) -> int:
        """Bytes of the stored states, float32 [R, D] per view: of word positions only, two pooled views in a standard run."""
        return 4 * rows * self.width * views

    def pass_state_bytes(self, tokens: int) -> int:
        """Bytes of the states of all layers, float32, that one pass over the words of a batch holds before they are pooled."""
        return 4 * (self.layers + 1) * self.width * tokens


SMOLLM2_135M = DecoderShape(30, 576, 1536, 9, 3, 64, 49_152, tied=True)
GEMMA3_270M = DecoderShape(18, 640, 2048, 4, 1, 256, 262_144, tied=True)
"""Its norms of queries and keys, and the second pair of norms of a block, are left out."""
QWEN2_0_5B = DecoderShape(24, 896, 4864, 14, 2, 64, 151_936, tied=True)
"""Qwen2.5 with 0.5 billion weights; its 27,648 biases of queries, keys and values are left out."""
LLAMA_8B = DecoderShape(32, 4096, 14336, 32, 8, 128, 128_256)
LLAMA_70B = DecoderShape(80, 8192, 28672, 64, 8, 128, 128_256)
