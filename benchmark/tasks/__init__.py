"""What a model is asked: suites, prompts, probe sets, stages, extraction of programs, scoring. Loads no torch."""
