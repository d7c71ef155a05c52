"""Reference models: how to train them, and the tokenizer that they share."""
