"""The dialects that programs are written in."""

KAREL, PYTHON = DIALECTS = ("karel", "python")
