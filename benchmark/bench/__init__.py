"""Speed and memory of probing, of generation, and of workers."""
