"""Full detail of the causal measurement: other edits, sites and variables, whole programs, NOT USED (docs/causal.md)."""
