"""The JSON file of a measurement that is a command of its own: its settings, and its figures.

A result of other settings is never overwritten: `NAME.json` is followed by `NAME-2.json`. The same settings find their file
again, so that a command can continue what it finds there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from benchmark.installation.imported_source import imported_source_digest
from benchmark.runner.store import write_atomic
from benchmark.tasks.suite import Suite, identify_suite

SETTINGS = "settings"


@dataclass(frozen=True)
class ResultFile:
    """A result file; see `choose_result_file`.

    Attributes:
        path: the file, which may not exist yet.
        settings: what its figures depend on, JSON values.
    """

    path: Path
    settings: Mapping[str, Any]

    @property
    def stem(self) -> str:
        """Name without `.json`, for the files that belong to it."""
        return self.path.name.removesuffix(".json")

    def beside(self, ending: str) -> Path:
        """The path of a file that belongs to it: `stem` and an ending."""
        return self.path.with_name(self.stem + ending)

    def read(self) -> dict[str, Any]:
        """What `write` wrote; empty if the file does not exist."""
        return _read(self.path)

    def write(self, figures: Mapping[str, Any], indent: int | None = 1) -> None:
        """Write the settings, as `settings`, and the figures; after a crash the file is the earlier or the new one.

        Raises:
            StorageError: the folder cannot be written to.
        """
        separators = (",", ":") if indent is None else None
        content = json.dumps({**figures, SETTINGS: self.settings}, indent=indent, separators=separators, default=float)
        write_atomic(self.path, f"{content}\n".encode())

    def write_beside(self, ending: str, content: bytes) -> None:
        """Write a file that belongs to it; evidence goes before the result, which then never lacks it.

        Raises:
            StorageError: the folder cannot be written to.
        """
        write_atomic(self.beside(ending), content)


def choose_result_file(folder: Path, name: str, command: str, suite: Suite, **settings: Any) -> ResultFile:
    """The first of `NAME.json`, `NAME-2.json` ... that has these settings or does not exist.

    Args:
        folder: the folder of the file.
        name: its name without `.json`.
        command: module of the command; the digest of its source is one of the settings, so that nothing is taken from a
            file that other code has written.
        suite: the suite; one that is not shipped is identified by all that it is, since its name may stand for another.
        settings: what the figures depend on besides, JSON values.
    """
    settings |= {"suite": suite.name, "source": imported_source_digest(command)}
    if not suite.official:
        settings["suite_settings"] = identify_suite(suite)
    plain = json.loads(json.dumps(settings))
    for number in count(1):
        path = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        if not path.exists() or _read(path).get(SETTINGS) == plain:
            break
    return ResultFile(path, plain)


def _read(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty if it is something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
