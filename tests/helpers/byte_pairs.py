"""A sub-word tokenizer made on the spot."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from karel_env.language import WORDS


def byte_pairs(pattern: str = "", more_texts: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose pieces cut across words.

    Args:
        pattern: how texts are split before pieces are merged; empty for that of GPT-2.
        more_texts: further texts that it is trained on.
    """
    whole = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)
    split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    whole.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
    whole.decoder = decoders.ByteLevel()
    texts = [" ".join(WORDS)] * 3 + ["move(); move(); turn_left();", "while (not front_is_clear()) { move(); };"]
    texts += more_texts
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    whole.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=330, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<end>", pad_token="<end>")
