"""What the tests of the page in a real Chromium share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def browser():
    """Chromium; the files that ask for it are skipped where there is none."""
    from test_browser import ARGUMENTS, CHROMIUM, PATIENCE, playwright

    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE)
        yield chromium
        chromium.close()
