"""The table of rivals in a report is left out: each report would read every shipped row for it."""

from __future__ import annotations

import pytest

import benchmark.review.pull_request


@pytest.fixture(autouse=True)
def no_rivals(monkeypatch):
    monkeypatch.setattr(benchmark.review.pull_request, "read_leaderboard_rows", lambda folder: [])
