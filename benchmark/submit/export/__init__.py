"""A submission in the formats of other tools: the hub, every-eval-ever, lm-evaluation-harness, Inspect."""
