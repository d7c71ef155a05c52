"""Is this commit fit to be released under a tag: `python .ci/check_release.py --tag v1.2.3 --repository URL --notes FILE`.

Tag, version in pyproject.toml and newest dated heading of CHANGELOG.md must agree, nothing may stand under "Unreleased",
and the project's address must be that of the repository that releases. The section of the changelog is written as notes.
Exit codes: 0 fit, 2 not fit.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADING = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)
DATED = re.compile(r"(?P<version>\d+\.\d+\.\d+) \((?P<date>\d{4}-\d\d-\d\d)\)")
UNRELEASED = "Unreleased"


class NotFitError(Exception):
    """What has to be changed before a release, in one line."""


def sections(changelog: str) -> dict[str, str]:
    """Text below each heading of the second level, by the heading, in order."""
    headings = list(HEADING.finditer(changelog))
    ends = [*(heading.start() for heading in headings[1:]), len(changelog)]
    return {
        heading["title"].strip(): changelog[heading.end() : end].strip()
        for heading, end in zip(headings, ends, strict=False)
    }


def release_notes(project: dict[str, object], changelog: str, tag: str, repository: str) -> str:
    """The changelog's section of the version that a tag names.

    Args:
        project: the table `project` of pyproject.toml.
        changelog: text of CHANGELOG.md.
        tag: of the commit, such as v1.2.3.
        repository: address that the release is made at.

    Raises:
        NotFitError: they do not agree.
    """
    version, urls = project["version"], project["urls"]
    assert isinstance(urls, dict)
    if tag != f"v{version}":
        raise NotFitError(f"tag {tag}, expected v{version}, the version in pyproject.toml; change one of them")
    if urls["Repository"] != repository:
        raise NotFitError(
            f"Repository in pyproject.toml is {urls['Repository']}, expected {repository}; replace it wherever it stands"
        )
    parts = sections(changelog)
    if parts.pop(UNRELEASED, ""):
        raise NotFitError(
            f"CHANGELOG.md has entries under {UNRELEASED}; give them a heading such as {version} (2026-01-31)"
        )
    newest = next(iter(parts), "nothing")
    dated = DATED.fullmatch(newest)
    if dated is None or dated["version"] != version:
        raise NotFitError(f"the newest heading of CHANGELOG.md is {newest}, expected {version} (its date)")
    return parts[newest] + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check that a commit is fit to be released under a tag.")
    parser.add_argument("--tag", required=True, help="of the commit, such as v1.2.3")
    parser.add_argument("--repository", required=True, metavar="URL", help="address that the release is made at")
    parser.add_argument("--notes", type=Path, required=True, metavar="FILE", help="where the release notes are written")
    options = parser.parse_args(arguments)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    try:
        notes = release_notes(project, (ROOT / "CHANGELOG.md").read_text(), options.tag, options.repository)
    except NotFitError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    options.notes.write_text(notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
