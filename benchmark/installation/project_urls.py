"""Addresses of the project: those of `pyproject.toml`, in a checkout from the file and else from the installed metadata."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from urllib.parse import urlsplit

from benchmark.installation.paths import SOURCE_ROOT, is_checkout

DISTRIBUTION = "karel-semantics-benchmark"
PLACEHOLDER = "OWNER"
"""Owner in the addresses of a project that has no repository yet; addresses with it lead nowhere."""


def declared_urls(root: Path = SOURCE_ROOT) -> dict[str, str]:
    """Addresses by label (`Repository`, `Documentation`, ...) as they are declared; empty if none are."""
    if is_checkout(root):
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        return dict(project.get("urls", {}))
    try:
        entries = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:
        return {}
    pairs = (entry.partition(",") for entry in entries)
    return {label.strip(): url.strip() for label, _, url in pairs}


def is_placeholder(url: str) -> bool:
    """Whether an address leads nowhere: it has a placeholder for its owner, or it is none of the web."""
    parts = urlsplit(url)
    return parts.scheme not in ("http", "https") or not parts.netloc or PLACEHOLDER in parts.path.split("/")


def project_urls(root: Path = SOURCE_ROOT) -> dict[str, str]:
    """`declared_urls` without placeholders."""
    return {label: url for label, url in declared_urls(root).items() if not is_placeholder(url)}
