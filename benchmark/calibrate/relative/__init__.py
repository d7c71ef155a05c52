"""Known answers of `relative`: pseudo-models on programs with control flow, and the sampled records beside the exact ones."""
