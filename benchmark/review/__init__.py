"""Review of pull requests that change submissions."""
