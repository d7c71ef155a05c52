"""Models: interface, specs, checkpoints, the Hugging Face adapter, decoding, token alignment, custom classes."""
