"""The body of a row's page, built once per content of its folder: markup, data of the players, sentences."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.board import steering_player
from benchmark.board.cached.rows import page_inputs_digest
from benchmark.board.cached.store import cache_key, cached
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


def read_row_body(folder: Path, ranked_row: RankedRow) -> RowBody:
    """The body of a row's page, from the cache if the files of its folder are those that it was built from.

    Args:
        folder: folder of the submission.
        ranked_row: its row.
    """
    key = cache_key("row body", page_inputs_digest(folder), asdict(steering_player.PAIR_SETTINGS))
    content = cached(key, lambda: json.dumps(asdict(build_row_body(folder, ranked_row))).encode())
    return RowBody(**json.loads(content))


def build_row_body(folder: Path, ranked_row: RankedRow) -> RowBody:
    """Build the body; arguments as of `read_row_body`."""
    # SciPy, the compiler and the templates are loaded where a page is built.
    from benchmark.board.row_page import build_row_page, describe_row_semantics
    from benchmark.board.site.documents import json_block, render_row_body

    page = build_row_page(folder, ranked_row)
    html = render_row_body(p=page, e=ranked_row.row)
    return RowBody(html, str(json_block(page.player_data)), page.summary, describe_row_semantics(page.player_data))
