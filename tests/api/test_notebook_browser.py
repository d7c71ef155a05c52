"""The player of a notebook in a real Chromium: steps, examples, and answers that are no program."""

from __future__ import annotations

import os
import shutil

import pytest

from benchmark.api.inline import Player
from benchmark.board.player import build_player_tasks
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
PATIENCE = 600_000
"""Milliseconds; nothing is late, however busy the machine is."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no Chromium found: {', '.join(NAMES)}, or a path in CHROMIUM"
)


def test_programs_are_played_step_by_step(tmp_path) -> None:
    suite = load_suite("smoke")
    texts = [text.removeprefix(HEADER_TEXT) for text in tasks_of(suite).programs.texts()[:2]]
    samples = [{"task": i, "text": text, "outcome": "solved", "held_out": True} for i, text in enumerate(texts)]
    samples.append({"task": 2, "text": "</script><b>fly();", "outcome": "unparsable", "held_out": False})
    page_file = tmp_path / "output.html"
    page_file.write_text(Player(build_player_tasks(suite, samples))._repr_html_())
    problems = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE)
        context = browser.new_context(viewport={"width": 700, "height": 500})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_file.as_uri())
        frame = page.frame_locator("iframe")
        says, world, expected = (frame.locator(name) for name in ("#says", "table#now", "table#expected"))
        for number in range(2):
            frame.locator("#task").select_option(str(number))
            for example in range(suite.recipe.examples):
                frame.locator("#example").select_option(str(example))
                assert "step 0 of" in says.inner_text()
                num_steps = int(says.inner_text().split(" of ")[1].split(";")[0])
                for _ in range(num_steps):
                    frame.get_by_role("button", name="step", exact=True).click()
                assert f"step {num_steps} of" in says.inner_text()
                assert "right (ok)" in says.inner_text()
                assert cells_of(world) == cells_of(expected)
        frame.get_by_role("button", name="step back").click()
        assert frame.locator("#program b").count() == 1 or num_steps == 1
        page.screenshot(path=tmp_path / "player.png")
        frame.locator("#task").select_option("2")
        assert "no program" in says.inner_text()
        assert "</script><b>fly();" in frame.locator("#program").inner_text()
        browser.close()
    assert problems == []


def cells_of(table) -> list[str]:
    return table.locator("td").all_inner_texts()
