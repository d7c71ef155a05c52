"""Probes on the device of a model: the trainer of a device, its whitening, and what a width costs."""
