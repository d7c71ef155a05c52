"""The rows of the shipped submissions, read once by a process; files that use them are one group."""

from __future__ import annotations

from functools import cache

from benchmark.board.ranking import LeaderboardRow, read_leaderboard_rows
from benchmark.installation.paths import SOURCE_ROOT

SUBMISSIONS = SOURCE_ROOT / "submissions"


@cache
def shipped() -> list[LeaderboardRow]:
    """All of them, in the order of their folders; read only."""
    return read_leaderboard_rows(SUBMISSIONS)
