"""The body of a row's page, built once per content of its folder: markup, data of the players, sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.board import steering_player
from benchmark.board.cached.in_processes import CachedPart, compute_missing
from benchmark.board.cached.rows import page_inputs_digest
from benchmark.board.cached.store import cache_key
from benchmark.board.ranking import RankedRow


@dataclass(frozen=True)
class RowBody:
    """The part of a row's page that does not depend on other rows.

    Attributes:
        html: markup of its sections.
        player_data: JSON of the data of its players, safe inside an HTML script element.
        summary: what it shows, in sentences.
        semantics: description of each semantics in its readings, by name.
    """

    html: str
    player_data: str
    summary: list[str]
    semantics: dict[str, str]


def read_row_bodies(submissions: Path, ranked_rows: Iterable[RankedRow]) -> Iterator[RowBody]:
    """The bodies of the pages of rows, from the cache if the files of their folders are those that they were built from.

    Args:
        submissions: folder of all submissions.
        ranked_rows: the rows.
    """
    parts = [_body_part(submissions / ranked_row.row.folder, ranked_row) for ranked_row in ranked_rows]
    compute_missing(parts)
    for part in parts:
        yield RowBody(**json.loads(part.read()))


def _body_part(folder: Path, ranked_row: RankedRow) -> CachedPart:
    def find_key() -> str:
        return cache_key("row body", page_inputs_digest(folder), asdict(steering_player.PAIR_SETTINGS))

    return CachedPart(
        find_key(),
        lambda: json.dumps(asdict(build_row_body(folder, ranked_row))).encode(),
        ranked_row.row.record.suite.name,
        find_key,
    )


def build_row_body(folder: Path, ranked_row: RankedRow) -> RowBody:
    """Build the body of the page of a row, in the folder of its submission."""
    # SciPy, the compiler and the templates are loaded where a page is built.
    from benchmark.board.row_page import build_row_page, describe_row_semantics
    from benchmark.board.site.documents import json_block, render_row_body

    page = build_row_page(folder, ranked_row)
    html = render_row_body(p=page, e=ranked_row.row)
    return RowBody(html, str(json_block(page.player_data)), page.summary, describe_row_semantics(page.player_data))
