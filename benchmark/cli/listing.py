"""What can be named on a command line: suites, baselines, recipes and shipped models, `karel-bench list`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tabulate import tabulate

from benchmark.cli.declare import argument, option, parse_options
from benchmark.command import run_command
from benchmark.installation.paths import DEFAULT_MODEL, shipped_path, submissions_folder
from benchmark.models.checkpoint import BASELINE_REGISTRY
from benchmark.tasks.suite import SUITE_FOLDER, suite_names

WEIGHTS, RECORD = "*.safetensors", "record.json"
Rows = list[tuple[str, str]]
SENTENCE_END = re.compile(r"(?<=\.)(?<! al\.) (?=[A-Z])")
"""Between two sentences; not after `et al.`."""


def list_suites() -> Rows:
    """Name and description of each shipped suite: what the first line of its file says."""
    return [(name, _first_comment(SUITE_FOLDER / f"{name}.yaml")) for name in suite_names()]


def list_baselines() -> Rows:
    """Spec and description of each baseline without a network."""
    # By its name, since `benchmark` does not depend on `baselines`.
    registry = importlib.import_module(BASELINE_REGISTRY).BASELINES
    return [(f"baseline:{name}", (baseline.__doc__ or "").split("\n")[0]) for name, baseline in registry.items()]


def baseline_names() -> list[str]:
    """The names of the baselines, as after `baseline:`."""
    return [spec.partition(":")[2] for spec, _ in list_baselines()]


def list_recipes() -> Rows:
    """Name and description of each recipe that `train` knows."""
    package = find_spec(BASELINE_REGISTRY.partition(".")[0])
    folders = package.submodule_search_locations if package is not None else None
    return [
        (path.stem, _first_comment(path))
        for folder in folders or ()
        for path in sorted(Path(folder, "recipes").glob("*.yaml"))
    ]


def list_models() -> Rows:
    """The model that commands take by default, and each submission that is here: a spec if its weights are too, else its name."""
    default = shipped_path(DEFAULT_MODEL)
    rows = [(f"path:{_short(default)}", "the default of --model, shipped with the package")]
    for folder in sorted(submissions_folder().glob("*")):
        if (folder / RECORD).is_file() and folder.resolve() != default.resolve():
            has_weights = any(folder.glob(WEIGHTS))
            rows.append(
                (f"path:{_short(folder)}", "weights and record") if has_weights else (folder.name, "record only")
            )
    return rows


KINDS: dict[str, Callable[[], Rows]] = {
    "suites": list_suites, "baselines": list_baselines, "recipes": list_recipes, "models": list_models,
}  # fmt: skip


def _first_comment(path: Path) -> str:
    """The first sentence of the comment at the start of a YAML file; empty if there is none."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return SENTENCE_END.split(" ".join(lines), maxsplit=1)[0]


def _short(folder: Path) -> Path:
    """The path of a folder, relative to the current folder if it is below it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """List the suites, baselines, recipes and models that can be named."""

    kind: str | None = argument("what to list", None, choices=tuple(KINDS), default_text="all", metavar="KIND")
    json: bool = option(False, "print JSON: per kind, the description of each name")


def execute(options: ListOptions) -> int:
    """Print the lists; returns the exit code."""
    lists = {kind: rows() for kind, rows in KINDS.items() if options.kind in (None, kind)}
    if options.json:
        import json

        print(json.dumps({kind: dict(rows) for kind, rows in lists.items()}, indent=1))
        return 0
    for i, (kind, rows) in enumerate(lists.items()):
        print(("\n" if i else "") + kind)
        print(tabulate(rows, tablefmt="plain", disable_numparse=True) if rows else "none here")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(ListOptions, arguments, "list", module="benchmark.cli list")))
