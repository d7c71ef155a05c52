"""The prompts file: a probe set as JSON lines, for engines that do not run in Python here.

One line per program: `id` (its index), `set` (digest of the probe set), `prompt`, `program`, `text` (prompt, a space and
program: what the engine reads), `rows` (row index of each action word), `words` (the action words), `spans` (first
character and end of each in `text`). The state to store is that of the last token that reaches into a span, under `rows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.api.probe_set import SEPARATOR, BlindProbeSet


def prompt_lines(probes: BlindProbeSet) -> Iterator[dict[str, Any]]:
    """One mapping per program of a probe set, see the module."""
    first_row = np.searchsorted(probes.row_program, np.arange(len(probes) + 1))
    spans = probes.row_span
    for index, (prompt, program) in enumerate(zip(probes.prompts, probes.programs, strict=True)):
        text = f"{prompt}{SEPARATOR}{program}"
        rows = range(int(first_row[index]), int(first_row[index + 1]))
        yield {
            "id": index,
            "set": probes.digest,
            "prompt": prompt,
            "program": program,
            "text": text,
            "rows": list(rows),
            "words": [text[spans[row, 0] : spans[row, 1]] for row in rows],
            "spans": spans[rows.start : rows.stop].tolist(),
        }


def write_prompts(path: str | Path, probes: BlindProbeSet) -> Path:
    """Write the prompts of a probe set as JSON lines, for engines that do not run in Python here.

    Args:
        path: the file, replaced if it exists.
        probes: B programs with R rows.

    Returns:
        The path. Each line has `id`, `set` (digest of the probe set), `prompt`, `program`, `text` (what the engine reads),
        and per action word `rows` (row indices), `words`, and `spans` (first character and end in `text`).

    Raises:
        StorageError: the folder cannot be written to.

    Source: docs/api.md, "Models that do not run here".
    """
    from benchmark.runner.store import write_atomic

    lines = "".join(json.dumps(line) + "\n" for line in prompt_lines(probes))
    write_atomic(Path(path), lines.encode())
    return Path(path)
