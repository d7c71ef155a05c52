"""A run before it is submitted: where its row would stand, and its page."""
