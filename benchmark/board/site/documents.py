"""HTML documents of the page from their templates: style and script inline, a content security policy, escaped text.

Each document holds its style and one script, which is put together from the parts that the document needs; the policy
allows these two, by SHA-256, and the icon that is part of the document. Nothing is loaded, so that a document works from a folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark.board.markup import spell_hidden
from benchmark.board.measurements import MEASUREMENT_COLUMNS
from benchmark.board.sections.decoding import DECODING_COLUMNS
from benchmark.board.site.group_table import (
    COLUMN_NAMES,
    DEFINITIONS,
    EXTRA_COLUMNS,
    SHARE_COLUMNS,
    SORTED_COLUMNS,
    GroupTable,
    TableRow,
    pictured_table,
)
from benchmark.board.site.project_links import PREVIEW_FILE, ProjectAddresses
from benchmark.board.site.result_sentence import result_sentence
from benchmark.board.site.row_body import RowBody
from karel_env.world import HEADINGS

GENERATOR = "karel-bench page"
TITLE = "Karel Semantics Benchmark"
STYLE = "board.css"
SINGLE_SCRIPT = ("start.js", "table.js", "player.js", "steering.js", "views.js")
INDEX_SCRIPT = ("start.js", "table.js", "redirect.js")
ROW_SCRIPT = ("start.js", "player.js", "steering.js", "row.js")
GROUP_SCRIPT = ("start.js",)
"""Parts of the scripts of the page in one file, of the first page, of the page of a row, and of the pictures of a group."""
BOARD_FRAGMENT = "#board"
NO_ADDRESSES = ProjectAddresses()
ESCAPED = re.compile(r"\\[^nt\"\\]|\x7f")
"""Characters that JSON of ASCII spells out, other than line ends, tabs and quotes, and the one invisible character that it does not."""


@dataclass(frozen=True)
class Links:
    """Addresses that a document uses.

    Attributes:
        home: of the board.
        row: of the page of a row, by its slug.
        data_folder: of the folder of the data; None without data.
    """

    home: str
    row: Callable[[str], str]
    data_folder: str | None = None


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("benchmark.board", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_escape_value,
    )  # fmt: skip


@cache
def _script(parts: tuple[str, ...]) -> str:
    body = "\n".join(_read_part(name).rstrip() for name in parts)
    return f'"use strict";\n(() => {{\n{body}\n}})();\n'


@dataclass(frozen=True)
class Frame:
    """What a document is beside its content.

    Attributes:
        parts: parts of its script.
        links: addresses of other documents of the site.
        addresses: addresses of the web.
        title: its title.
        description: what it says in a sentence, for previews of links to it.
        path: its path in the site.
    """

    parts: tuple[str, ...]
    links: Links
    addresses: ProjectAddresses
    title: str = TITLE
    description: str = ""
    path: str = ""


def _render(template: str, frame: Frame, **values: Any) -> str:
    style, script = _read_part(STYLE), _script(frame.parts)
    site = frame.addresses.site
    return _environment().get_template(template).render(
        style=Markup(style), script=Markup(script), policy=content_security_policy(style, script), frame=frame,
        generator=GENERATOR, home=frame.links.home, address=frame.links.row, glossary=frame.addresses.glossary,
        project_links=frame.addresses.links(frame.links.data_folder), site_name=TITLE,
        location=site and site + frame.path, preview=site and site + PREVIEW_FILE, **values,
    )  # fmt: skip


def _table_values(tables: Sequence[GroupTable]) -> dict[str, Any]:
    rows = [row.ranked_row.row for table in tables for row in table.rows]
    pictured = pictured_table(tables)
    return {
        "tables": sorted(tables, key=lambda table: table is not pictured), "measured": MEASUREMENT_COLUMNS, "definitions": DEFINITIONS, "column_names": COLUMN_NAMES,
        "shares": [*SHARE_COLUMNS, *DECODING_COLUMNS], "extra": EXTRA_COLUMNS, "sorted": _sorted_columns(tables),
        "families": sorted({row.family for row in rows}), "statuses": sorted({row.status for row in rows}),
        "result": result_sentence(tables), "pictured": pictured,
    }  # fmt: skip


def _sorted_columns(tables: Sequence[GroupTable]) -> dict[str, str]:
    """Columns by which rows are sorted on request, by key: their names."""
    present = {key for table in tables for key in table.columns}
    return {key: name for key, name in SORTED_COLUMNS.items() if key in present}


def render_single(
    tables: Sequence[GroupTable], bodies: Mapping[str, RowBody], addresses: ProjectAddresses = NO_ADDRESSES
) -> str:
    """The whole page as one document.

    Args:
        tables: tables of the groups.
        bodies: body of the page of each row, by its slug.
        addresses: addresses of the web.
    """
    links = Links(BOARD_FRAGMENT, lambda slug: f"#{slug}")
    rows = [(table, row) for table in tables for row in table.rows]
    articles = (_article(table, row, bodies[row.slug], links, is_open=False) for table, row in rows)
    data = player_data({row.slug: bodies[row.slug] for _, row in rows})
    frame = Frame(SINGLE_SCRIPT, links, addresses, description=result_sentence(tables))
    return _render(
        "board.html", frame, articles=articles, data=data, is_open=False, is_detailed=True, **_table_values(tables)
    )


def render_index(
    tables: Sequence[GroupTable], links: Links, is_detailed: bool, addresses: ProjectAddresses = NO_ADDRESSES
) -> str:
    """The first page of a site: the tables, and with `is_detailed` also strips, tooltips and the pictures of each group."""
    frame = Frame(INDEX_SCRIPT, links, addresses, description=result_sentence(tables))
    return _render("index.html", frame, is_open=True, is_detailed=is_detailed, **_table_values(tables))


def render_row(
    table: GroupTable, row: TableRow, body: RowBody, links: Links, addresses: ProjectAddresses = NO_ADDRESSES
) -> str:
    """The page of one row as a document."""
    title = f"{row.ranked_row.row.name} - {TITLE}"
    frame = Frame(ROW_SCRIPT, links, addresses, title, " ".join(body.summary[:1]), f"rows/{row.slug}.html")
    article = _article(table, row, body, links, is_open=True)
    return _render("row.html", frame, article=article, data=player_data({row.slug: body}))


def render_group(table: GroupTable, links: Links, addresses: ProjectAddresses = NO_ADDRESSES) -> str:
    """The pictures and the probes of protocol 3 of one group as a document."""
    frame = Frame(GROUP_SCRIPT, links, addresses, f"{table.group.suite} - {TITLE}", path=f"groups/{table.slug}.html")
    return _render("group.html", frame, table=table)


def _article(table: GroupTable, row: TableRow, body: RowBody, links: Links, is_open: bool) -> Markup:
    """The element of a row: rank and status, which depend on other rows and on the verification, then its body."""
    text = _environment().get_template("article.html").render(
        line=row, group=table.group, body=Markup(body.html), summary=body.summary, home=links.home, is_open=is_open,
        address=links.row,
    )  # fmt: skip
    return Markup(text)


def render_row_body(**values: Any) -> str:
    """The part of a row's page that depends on its folder only."""
    return _environment().get_template("row_body.html").render(**values)


