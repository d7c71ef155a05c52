"""How a row is proposed: a clone of the project, a branch with one folder, a pull request. Commands as text; none is run."""

from __future__ import annotations

import shlex
from pathlib import Path

from benchmark.installation.project import OWNER_PLACEHOLDER, is_clone, repository_address

YOU = "YOU"
"""Stands for the name of the fork's owner."""


def describe_clone(submissions: Path) -> str:
    """What to do first where the folder of submissions is in no clone of the project; empty if it is in one."""
    if is_clone(submissions.absolute().parent):
        return ""
    address = repository_address() or "the project's repository"
    return (
        f"note: {submissions.absolute().parent} is no clone of the project, and a row is proposed from one: fork {address}, "
        f"git clone your fork, and call this command in it, or move the new folder into its submissions/{_placeholder_note()}"
    )


def describe_proposal(folder: Path) -> str:
    """The git commands that propose the folder of a submission, and what happens then."""
    address = repository_address() or f"https://github.com/{OWNER_PLACEHOLDER}/karel-semantics-benchmark"
    host, _, slug = address.rsplit("/", 2)
    name = folder.name.partition("_")[2] or folder.name
    branch = f"row-{name}"
    return "\n".join(
        [
            f"to propose it, with a fork of {address}{_placeholder_note()}:",
            f"  git remote add fork {host}/{YOU}/{slug}.git    # not needed in a clone of your fork: then push to origin",
            f"  git switch -c {shlex.quote(branch)} && git add submissions/{shlex.quote(folder.name)} && "
            f"git commit -m {shlex.quote(f'submissions: {name}')}",
            f"  git push fork {shlex.quote(branch)}",
            f"  {address}/compare/main...{YOU}:{branch}    # opens the pull request",
            "A workflow verifies it without the model; after the merge a maintainer writes its status and the leaderboard.",
        ]
    )


def _placeholder_note() -> str:
    """A note where the address is not the project's own yet."""
    is_placeholder = f"/{OWNER_PLACEHOLDER}/" in repository_address()
    return (
        f" ({OWNER_PLACEHOLDER} stands for the project's home, which this copy does not know)" if is_placeholder else ""
    )
