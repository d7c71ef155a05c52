"""A sub-word tokenizer made on the spot."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from karel_env.language import WORDS


def byte_pairs() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose pieces cut across words."""
    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    texts = [" ".join(WORDS)] * 3 + ["move(); move(); turn_left();", "while (not front_is_clear()) { move(); };"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    whole.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=330, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<end>", pad_token="<end>")
