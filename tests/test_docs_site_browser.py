"""A message that is pasted into the field or the search of the documentation's site leads to its section, in a real Chromium."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
ROOT = Path(__file__).parent.parent
PATIENCE = 600_000
"""Milliseconds; nothing is late, however busy the machine is."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
MESSAGE = (
    "error: --suite lap: no such suite; use one of laptop, smoke, or the path of a .yaml file (did you mean laptop?)"
)
ADDRESS = "options/#the-suite-does-not-exist-or-its-file-cannot-be-read"
PASTE = """text => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    const box = document.querySelector(".md-search__input");
    box.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
}"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no Chromium found: {', '.join(NAMES)}, or a path in CHROMIUM"
)


@pytest.fixture
def site(tmp_path) -> Path:
    """The first page on errors, as far as the script needs it, with the search of mkdocs-material around it."""
    spec = importlib.util.spec_from_file_location("docs_messages", ROOT / ".ci" / "docs_messages.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    for name in ("errors", "javascripts"):
        (tmp_path / name).mkdir()
    hook.on_post_build({"site_dir": str(tmp_path)})
    shutil.copy(ROOT / "docs" / "javascripts" / "messages.js", tmp_path / "javascripts")
    text = (ROOT / "docs" / "errors" / "index.md").read_text()
    field = next(line for line in text.splitlines() if 'id="message-finder"' in line)
    page = tmp_path / "errors" / "index.html"
    page.write_text(
        '<input class="md-search__input"><div class="md-search__scrollwrap"></div>'
        f'{field}<script src="../javascripts/messages.js"></script>'
    )
    return page


def test_a_pasted_message_leads_to_its_section(site):
    problems = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(site.as_uri())
        field, link = page.locator("#message-finder input"), page.locator("#message-finder a")
        for text in (MESSAGE, "no such suite", MESSAGE[:50]):
            field.fill(text)
            link.wait_for()
            assert link.get_attribute("href").endswith(f"/errors/{ADDRESS}")
        field.fill("nothing of the sort")
        page.get_by_text("No message fits").wait_for()
        page.evaluate(PASTE, MESSAGE)
        hit = page.locator(".md-search__scrollwrap a")
        hit.wait_for()
        assert hit.get_attribute("href").endswith(f"/errors/{ADDRESS}")
        words = page.locator(".md-search__input").input_value()
        assert words.startswith("suite lap no such suite use one of laptop smoke"), "without the search's operators"
        browser.close()
    assert problems == []
