"""Checks of a pull request to `submissions/` against its base commit."""
