"""The project's addresses: those of `pyproject.toml` in a checkout, of the package's metadata where it is installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from urllib.parse import urlsplit

from benchmark.installation.paths import SOURCE_ROOT, is_checkout

DISTRIBUTION = "karel-semantics-benchmark"
OWNER_PLACEHOLDER = "OWNER"
"""Stands for the owner of the repository until the project has its home; addresses with it lead nowhere."""
REPOSITORY, DOCUMENTATION = "Repository", "Documentation"
"""Labels of `project.urls`."""


def declared_urls(root: Path = SOURCE_ROOT) -> dict[str, str]:
    """Addresses by label as they are declared; empty if neither a checkout nor the metadata tells them."""
    if is_checkout(root):
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
    return parts.scheme not in ("http", "https") or not parts.netloc or OWNER_PLACEHOLDER in parts.path.split("/")


def project_urls(root: Path = SOURCE_ROOT) -> dict[str, str]:
    """`declared_urls` without placeholders."""
    return {label: url for label, url in declared_urls(root).items() if not is_placeholder(url)}


def repository_address(root: Path = SOURCE_ROOT) -> str:
    """The declared address of the repository, which may have a placeholder; empty if it is not known."""
    return declared_urls(root).get(REPOSITORY, "")


def is_clone(folder: Path) -> bool:
    """Whether a folder is a git clone of the project, into which a row can be committed."""
    return (folder / ".git").exists() and (folder / "pyproject.toml").is_file() and (folder / "benchmark").is_dir()
