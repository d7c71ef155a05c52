"""Files that a pull request changes: the difference of a merge commit from its first parent.

The difference is read from the commits with git plumbing commands, which run no hook, filter or setting of the checkout.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmark.errors import UsageError
from benchmark.files import sanitize

SUBMISSIONS = "submissions"
NO_FILE, FILE, EXECUTABLE, SYMLINK, SUBMODULE = "000000", "100644", "100755", "120000", "160000"
MODE_NAMES = {EXECUTABLE: "a program (mode 100755)", SYMLINK: "a link", SUBMODULE: "a submodule", "040000": "a folder"}
ADDED, EDITED, DELETED = "added", "edited", "deleted"
GIT_TIMEOUT = 120
MAX_FILES = 5_000


@dataclass(frozen=True)
class ChangedFile:
    """A file in the base and in the merge commit.

    Attributes:
        path: path from the root of the repository.
        mode_before, mode_after: git file modes; `NO_FILE` if the file does not exist.
    """

    path: str
    mode_before: str
    mode_after: str

    @property
    def action(self) -> str:
        """`ADDED`, `EDITED` or `DELETED`."""
        if self.mode_before == NO_FILE:
            return ADDED
        return DELETED if self.mode_after == NO_FILE else EDITED

    @property
    def folder(self) -> str | None:
        """Name of the submission folder; None outside of `submissions/NAME/`."""
        parts = PurePosixPath(self.path).parts
        return parts[1] if len(parts) > 2 and parts[0] == SUBMISSIONS else None

    @property
    def name(self) -> str:
        """Path within the submission folder; the full path outside of `submissions/NAME/`."""
        return "/".join(PurePosixPath(self.path).parts[2:]) if self.folder is not None else self.path

    def rejection_reason(self) -> str | None:
        """Return why the change of this file is refused (its type or location), or None."""
        if self.folder is None:
            reason = f"{sanitize(self.path)}: outside of {SUBMISSIONS}/NAME/; propose it in a separate pull request"
            return f"{reason} ({MODE_NAMES[self.mode_after]})" if self.mode_after in MODE_NAMES else reason
        if self.mode_after not in (FILE, NO_FILE):
            return f"{sanitize(self.path)}: {MODE_NAMES.get(self.mode_after, f'mode {self.mode_after}')}; a submission holds plain files of mode {FILE}"
        if self.mode_before not in (FILE, NO_FILE):
            return f"{sanitize(self.path)}: {MODE_NAMES.get(self.mode_before, f'mode {self.mode_before}')} in the base; a maintainer must correct it first"
        return None


@dataclass(frozen=True)
class Change:
    """Changes of a pull request.

    Attributes:
        checkout: work tree of the merge commit.
        base: base commit.
        base_time: commit time of the base, in seconds since 1970.
        files: changed files.
        folders_before, folders_after: names of the submission folders in the base and in the merge commit.
    """

    checkout: Path
    base: str
    base_time: int
    files: tuple[ChangedFile, ...]
    folders_before: frozenset[str]
    folders_after: frozenset[str]

    def folders(self) -> list[str]:
        """List the names of the changed submissions."""
        return sorted({file.folder for file in self.files if file.folder is not None})

    def files_of(self, folder: str) -> list[ChangedFile]:
        """List the changed files of a submission."""
        return [file for file in self.files if file.folder == folder]

    def extract_base(self, folder: str, target: Path) -> Path:
        """Write the base version of a submission into `target`/NAME, regular files only; returns that folder."""
        submission_folder = target / folder
        submission_folder.mkdir(parents=True)
        for mode, path in _list_tree(self.checkout, self.base, f"{SUBMISSIONS}/{folder}/", "-r"):
            if mode in (FILE, EXECUTABLE):
                path_in_target = submission_folder / PurePosixPath(path).relative_to(f"{SUBMISSIONS}/{folder}")
                path_in_target.parent.mkdir(parents=True, exist_ok=True)
                path_in_target.write_bytes(git(self.checkout, "cat-file", "blob", f"{self.base}:{path}"))
        return submission_folder


def read_change(checkout: Path) -> Change:
    """Read the changes of a merge commit.

    Args:
        checkout: work tree of the merge commit, with its first parent available.

    Raises:
        UsageError: the folder is not a checkout of a merge of one branch into its base, or its files were modified.
    """
    if not checkout.is_dir():
        raise UsageError(f"--change {checkout}: no such folder; expected a checkout of the merge commit")
    root = Path(os.fsdecode(git(checkout, "rev-parse", "--show-toplevel").rstrip(b"\n")))
    if root.resolve() != checkout.resolve():
        raise UsageError(f"--change {checkout}: inside the repository {root}; expected the root of a checkout")
    parents = [
        line.split()[1].decode()
        for line in git(checkout, "cat-file", "commit", "HEAD").partition(b"\n\n")[0].splitlines()
        if line.startswith(b"parent ")
    ]
    if len(parents) != 2:
        raise UsageError(
            f"--change {checkout}: HEAD has {len(parents)} parents; expected the merge of one branch into its base (2 parents)"
        )
    base = parents[0]
    try:
        git(checkout, "cat-file", "-e", f"{base}^{{tree}}")
    except UsageError as error:
        raise UsageError(
            f"--change {checkout}: the base commit {base[:12]} is missing, as in a shallow clone; fetch with --depth 2"
        ) from error
    _check_work_tree(checkout)
    before, after = (
        frozenset(PurePosixPath(path).name for _, path in _list_tree(checkout, commit, f"{SUBMISSIONS}/"))
        for commit in (base, "HEAD")
    )
    time = int(git(checkout, "show", "--no-patch", "--format=%ct", base).split()[-1])
    return Change(checkout, base, time, _changed_files(checkout, base), before, after)


def _changed_files(checkout: Path, base: str) -> tuple[ChangedFile, ...]:
    content = git(
        checkout, "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff",
        "--ignore-submodules=none", base, "HEAD",
    )  # fmt: skip
    fields = content.decode("utf-8", "surrogateescape").split("\0")[:-1]
    if len(fields) // 2 > MAX_FILES:
        raise UsageError(
            f"--change {checkout}: {len(fields) // 2:,} files are changed; at most {MAX_FILES:,} are checked"
        )
    files = []
    for entry, path in zip(fields[::2], fields[1::2], strict=True):
        mode_before, mode_after = entry.lstrip(":").split(" ")[:2]
        files.append(ChangedFile(path, mode_before, mode_after))
    return tuple(files)


def _check_work_tree(checkout: Path) -> None:
    """Raise `UsageError` if files in `submissions/` differ from the commit."""
    status = git(checkout, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", SUBMISSIONS)
    if status:
        first = status.split(b"\0")[0][3:].decode("utf-8", "surrogateescape")
        raise UsageError(f"--change {checkout}: {sanitize(first)} differs from the commit; check out the commit again")


def _list_tree(checkout: Path, commit: str, folder: str, *options: str) -> list[tuple[str, str]]:
    """List (mode, path) of the entries of a folder in a commit."""
    content = git(checkout, "ls-tree", "-z", *options, commit, "--", folder).decode("utf-8", "surrogateescape")
    entries = [entry.partition("\t") for entry in content.split("\0")[:-1]]
    return [(head.split(" ")[0], path) for head, _, path in entries]


def git(checkout: Path, *arguments: str) -> bytes:
    """Run a git command and return its standard output; raises `UsageError` if it fails."""
    settings = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"]
    command: Sequence[str] = ["git", "-C", str(checkout), "--literal-pathspecs", *settings, *arguments]
    # Ignore GIT_* variables, which may redirect git to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(command, capture_output=True, check=True, timeout=GIT_TIMEOUT, env=environment)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UsageError(
            f"--change {checkout}: git {arguments[0]} failed ({ascii(lines[0])[1:200]}); expected a checkout with its base commit"
        ) from error
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UsageError(
            f"--change {checkout}: git {arguments[0]} cannot be run ({type(error).__name__}); expected a checkout with its base commit"
        ) from error
    return result.stdout
