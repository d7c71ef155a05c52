"""Baselines without a network: chance, token statistics, nearest neighbour and enumerative search."""
