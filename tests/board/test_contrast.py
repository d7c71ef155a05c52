"""Colours of the style sheet by WCAG 2.2, light and dark: text 4.5 to 1 (1.4.3), marks and controls 3 to 1 (1.4.11)."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

STYLE = (Path(__file__).parents[2] / "benchmark" / "board" / "templates" / "board.css").read_text()
THEMES = {"light": ":root{", "system dark": ":root:not([data-theme=light]){", "dark": ":root[data-theme=dark]{"}
GROUNDS = ("bg", "surface", "sunk")
TEXTS = [
    *product(("text", "muted", "accent", "good", "bad"), GROUNDS),
    *((name, f"{name}-bg") for name in ("good", "warn", "bad")),
    ("surface", "accent"), ("on-marker", "marker"),
]  # fmt: skip
MARKS = [*product([f"k{number}" for number in range(6)], ("surface", "bg")), *product(("focus", "robot", "wall"), ("surface",)), ("robot", "floor")]  # fmt: skip
Colour = tuple[float, float, float]


def palette(theme: str) -> dict[str, Colour]:
    """Colours of a theme by their names; those of the light one where it has none of its own."""
    block = STYLE.partition(THEMES[theme])[2].partition("}")[0]
    return {
        name: tuple(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
        for name, digits in re.findall(r"--([\w-]+):#([0-9a-f]{6})", block)
    }


def luminance(colour: Colour) -> float:
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ratio(a: Colour, b: Colour) -> float:
    brighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_the_ratio_is_that_of_the_standard():
    assert ratio((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert ratio((0x77 / 255,) * 3, (1, 1, 1)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_every_pair_has_contrast(theme):
    colours = palette(theme)
    assert len(colours) == 28
    low = {(text, ground): ratio(colours[text], colours[ground]) for text, ground in TEXTS}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}
    low = {(mark, ground): ratio(colours[mark], colours[ground]) for mark, ground in MARKS}
    assert {pair: value for pair, value in low.items() if value < 3} == {}


@pytest.mark.parametrize("theme", THEMES)
def test_text_on_a_heat_map_has_contrast(theme):
    """Each shade is a mixture with the surface; muted text stands on none of them."""
    colours = palette(theme)
    shares = [int(share) / 100 for share in re.findall(r"var\(--pos\) (\d+)%", STYLE)] + [1.0]
    assert len(shares) == 5
    for name, share in product(("pos", "neg"), shares):
        mixed = [share * a + (1 - share) * b for a, b in zip(colours[name], colours["surface"], strict=True)]
        assert ratio(colours["text"], (mixed[0], mixed[1], mixed[2])) >= 4.5


def test_both_dark_themes_are_one():
    assert palette("dark") == palette("system dark") != palette("light")
    assert set(palette("dark")) == set(palette("light"))


def test_every_colour_of_the_style_sheet_is_one_of_the_themes():
    """No rule has a colour of its own, which would be the same in light and dark."""
    rules = re.sub(r":root[^{]*\{[^}]*\}", "", STYLE)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;}\s])", rules) == []
