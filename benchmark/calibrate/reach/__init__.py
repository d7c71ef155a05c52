"""The known answers of `reach`: how far ahead the states of pseudo-models hold the rotation."""
