"""The site as a folder: a document per row, a first page whose size does not depend on them, and nothing of a submitter as markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from html_reader import Reader
from many_rows import make_rows
from measured_rows import few_pairs
from shown_board import IMAGE, ROWS, SCRIPT, add_hostile, copy_rows

from benchmark.board.page import main
from benchmark.board.site import row_body
from benchmark.board.site.folder import MAX_DETAILED_ROWS

LINK = re.compile(
    r"#[A-Za-z0-9-]*|(\.\./)?((rows/|groups/)?[A-Za-z0-9-]+\.html|leaderboard\.(csv|json))|https://(doi|arxiv)\.org/[\w/.]+"
)
BYTES_PER_ROW, BYTES_OF_PAGE = 900, 60_000
"""Largest size of a row's line and of the rest of a first page, so that a thousand rows are less than 1 MB."""


def write(submissions: Path, site: Path, *words: str) -> dict[str, str]:
    """Write the site; returns the text of each document by its path."""
    with few_pairs():
        assert main(["--submissions", str(submissions), "--output-dir", str(site), *words]) == 0
    return {path.relative_to(site).as_posix(): path.read_text() for path in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def submissions(tmp_path_factory, cache) -> Path:
    """Three rows and a hostile one."""
    target = copy_rows(tmp_path_factory.mktemp("rows"))
    add_hostile(target)
    return target


@pytest.fixture(scope="module")
def documents(submissions, tmp_path_factory) -> dict[str, str]:
    return write(submissions, tmp_path_factory.mktemp("site"))


def test_each_row_has_a_document_and_the_first_page_links_to_it(documents):
    assert len(documents) == 5
    links = {attributes.get("href") for _, attributes in Reader(documents["index.html"]).elements}
    rows = set(documents) - {"index.html"}
    assert rows == {link for link in links if link and link.startswith("rows/")}
    for name in rows:
        assert Reader(documents[name]).open == []
        data = json.loads(re.search(r'id="data">(.*?)</script>', documents[name], re.DOTALL).group(1))
        assert [f"rows/{slug}.html" for slug in data["rows"]] == [name]
        assert '<a href="../index.html">← Leaderboard</a>' in documents[name]
    assert 'id="data"' not in documents["index.html"]
    for name in ("Figures", "Represents", "Uses", "Merges", "Player", "Provenance"):
        assert f'aria-label="{name}"' in documents[f"rows/{ROWS[0].replace('_', '-')}.html"]


def test_nothing_is_fetched_and_the_policy_allows_only_what_is_in_a_document(documents):
    for text in documents.values():
        reader = Reader(text)
        for tag, attributes in reader.elements:
            assert tag not in {"img", "iframe", "object", "embed", "base"}
            assert "src" not in attributes
            assert "style" not in attributes
            assert not any(name.startswith("on") for name in attributes)
            if tag == "link":
                assert attributes["rel"] == "icon"
                assert attributes["href"].startswith("data:image/svg+xml,")
            else:
                assert LINK.fullmatch(attributes.get("href") or "#")
        policy = next(a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
        style, script = re.search(r"<style>(.*?)</style>.*<script>(.*?)</script>", text, re.DOTALL).groups()
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
        assert policy == (
            f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )
        assert re.findall(r"https?://[^\"]*", script) == ["http://www.w3.org/2000/svg"]
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "import("):
            assert sink not in script


def test_what_a_submitter_wrote_is_text(documents):
    (name,) = [name for name in documents if "hacked" in name]
    for path in ("index.html", name):
        reader = Reader(documents[path])
        assert reader.open == []
        assert sum(tag == "script" for tag, _ in reader.elements) == (1 if path == "index.html" else 2)
        words = "".join(reader.texts)
        assert IMAGE in words
        ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
    words = "".join(Reader(documents[name]).texts)
    assert SCRIPT in words
    assert f"N/A: {SCRIPT}{IMAGE}." in words
    data = json.loads(re.search(r'id="data">(.*?)</script>', documents[name], re.DOTALL).group(1))
    (plays,) = data["rows"].values()
    assert next(task for task in plays["tasks"] if task["kind"] == "unparsable")["text"] == SCRIPT + IMAGE


def test_the_folder_says_what_the_single_file_says(submissions, documents, tmp_path):
    """Every text of the page in one file is in the folder too."""
    single = write(submissions, tmp_path, "--single-file")
    assert list(single) == ["index.html"]
    data = re.compile(r'<script type="application/json".*?</script>', re.DOTALL)
    script = re.compile(r"<script>.*?</script>", re.DOTALL)
    texts = [
        {text.strip() for text in Reader(script.sub("", data.sub("", document))).texts}
        for document in (single["index.html"], "".join(documents.values()))
    ]
    assert texts[0] - texts[1] == set()
    assert texts[1] - texts[0] <= {"Skip to the row", "CSV", "JSON", ""} | {
        text for text in texts[1] if text.endswith(" Benchmark")
    }


def test_a_second_writing_builds_nothing_and_deletes_what_is_no_more(submissions, tmp_path, monkeypatch):
    target, site = tmp_path / "rows", tmp_path / "site"
    shutil.copytree(submissions, target)
    first = write(target, site)
    written = {path: path.stat().st_mtime_ns for path in site.rglob("*.html")}
    built = []
    monkeypatch.setattr(row_body, "build_row_body", lambda folder, row: built.append(folder.name))
    assert write(target, site) == first
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*.html")} == written, "files are left alone"
    (site / "rows" / "notes.html").write_text("my notes")
    shutil.rmtree(target / ROWS[2])
    names = set(write(target, site))
    assert set(first) - names == {f"rows/{ROWS[2].replace('_', '-')}.html"}
    assert names - set(first) == {"rows/notes.html"}, "files of others are left alone"
    assert built == []


def test_a_row_that_is_refused_leaves_the_first_page(submissions, tmp_path, capsys):
    target, site = tmp_path / "rows", tmp_path / "site"
    shutil.copytree(submissions, target)
    before = write(target, site)["index.html"]
    (target / ROWS[0] / "readings.json.gz").write_bytes(b"?")
    capsys.readouterr()
    assert main(["--submissions", str(target), "--output-dir", str(site)]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert (site / "index.html").read_text() == before


def test_the_first_page_of_a_large_board_does_not_grow_with_the_data_of_its_rows(tmp_path, cache, monkeypatch):
    """More rows than a first page shows in detail: a line per row, whatever the rows hold; pictures on a page of their own."""
    monkeypatch.setattr("benchmark.board.site.folder.MAX_DETAILED_ROWS", 8)
    assert MAX_DETAILED_ROWS > 50
    names = make_rows(tmp_path / "rows", 12, ("2026-11-25_gpt-laptop", "2026-11-25_n-gram"))
    built = []
    body = row_body.RowBody("", '{"tasks":[],"blind":null,"steering":null}', [], {})

    def build(folder, ranked_row):
        built.append(folder.name)
        return body

    monkeypatch.setattr(row_body, "build_row_body", build)
    small = write(tmp_path / "rows", tmp_path / "small")
    assert sorted(built) == sorted(names)
    body = row_body.RowBody(
        "x" * 100_000, json.dumps({"tasks": ["x" * 100_000], "blind": None, "steering": None}), [], {}
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    large = write(tmp_path / "rows", tmp_path / "large")
    assert large["index.html"] == small["index.html"]
    assert len(large["index.html"].encode()) < BYTES_OF_PAGE + 12 * BYTES_PER_ROW < 1e6
    assert BYTES_OF_PAGE + 1000 * BYTES_PER_ROW < 1e6
    assert sum(map(len, large.values())) > sum(map(len, small.values())) + 12 * 200_000
    (group,) = [name for name in large if name.startswith("groups/")]
    assert f'href="{group}"' in large["index.html"]
    assert "Represents against uses" in large[group]
    assert "<figcaption>" not in large["index.html"]
    index = Reader(large["index.html"])
    assert "".join(index.texts).count("gpt-laptop-0") == 6
    assert [
        sum(tag == "tr" for tag, _ in Reader(documents["index.html"]).elements) for documents in (small, large)
    ] == ([sum(tag == "tr" for tag, _ in index.elements)] * 2)
