"""Protocol 4: rotation in the frame of the start, against the record that the model's own states hold."""
