"""Text of submitters as it may stand in what is published: Markdown tables, CSV cells, pages.

GitHub renders Markdown by CommonMark with tables, strikethrough and autolinks, and afterwards looks through the text for
mentions, references, emoji and formulas. A backslash stops the first and not the second, so what only the second reads
is followed by a space of no width.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

ZERO_WIDTH_SPACE = "&#8203;"
"""A space of no width, as an entity, so that the source of the page shows it."""
SYNTAX = re.compile(r"[\\`*{}<>|\[\]!&~]")
LOOSE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
TRIGGERS = re.compile(r"([@#$]|:(?=\S)|\bwww(?=\.)|\bGH(?=-\d))", re.IGNORECASE)
FORMULA_STARTS = "=+-@"
FORMULA_AFTER_SEPARATOR = re.compile(r"([;,|\t\r\n][\s\"']*)(?=[^\s\"'])")
BLANKS = " \u00a0\u200b\u200c\u200d\u2060\ufeff\"'\t\r\n\x0b\x0c\x00"


def spell_hidden(text: str) -> str:
    """The text with what a reader does not see, or what turns the direction of writing, spelled as its code point."""
    return "".join(f"U+{ord(char):04X}" if _is_hidden(char) else char for char in text)


def _is_hidden(char: str) -> bool:
    if char.isascii():
        return not char.isprintable() and char not in "\n\t"
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def escape_markdown(text: str) -> str:
    """Markdown that shows a text as it is, in one cell of a table on one line.

    No link, mention, reference, formula, emoji, markup or other cell comes of it. Characters that are not seen, and
    variants of ASCII such as full-width letters, are spelled as code points.
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
    """A cell that no spreadsheet takes for a formula, whatever separator it splits lines at; numbers stay as they are."""
    if not isinstance(cell, str) or not cell:
        return cell
    text = FORMULA_AFTER_SEPARATOR.sub(_guard_separator, spell_hidden(cell))
    return f"'{text}" if _starts_formula(text) or _starts_formula(cell) or cell[0] in "\t\r\n" else text


def _guard_separator(match: re.Match[str]) -> str:
    following = match.string[match.end() :]
    return f"{match[1]}'" if _starts_formula(following) else match[1]


def _starts_formula(text: str) -> bool:
    """Whether the first character behind blanks and quotes starts a formula, also in its full-width or small form."""
    first = text.lstrip(BLANKS)[:1]
    return bool(first) and unicodedata.normalize("NFKC", first)[:1] in (*FORMULA_STARTS, "\u2212")
