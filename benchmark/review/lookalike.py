"""Skeletons of names: names that look alike have the same skeleton.

The skeleton is the text after NFKC normalisation and case folding, without marks and blanks, with every letter of another
script that looks like a Latin letter replaced by it. `labels=True` also merges ASCII characters that look alike.
"""

from __future__ import annotations

import re
import unicodedata

LATIN_LOOKALIKES = {
    "a": "\u0430\u03b1\u0251\u237a\u13aa", "b": "\u0432\u042c\u044c\u03b2\u0184\u13cf", "c": "\u0441\u03f2\u1d04\u2ca5\u217d",
    "d": "\u0501\u13e7\ua4d2", "e": "\u0435\u03b5\u212e\u04bd\u1d07\u0454", "f": "\u03dd\ua730\u017f", "g": "\u0261\u0581\u1d83\u050d",
    "h": "\u04bb\u043d\u0570\u13c2\u029c", "i": "\u0456\u03b9\u0131\u0269\u13a5\u2373", "j": "\u0458\u03f3\u0237",
    "k": "\u043a\u03ba\u1d0b\u0138", "l": "\u04c0\u04cf\u01c0\u05c0\u2223\u29f8\u13de", "m": "\u043c\u03fb\u1d0d\u13b7", "n": "\u0578\u03b7\u043f\u0274",
    "o": "\u043e\u03bf\u0585\u03c3\u1d0f\u2c9f\u0966\u06f0\u0660\u3007\u04e9", "p": "\u0440\u03c1\u2ca3\u1d29\u13e2", "q": "\u051b\u0563\u0566",
    "r": "\u0433\u1d26\u0280\u13a1", "s": "\u0455\ua731\u01bd\u13da", "t": "\u0442\u03c4\u1d1b\u13a2", "u": "\u03c5\u057d\u1d1c\u028b",
    "v": "\u03bd\u0475\u1d20\u13d9", "w": "\u0461\u051d\u1d21\u0561\u13b3", "x": "\u0445\u03c7\u1d6f\u2179", "y": "\u0443\u04af\u03b3\u028f\u1d8c",
    "z": "\u1d22\u0290\u13c3", "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc\u02d7\u06d4",
}  # fmt: skip
LETTERS = str.maketrans(
    {lookalike: letter for letter, lookalikes in LATIN_LOOKALIKES.items() for lookalike in lookalikes}
)
ASCII_LOOKALIKES = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "_": "-", ".": "-"})
BLANKS = re.compile("[\\s\u115f\u1160\u3164\uffa0\u2800]+")


def skeleton(text: str, labels: bool = False) -> str:
    """Compute the skeleton of a text.

    Args:
        text: any string.
        labels: whether to merge ASCII lookalikes: `1` and `l`, `rn` and `m`, `-` and `_`.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().translate(LETTERS)
    # Repeat: case folding can produce composed letters, and composed letters can contain marks.
    decomposed = unicodedata.normalize("NFKD", folded).casefold().translate(LETTERS)
    visible = "".join(char for char in decomposed if unicodedata.category(char) not in ("Mn", "Me", "Cf", "Cc"))
    visible = BLANKS.sub("", visible)
    if not labels:
        return visible
    merged = visible.translate(ASCII_LOOKALIKES).replace("rn", "m").replace("vv", "w")
    return re.sub("-+", "-", merged)


def imitates_ascii(text: str) -> bool:
    """Whether a text reads as ASCII but contains letters of other scripts or widths; accented letters do not count."""
    replaced = [char for char in text if not char.isascii() and _replaces_ascii(char)]
    return bool(replaced) and skeleton(text).isascii()


def _replaces_ascii(char: str) -> bool:
    return char.casefold().translate(LETTERS).isascii() or unicodedata.normalize("NFKC", char).isascii()