def player_data(bodies: Mapping[str, RowBody]) -> Markup:
    """JSON data of the players of some rows, by slug, safe inside an HTML script element."""
    meanings: dict[str, str] = {}
    for body in bodies.values():
        meanings |= body.semantics
    rows = ",".join(f'"{slug}":{body.player_data}' for slug, body in bodies.items())
    return Markup(f'{{"rows":{{{rows}}},"meanings":{json_block(meanings)},"headings":{json_block(list(HEADINGS))}}}')


def _escape_value(value: Any) -> Any:
    """Spell out direction overrides and invisible characters in a template value; other values are unchanged."""
    return spell_hidden(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read_part(name: str) -> str:
    """A style sheet or a part of a script, which stands in the page as it is."""
    loader = _environment().loader
    assert loader is not None
    text = loader.get_source(_environment(), name)[0]
    if "</" in text:
        raise ValueError(f"{name}: contains '</', which would close its HTML element")
    return text


def content_security_policy(style: str, script: str) -> str:
    """Content security policy that allows this style and this script, by SHA-256, pictures within the document, and nothing else."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def json_block(data: Any) -> Markup:
    """Serialize to JSON that is safe inside an HTML script element, like jinja's `tojson` but compact."""
    text = json.dumps(data, separators=(",", ":"))
    if ESCAPED.search(text):
        text = json.dumps(_escape_nested(data), separators=(",", ":"))
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _escape_nested(value: Any) -> Any:
    if isinstance(value, dict):
        return {spell_hidden(str(key)): _escape_nested(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_escape_nested(inner) for inner in value]
    return spell_hidden(value) if isinstance(value, str) else value
