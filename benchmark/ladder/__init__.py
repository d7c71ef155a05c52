"""A ladder of questions about what programs do, for models that were not trained on Karel: `karel-bench ladder`."""
