"""Counts of a decoder of the Llama family from its configuration alone: weights, bytes and operations.

docs/cluster.md states them for models of 8 and 70 billion weights. Letters: `L` blocks, `D` width, `V` vocabulary, `R` rows.
"""

from __future__ import annotations

from dataclasses import dataclass


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

    def operations(self, tokens: int, with_logits: bool = True) -> int:
        """Floating-point operations of one pass over a prompt of `tokens` tokens, every pair of positions computed.

        Args:
            tokens: length of the prompt.
            with_logits: whether the output layer is applied at every token; states need none.
        """
        matrices = self.layers * self.block_weights + (self.vocabulary * self.width if with_logits else 0)
        attention = 4 * self.layers * self.heads * self.head_width * tokens**2
        return 2 * matrices * tokens + attention

    def state_bytes(self, rows: int, views: int = 2) -> int:
        """Bytes of the stored states, float32 [R, D] per view: of word positions only, two pooled views in a standard run."""
        return 4 * rows * self.width * views

    def pass_state_bytes(self, tokens: int) -> int:
        """Bytes of the states of all layers, float32, that one pass over the words of a batch holds before they are pooled."""
        return 4 * (self.layers + 1) * self.width * tokens


LLAMA_8B = DecoderShape(32, 4096, 14336, 32, 8, 128, 128_256)
LLAMA_70B = DecoderShape(80, 8192, 28672, 64, 8, 128, 128_256)
