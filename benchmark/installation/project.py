"""The project's address: that of `pyproject.toml` in a checkout, of the package's metadata where it is installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from benchmark.installation.paths import SOURCE_ROOT, is_checkout

DISTRIBUTION = "karel-semantics-benchmark"
OWNER_PLACEHOLDER = "OWNER"
"""Stands for the owner of the repository until the project has its home."""


def repository_address(root: Path = SOURCE_ROOT) -> str:
    """The address of the repository; empty if neither a checkout nor the metadata tells it."""
    if is_checkout(root):
        return str(tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"])
    try:
        entries = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    urls = dict(entry.split(", ", 1) for entry in entries)
    return urls.get("Repository", "")


def is_clone(folder: Path) -> bool:
    """Whether a folder is a git clone of the project, into which a row can be committed."""
    return (folder / ".git").exists() and (folder / "pyproject.toml").is_file() and (folder / "benchmark").is_dir()
