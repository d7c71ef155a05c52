"""Hook of mkdocs: links of a page to files outside `docs/` lead to the repository."""

from __future__ import annotations

import re
from typing import Any

UPWARD = re.compile(r"\]\(((?:\.\./)+)([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace `](../FILE)` by an address in the repository, where it leads out of `docs/`."""
    depth = page.file.src_uri.count("/")

    def replace(match: re.Match[str]) -> str:
        is_outside = match[1].count("../") > depth
        return f"]({config['repo_url']}/blob/main/{match[2]})" if is_outside else match[0]

    return UPWARD.sub(replace, markdown)
