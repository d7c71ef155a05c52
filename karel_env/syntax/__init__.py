"""Texts of programs: the canonical text and Python text, read, printed and as grammars."""
