"""Commands for models that do not run in Python here: probe prompts for another engine, the verdict on its states."""
