"""Escape submitters' text for publication: Markdown tables, CSV cells, HTML pages.

GitHub renders Markdown by CommonMark with tables, strikethrough and autolinks, then scans the rendered text for
mentions, references, emoji and formulas. A backslash escapes the first pass but not the second, so triggers of the
second pass are followed by a zero-width space.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

ZERO_WIDTH_SPACE = "&#8203;"
"""A zero-width space as an entity, so that it is visible in the page source."""
SYNTAX = re.compile(r"[\\`*{}<>|\[\]!&~]")
LOOSE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
TRIGGERS = re.compile(r"([@#$]|:(?=\S)|\bwww(?=\.)|\bGH(?=-\d))", re.IGNORECASE)
FORMULA_STARTS = "=+-@"
FORMULA_AFTER_SEPARATOR = re.compile(r"([;,|\t\r\n][\s\"']*)(?=[^\s\"'])")
BLANKS = " \u00a0\u200b\u200c\u200d\u2060\ufeff\"'\t\r\n\x0b\x0c\x00"


def spell_hidden(text: str) -> str:
    """Replace invisible characters and direction overrides by their code points (`U+202E`)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"U+{ord(char):04X}" if _is_hidden(char) else char for char in text)


def _is_hidden(char: str) -> bool:
    if char.isascii():
        return not char.isprintable() and char not in "\n\t"
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def escape_markdown(text: str) -> str:
    """Escape a text so that Markdown shows it verbatim in a single-line table cell.

    The result contains no link, mention, reference, formula, emoji, markup or cell separator. Invisible characters and
    compatibility variants of ASCII (such as full-width letters) are replaced by their code points.
    """
    spelled = "".join(
        f"U+{ord(char):04X}" if _imitates_ascii(char) else char for char in spell_hidden(" ".join(text.split()))
    )
    escaped = SYNTAX.sub(r"\\\g<0>", spelled)
    escaped = LOOSE_UNDERSCORE.sub(r"\_", escaped)
    return TRIGGERS.sub(rf"\1{ZERO_WIDTH_SPACE}", escaped)


def _imitates_ascii(char: str) -> bool:
    return not char.isascii() and char != "\u00a0" and unicodedata.normalize("NFKC", char).isascii()


def escape_formula(cell: Any) -> Any:
    """Escape a cell so that no spreadsheet reads it as a formula, for any separator; non-strings are unchanged."""
    if not isinstance(cell, str) or not cell:
        return cell
    text = FORMULA_AFTER_SEPARATOR.sub(_guard_separator, spell_hidden(cell))
    return f"'{text}" if _starts_formula(text) or _starts_formula(cell) or cell[0] in "\t\r\n" else text


def _guard_separator(match: re.Match[str]) -> str:
    following = match.string[match.end() :]
    return f"{match[1]}'" if _starts_formula(following) else match[1]


def _starts_formula(text: str) -> bool:
    """Whether the first character after blanks and quotes starts a formula, also in full-width or small form."""
    first = text.lstrip(BLANKS)[:1]
    return bool(first) and unicodedata.normalize("NFKC", first)[:1] in (*FORMULA_STARTS, "\u2212")
