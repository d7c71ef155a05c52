"""Text of submitters comes out of Markdown, CSV, JSON and pages as text, by the rules of those that read them."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata
from dataclasses import replace

import pytest
import shipped_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from benchmark.board.markup import escape_formula, escape_markdown, spell_hidden
from benchmark.board.page import json_block
from benchmark.board.ranking import LeaderboardRow, rank_groups
from benchmark.board.tables import format_parameters, render_markdown, to_csv, to_json, unverified_claims
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.runner.redaction import has_paths, redact_json_paths, redact_paths
from benchmark.statistics import Estimate
from benchmark.submit.schema import SELF_REPORTED

try:
    import cmarkgfm
except ImportError:
    cmarkgfm = None

MENTION = re.compile(r"(?<![\w/`])@[A-Za-z0-9]")
REFERENCE = re.compile(r"(?<![\w&])#\d|\bGH-\d", re.IGNORECASE)
EMOJI = re.compile(r":[+\w-]+:")
FORMULA = re.compile(r"\$[^\s\u200b$]|\$\$|\$`")
TEXTS = [
    "[a](http://b)", "![a](http://b)", "[a]: http://b", "<http://b>", "http://b.example/x", "HTTPS://b.example", "www.b.example",
    "WWW.b.example", "ftp://b.example", "mailto:a@b.example", "xmpp:a@b.example/x", "a@b.example", "@name", "x @org/team",
    "(@name)", "@@name", "#123", "org/repo#123", "GH-123", "gh-1", "~~gone~~", "~gone~", "**bold**", "__bold__", "_it_", "*it*",
    "`code`", "``code``", "a|b", r"a\|b", "\\", "a\\", "<b>x</b>", "<!-- x", "<script>x</script>", "&lt;", "&#42;", "&amp", "$x$",
    "$$x$$", "$`x`$", ":smile:", ":+1:", "[ ] task", "[^1]", "line\nbreak", "tab\there", "# head", "- item", "1. item", "> quote",
    "---", "| a |", "~~~", "```", "<details>", "<a href='x'>", "https://b.example/~x_y_", "_@name_", "@\u200bname", "www\uff0eb.example",
    "\u202eevil", "\u2066x", "\uff20name", "\uff03123", "a\u00a0b", "\U000e0041", "x\ufeffy", "\x00\x1b[2J", "!", "![", "](", "\\*x\\*",
]  # fmt: skip


def cells_of(page: str) -> list[str]:
    """The cells of the only row of a rendered table."""
    return re.findall(r"<td>(.*?)</td>", page, re.DOTALL)


def rendered_by_all(cell: str) -> list[list[str]]:
    table = f"| a | b | c |\n|---|---|---|\n| {cell} | x{cell}x | end |\n"
    pages = [MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(table)]
    if cmarkgfm is not None:
        pages.append(cmarkgfm.github_flavored_markdown_to_html(table))
    return [cells_of(page) for page in pages]


def spelled(text: str) -> str:
    """What a reader must see of a text."""
    seen = " ".join(text.split())
    return spell_hidden(
        "".join(
            f"U+{ord(char):04X}"
            if not char.isascii() and char != "\u00a0" and unicodedata.normalize("NFKC", char).isascii()
            else char
            for char in spell_hidden(seen)
        )
    )


def assert_plain(text: str) -> None:
    cell = escape_markdown(text)
    for first, middle, end in rendered_by_all(cell):
        assert end == "end", "no cell more or less"
        assert "<" not in first, f"{text!r} became markup: {first}"
        assert "<" not in middle
        seen = html.unescape(first)
        assert seen.replace("\u200b", "").strip() == spelled(text).strip()
        assert not any(
            unicodedata.category(char) in ("Cc", "Co", "Cs")
            or (char != "\u200b" and unicodedata.category(char) == "Cf")
            for char in seen
        )
        for rule in (MENTION, REFERENCE, EMOJI, FORMULA):
            assert not rule.search(seen), f"{text!r}: {rule.pattern}"


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_cell_shows_the_text_as_it_is(text):
    assert_plain(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            [
                *"\\`*_{}<>[]()#+-.!|~@:$&; a1\n",
                "www.",
                "http://",
                "b.example",
                "@name",
                "#1",
                "<b>",
                "\u202e",
                "\uff20",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_no_text_becomes_markup(text):
    if text.strip():
        assert_plain(text)


@pytest.mark.skipif(cmarkgfm is None, reason="cmarkgfm, GitHub's own renderer, is not installed")
def test_the_oracle_sees_what_is_not_escaped():
    seen = [
        text
        for text in TEXTS
        if "<"
        in cells_of(cmarkgfm.github_flavored_markdown_to_html(f"| a |\n|---|\n| {text.split(chr(10))[0]} |\n"))[0]
    ]
    assert {"http://b.example/x", "www.b.example", "a@b.example", "~~gone~~", "[a](http://b)", "`code`", "_it_"} <= set(
        seen
    )


def test_plain_names_stay_as_they_are_written():
    for name in ("gpt", "2026-11-25_gpt-laptop", "self_reported", "smollm2-135m-instruct", "Ada Lovelace", "n.gram"):
        assert escape_markdown(name) == name


FORMULAS = [
    "=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "'=1", '"=1', "\u00a0=1", "\ufeff=1", "\u200b=1",
    "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM", "\ufe66 1", "\ufe621", "\ufe63x", "\ufe6bx", "\u2212x", "\x00=1", " \t\"' =1",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_no_cell_starts_a_formula(text):
    assert escape_formula(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["a;=1", "a,=1", "a\t=1", "a\n=1", "a|@x", "a; \uff1d1", 'a;"=1"', "a;'=1", ";=1"], ids=ascii
)
def test_no_separator_of_another_country_starts_a_formula(text):
    cell = escape_formula(text)
    for part in re.split(r"[;,|\t\r\n]", cell)[1:]:
        assert unicodedata.normalize("NFKC", part.strip(" \"'"))[:1] not in tuple("=+-@") or part.lstrip(
            ' "'
        ).startswith("'")


def test_numbers_and_words_stay_as_they_are():
    for cell in (1, -0.5, None, "", "gpt", "a-b", "2026-11-25_x", "a;b", "1e-5"):
        assert escape_formula(cell) == cell


@pytest.fixture(scope="module")
def shipped() -> dict[str, LeaderboardRow]:
    return {entry.folder: entry for entry in shipped_rows.shipped()}


def renamed(entry: LeaderboardRow, **declared: object) -> LeaderboardRow:
    return replace(entry, declared=entry.declared.model_copy(update=declared))


def test_the_whole_board_takes_hostile_words_as_text(shipped):
    entry = shipped["2026-11-25_search"]
    hostile = renamed(entry, family="@all | ~~x~~ www.evil.example <img src=x>")
    hostile = replace(
        hostile, status="#1 `x`", record=entry.record.model_copy(update={"track": "x](http://b) @you\n# head"})
    )
    text = render_markdown(rank_groups([hostile]))
    pages = [MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)]
    pages += [cmarkgfm.github_flavored_markdown_to_html(text)] if cmarkgfm is not None else []
    for page in pages:
        assert set(re.findall(r'href="([^"]*)"', page)) == {
            "docs/board.md", "docs/pretrained.md", "submissions/2026-11-25_search",
        }  # fmt: skip
        # The board's own word below a table of the few-shot track.
        assert page.count("<em>Represents</em>") == 1
        assert not re.search("<(img|del|em|script)", page.replace("<em>Represents</em>", ""))
        assert page.count("<h1>") == 1
        assert not MENTION.search(html.unescape(re.sub("<[^>]*>", "", page)))


def test_a_link_to_a_folder_stays_below_the_submissions(shipped):
    text = render_markdown(rank_groups([replace(shipped["2026-11-25_search"], folder='x](http://evil) ../../"y')]))
    (address,) = re.findall(r"\]\((submissions/[^)]*)\)", text)
    assert address.count("/") == 1
    assert " " not in address


def test_what_nobody_checked_is_marked_as_claimed(shipped):
    counted, withheld = shipped["2026-11-25_gpt-laptop"], shipped["2026-11-28_smollm2-135m-instruct"]
    assert unverified_claims(counted) == ["family"]
    assert unverified_claims(withheld) == ["family", "parameters"]
    assert format_parameters(withheld) == r"134,515,008\*"
    hub = renamed(counted, model=f"hf:openai/gpt@{'a' * 40}", family="openai")
    hub = replace(
        hub,
        status=SELF_REPORTED,
        record=counted.record.model_copy(
            update={"model": counted.record.model.model_copy(update={"parameters": 405 * 10**9})}
        ),
    )
    groups = rank_groups([hub])
    assert r"405,000,000,000\*" in render_markdown(groups)
    assert json.loads(to_json(groups))["groups"][0]["rows"][0]["claimed"] == ["family", "parameters"]
    (line,) = csv.DictReader(io.StringIO(to_csv(groups)))
    assert line["claimed"] == "family parameters"
    assert "claimed by the authors" in render_markdown(groups)


def test_data_cannot_end_the_element_that_it_stands_in(shipped):
    text = to_json(rank_groups([renamed(shipped["2026-11-25_search"], family="</script><!-- <script>\u2028")]))
    assert not re.search("[<>\u2028]", text)
    assert "</script>" in json.loads(text)["groups"][0]["rows"][0]["family"]
    block = json_block({"a": ["</script>", "<!--", "\u202e", ("]]>",)]})
    assert not re.search("[<>&']", block)
    assert json.loads(block) == {"a": ["</script>", "<!--", "U+202E", ["]]>"]]}


@pytest.mark.parametrize(
    "text", ["a\tb\n", "\\u202e", '"', "é", "\r", "\x7f", "\x00", "\u202e", "\\", "\\\u202e", "U+202E"]
)
def test_hidden_characters_are_spelled_out_in_data(text):
    assert json.loads(json_block({text: [text, 1.5, None, True]})) == {
        spell_hidden(text): [spell_hidden(text), 1.5, None, True]
    }


# Paths

PATHS = {
    "--model path:/root/kv/m1 --out /tmp/off3_out": "--model path:m1 --out off3_out",
    "--out=/home/ada/x": "--out=x",
    "path:~/models/x": "path:x",
    "~ada/x/y": "y",
    "$HOME/x/y and ${HOME}/z": "y and z",
    r"C:\Users\ada\m": "m",
    "C:/Users/ada/m": "m",
    r"path:D:\ada\m": "path:m",
    r"%USERPROFILE%\m": "m",
    r"\\host\share\m": "m",
    "file:///home/ada/x": "x",
    "'/home/ada lovelace/my model'": "'my model'",
    r"/home/ada\ lovelace/x": "x",
    "../../ada/x": "x",
    "PATH=/home/a:/home/b python": "PATH=a:b python",
    "py:/home/ada/m.py:make": "py:m.py:make",
    "cc -I/home/ada/x": "cc -Ix",
    "/home/ada/x,/tmp/y": "x,y",
    "(/root)": "(root)",
    "at:/home/ada/x": "at:x",
    "/Users/ada/x.safetensors": "x.safetensors",
}
KEPT = [
    "https://host/home/ada/x", "hf:org/name@abc", "runs/gpt-1", "path:submissions/x", "and/or", "1/2", "tokens / prompt", "./x/y",
    "baselines/../x", "</script>", "s3://bucket/key", "2026/11/27", "a:b", "~", "50%", r"\d",
]  # fmt: skip


@pytest.mark.parametrize("text", PATHS)
def test_a_path_is_reduced_to_its_last_part(text):
    assert redact_paths(text) == PATHS[text]
    assert has_paths(text)


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_place_on_a_machine_stays(text):
    assert redact_paths(text) == text


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"/\\~ '\":=a.-", "home", "..", "C:", "file:", "path:"]), max_size=14).map("".join))
def test_what_is_reduced_needs_no_second_look(text):
    assert not re.search(r"(?<![\w./\\~-])/home/\w", redact_paths(text))


def test_nested_data_is_reduced():
    assert redact_json_paths({"a": ["/home/ada/x", 1, None], "/k": ("~/y",)}) == {"a": ["x", 1, None], "/k": ["y"]}


HOMES = re.compile(r"(?<![\w.:/\\~-])(/(home|root|tmp|Users|var|work|mnt|data)/|~/|[A-Z]:\\)")


def test_what_is_published_names_no_place_on_a_machine(shipped):
    for name in ("leaderboard.md", "leaderboard.json", "leaderboard.csv"):
        assert not HOMES.search((SOURCE_ROOT / name).read_text())


def test_an_interval_stays_an_interval(shipped):
    entry = shipped["2026-11-25_search"]
    assert isinstance(entry.record.accuracy.shown, Estimate)
    assert "| 100.0 [99.6, 100.0] |" in render_markdown(rank_groups([entry]))
