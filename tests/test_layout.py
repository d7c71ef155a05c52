"""Imports point one way: the order of the packages, held by reading the source and by importing each package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    ["errors", "statistics", "installation"],
    ["environment"],
    ["files", "isolation", "command"],
    ["artifacts"],
    ["tasks"],
    ["models", "probing", "cluster"],
    ["causal"],
    ["ladder"],
    ["runner"],
    ["cli"],
    ["relative"],
    ["calibrate", "layers", "length", "reproduction"],
    ["submit"],
    ["board"],
    ["review", "status"],
    ["api"],
    ["run", "doctor"],
    ["sweep", "emergence", "bench"],
    ["exchange"],
    ["compare", "export", "incoming", "leaderboard", "legacy", "page", "sealed"],
]
"""Modules and packages of `benchmark`; each may import those of earlier lines, and a package its own modules."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in (ROOT / "benchmark").rglob("*.py") if path.name != "__init__.py")
MOST_MODULES, MOST_LINES = 17, 425


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


def home(path: Path) -> str:
    """The package of `benchmark` that a file is in, or its own name at the top."""
    return path.relative_to(ROOT / "benchmark").with_suffix("").parts[0]


def test_every_package_has_a_layer() -> None:
    assert {home(path) for path in MODULES} <= set(RANK)


@pytest.mark.parametrize("path", sorted((ROOT / "karel_env").rglob("*.py")), ids=lambda p: p.stem)
def test_karel_env_imports_nothing_of_the_benchmark(path: Path) -> None:
    heads = {name.split(".")[0] for name in imports(path)}
    assert not heads & {"torch", "ray", "transformers", "benchmark", "baselines"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT / "benchmark").as_posix())
def test_imports_point_one_way(path: Path) -> None:
    # The command of a package reads options, which the packages themselves do not know.
    rank = len(LAYERS) if path.stem in ("__main__", "command") else RANK[home(path)]
    heads = {name.split(".")[0] for name in imports(path)}
    assert "baselines" not in heads
    assert "ray" not in heads or home(path) == "cluster"
    for name in imports(path):
        if name.startswith("benchmark."):
            target = name.split(".")[1]
            assert target == home(path) or RANK[target] < rank, f"{home(path)} imports {target}"


def loaded_by(*packages: str) -> set[str]:
    """The top-level modules that a process has loaded after it imported all modules of some packages."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if home(path) in packages and path.stem != "__main__"
    ]
    assert names
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in run.stdout.split()}


def test_tasks_submit_and_tables_load_no_torch() -> None:
    assert not loaded_by("tasks", "submit", "board", "review", "cluster") & {"torch", "transformers", "ray"}


def test_probing_loads_no_model_library() -> None:
    assert not loaded_by("probing") & {"transformers", "ray", "huggingface_hub", "tokenizers"}


def test_packages_and_files_are_small() -> None:
    modules = [path for name in ("benchmark", "karel_env", "baselines") for path in (ROOT / name).rglob("*.py")]
    sizes = {path: len(path.read_text().splitlines()) for path in modules}
    assert not {str(path): lines for path, lines in sizes.items() if lines > MOST_LINES}
    packages = {path.parent for path in modules}
    assert not {folder.name for folder in packages if len(list(folder.glob("[a-z]*.py"))) > MOST_MODULES}


def test_no_two_test_files_have_the_same_name() -> None:
    """pytest imports test files by their names: of two with the same name, one fails to be collected."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
