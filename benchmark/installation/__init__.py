"""Where this project is installed, and from which commit. `setup.py` imports it too: standard library only."""
