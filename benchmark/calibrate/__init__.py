"""Known answers: pseudo-models, the trained pair, and the released recipe for comparison."""
