"""The page of a row without its artifacts, in a real Chromium: figures, a sentence in place of the player, no fault."""

from __future__ import annotations

import pytest
from test_browser import CHROMIUM, expect

from benchmark.board.page import main
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.submit.artifacts.publish import publish

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found, or a path in CHROMIUM")
NAME = "2026-11-25_n-gram"


@pytest.mark.parametrize("layout", ["folder", "single file"])
def test_a_page_without_artifacts_has_no_fault(layout, browser, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KAREL_BENCH_ARTIFACTS", raising=False)
    publish(SOURCE_ROOT / "submissions" / NAME, tmp_path)
    words = ["--submissions", str(tmp_path / "submissions")]
    if layout == "folder":
        assert main([*words, "--output-dir", str(tmp_path / "site")]) == 0
        document = next((tmp_path / "site" / "rows").glob("*.html")).as_uri()
    else:
        assert main([*words, "--output-dir", str(tmp_path / "site"), "--single-file"]) == 0
        document = f"{(tmp_path / 'site' / 'index.html').as_uri()}#n-gram"
    problems: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(document)
    if layout == "folder":
        expect(page.get_by_text("Not at hand when this page was built")).to_be_visible()
        expect(page.get_by_text("No program of this row was at hand")).to_be_visible()
        expect(page.get_by_text("10.2 [8.5, 12.2]").first).to_be_visible()
    else:
        expect(page.get_by_text("n-gram").first).to_be_visible()
    page.close()
    assert problems == []
