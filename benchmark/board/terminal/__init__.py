"""What a row and a run look like in a terminal."""
