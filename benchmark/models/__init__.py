"""Models: specs, checkpoints, the hub, transformers, decoding, token alignment, custom classes."""
