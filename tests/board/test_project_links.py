"""Links of the page to repository, paper, documentation and data; icon and preview picture; no placeholder is a link."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from html_reader import Reader
from PIL import Image
from shipped_rows import SUBMISSIONS
from test_marks import tables as tables

from benchmark.board.page import main
from benchmark.board.site.documents import Links, render_index
from benchmark.board.site.preview_image import COLOURS, write_preview
from benchmark.board.site.project_links import ProjectAddresses, read_addresses
from benchmark.installation.project import declared_urls, is_placeholder, project_urls

OWN = "https://code.example/group/project"
ROOT = Path(__file__).parents[2]


def links(text: str) -> dict[str, str]:
    """Addresses of the links of the navigation of a document, by their text."""
    part = text.partition('aria-label="Project"')[2].partition("</nav>")[0]
    return {name: address for address, name in re.findall(r'<a href="([^"]*)"[^>]*>([^<]*)</a>', part)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of one small row, whose address and repository are known."""
    rows, folder = tmp_path_factory.mktemp("rows"), tmp_path_factory.mktemp("site")
    shutil.copytree(SUBMISSIONS / "2026-11-25_random", rows / "2026-11-25_random")
    words = ["--submissions", str(rows), "--output-dir", str(folder), "--repository", f"{OWN}/", "--site-url", "https://board.example/karel"]  # fmt: skip
    assert main(words) == 0
    return folder


def test_documents_link_to_repository_paper_documentation_submitting_and_data(site):
    for path, data in ((site / "index.html", ""), (next((site / "rows").iterdir()), "../")):
        text = path.read_text()
        assert links(text) == {
            "Repository": OWN, "Paper (DOI)": "https://doi.org/10.48550/arXiv.2305.11169",
            "arXiv 2305.11169": "https://arxiv.org/abs/2305.11169", "Submit a model": f"{OWN}/blob/main/docs/submitting.md",
            "Documentation": f"{OWN}/tree/main/docs", "CSV": f"{data}leaderboard.csv", "JSON": f"{data}leaderboard.json",
        }  # fmt: skip
    assert f'href="{OWN}/blob/main/docs/glossary.md"' in (site / "index.html").read_text()
    (row,) = csv.DictReader((site / "leaderboard.csv").read_text().splitlines())
    assert row["model"] == "random"
    assert json.loads((site / "leaderboard.json").read_text())["groups"][0]["rows"][0]["model"] == "random"
    for part in ("submitting.md", "glossary.md"):
        assert (ROOT / "docs" / part).is_file()


def test_previews_of_a_link_have_title_sentence_and_picture(site):
    for path, location in (("index.html", ""), ("rows/2026-11-25-random.html", "rows/2026-11-25-random.html")):
        meta = {
            attributes.get("property") or attributes.get("name"): attributes["content"]
            for tag, attributes in Reader((site / path).read_text()).elements
            if tag == "meta" and "content" in attributes
        }
        assert meta["og:url"] == f"https://board.example/karel/{location}"
        assert meta["og:image"] == "https://board.example/karel/preview.png"
        assert meta["twitter:card"] == "summary_large_image"
        assert meta["og:title"].endswith("Karel Semantics Benchmark")
    assert meta["og:description"].startswith("Writes a program that is right on the shown examples for 4% of the tasks")
    with Image.open(site / "preview.png") as image:
        assert image.size == (1200, 630)


def test_the_picture_holds_every_family_and_is_the_same_twice(tables, tmp_path):
    for name in ("a.png", "b.png"):
        write_preview(tmp_path / name, tables)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in COLOURS} <= colours
    style = (ROOT / "benchmark" / "board" / "templates" / "board.css").read_text()
    assert re.findall(r"--k\d:(#\w+)", style)[: len(COLOURS)] == list(COLOURS), "as on a light page"


def test_a_placeholder_is_no_link(tables, monkeypatch):
    text = render_index(tables, Links("#board", str), True, ProjectAddresses())
    assert set(links(text)) == {"Paper (DOI)", "arXiv 2305.11169"}
    assert "og:image" not in text
    assert "Glossary of all terms" not in text
    monkeypatch.setattr(
        "benchmark.installation.project.declared_urls", lambda root: {"Repository": "https://x/OWNER/y"}
    )
    assert project_urls() == {}
    assert read_addresses(None, None) == ProjectAddresses()
    assert is_placeholder("javascript:alert(1)")
    assert not is_placeholder(OWN)


def test_addresses_come_from_the_project_and_a_placeholder_is_told(tmp_path, capsys, monkeypatch):
    assert set(declared_urls()) >= {"Repository", "Documentation"}
    own = {"Repository": OWN, "Documentation": "https://docs.example"}
    monkeypatch.setattr("benchmark.board.site.project_links.project_urls", lambda: own)
    assert read_addresses(None, None) == ProjectAddresses(OWN, "https://docs.example")
    monkeypatch.setattr("benchmark.board.site.project_links.project_urls", lambda: {})
    shutil.copytree(SUBMISSIONS / "2026-11-25_random", tmp_path / "rows" / "2026-11-25_random")
    words = ["--submissions", str(tmp_path / "rows"), "--output-dir", str(tmp_path / "site")]
    assert main(words) == 0
    assert "give it with --repository URL" in capsys.readouterr().err
    assert not (tmp_path / "site" / "preview.png").exists()


@pytest.mark.parametrize(
    "address", ["github.com/a/b", "https://github.com/OWNER/b", "javascript:x//", "https://a.example/?q"]
)
def test_what_is_no_address_is_refused(address, capsys):
    assert main(["--repository", address]) == 2
    assert "expected an address of the web such as" in capsys.readouterr().err


def test_a_single_file_has_no_picture_beside_it(capsys):
    assert main(["--single-file", "--site-url", "https://board.example"]) == 2
    assert "leave --single-file out" in capsys.readouterr().err


def test_the_icon_is_a_drawing_of_the_document(tables):
    text = render_index(tables, Links("#board", str), True)
    (icon,) = [attributes for tag, attributes in Reader(text).elements if tag == "link"]
    assert icon["rel"] == "icon"
    assert icon["href"].startswith("data:image/svg+xml,%3Csvg")


def test_a_table_has_few_columns_at_first_and_each_has_a_definition(tables):
    text = render_index(tables, Links("#board", str), True)
    heads = [attributes for tag, attributes in Reader(text).elements if tag == "th" and "data-key" in attributes]
    shown = {head["data-key"] for head in heads if "data-extra" not in head}
    assert shown == {"rank", "model", "held_out", "represents", "uses", "merges", "status"}
    ids = {attributes["id"] for _, attributes in Reader(text).elements if "id" in attributes}
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    columns = glossary.partition("## Columns of the board")[2].partition("\n## ")[0]
    for head in heads:
        assert head["title"]
        assert f"column-{head['data-key'].replace('_', '-')}" in ids
    names = re.findall(r'<th role="columnheader".*?<button type="button">(.*?)</button>', text)
    assert all(f"| {name} |" in columns for name in names)
    keep = replace(tables[0], rows=[])
    assert "pass_at_k" not in keep.columns
