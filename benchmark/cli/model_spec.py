"""What `--model` means on a command line: a spec, a folder, or the name of a hub model."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.cli.listing import baseline_names
from benchmark.errors import UsageError
from benchmark.installation.paths import DEFAULT_MODEL as DEFAULT_FOLDER
from benchmark.installation.paths import shipped_path
from benchmark.models.interface import SCHEMES, SPEC_FORMS, expand_series
from karel_env.command import nearest

DEFAULT_MODEL = f"path:{shipped_path(DEFAULT_FOLDER)}"
MODEL_HELP = f"name the model: {SPEC_FORMS}; a folder or org/name alone will do"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@.+)?", re.ASCII)


def read_model(text: str) -> str:
    """The spec that `--model` means: an existing folder is `path:`, `org/name` is `hf:`.

    Raises:
        UsageError: the text is neither of these nor a spec; names the nearest baseline.
    """
    scheme, colon, _ = text.partition(":")
    if colon and scheme in SCHEMES:
        return text
    if text and Path(text).is_dir():
        return f"path:{text}"
    if HUB_NAME.fullmatch(text) and not text.startswith("."):
        return f"hf:{text}"
    if text.startswith((".", "/", "~")):
        raise UsageError(f"--model {text}: no such folder; expected {SPEC_FORMS}")
    hint = nearest(scheme, SCHEMES) if colon else nearest(text, baseline_names(), prefix="baseline:")
    raise UsageError(f"--model {text}: expected {SPEC_FORMS}{hint}")


def expand_models(text: str) -> list[str]:
    """The specs that `--model` means: as `read_model`, several for a series (`expand_series`).

    Raises:
        UsageError: see `read_model` and `expand_series`.
    """
    return expand_series(read_model(text))
