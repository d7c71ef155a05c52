"""Fine-tuning of pretrained models, see `baselines.tune`."""
