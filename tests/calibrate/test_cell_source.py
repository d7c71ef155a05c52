"""Cells of a calibration are kept under the digest of the code that determines them, and of nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.calibrate.rotation_calibration import BUILT_CODE
from benchmark.installation.imported_source import imported_modules, imported_source_digest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path):
    """A copy of the packages' modules that can be edited."""
    for package in ("benchmark", "karel_env"):
        for path in (ROOT / package).rglob("*.py"):
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def append(root: Path, name: str, text: str) -> None:
    path = root / name
    path.write_text(path.read_text() + text)


def test_an_edit_of_a_module_that_determines_a_cell_changes_the_digest(copy) -> None:
    digests = [imported_source_digest(BUILT_CODE, copy)]
    assert digests == [imported_source_digest(BUILT_CODE)]
    for name in (
        "benchmark/calibrate/rotation_kinds.py", "benchmark/calibrate/draws.py", "benchmark/probing/probes.py",
        "benchmark/probing/version4/rotation_interval.py", "benchmark/statistics.py", "benchmark/tasks/suite.py",
        "karel_env/generation/generator.py", "karel_env/execution/machine.py",
    ):  # fmt: skip
        append(copy, name, "\nEDITED = 1\n")
        digests.append(imported_source_digest(BUILT_CODE, copy))
    assert len(set(digests)) == len(digests)


def test_other_edits_keep_the_digest(copy) -> None:
    before = imported_source_digest(BUILT_CODE, copy)
    for name in (
        "benchmark/__init__.py", "benchmark/board/tables.py", "benchmark/calibrate/rotation_calibration.py",
        "benchmark/calibrate/rotation_command.py", "benchmark/causal/verdict.py", "benchmark/runner/run.py",
        "benchmark/probing/mdl.py", "karel_env/__init__.py",
    ):  # fmt: skip
        append(copy, name, "\nEDITED = 1\n")
    append(copy, "benchmark/probing/probes.py", "\n\n# A comment.\n")
    path = copy / "benchmark/statistics.py"
    path.write_text(path.read_text().replace('"""', '"""Edited: ', 1))
    assert imported_source_digest(BUILT_CODE, copy) == before


def test_a_new_import_becomes_part_of_the_digest(copy) -> None:
    append(copy, "benchmark/statistics.py", "\n\ndef later() -> None:\n    from benchmark.probing import mdl\n")
    before = imported_source_digest(BUILT_CODE, copy)
    assert "benchmark.probing.mdl" in imported_modules(BUILT_CODE, copy)
    append(copy, "benchmark/probing/mdl.py", "\nEDITED = 1\n")
    assert imported_source_digest(BUILT_CODE, copy) != before


def test_imports_for_type_checkers_do_not_count_and_names_of_a_package_do(tmp_path) -> None:
    package = tmp_path / "benchmark"
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 1\n")
    (package / "root.py").write_text(
        "from typing import TYPE_CHECKING\nimport benchmark.plain\nif TYPE_CHECKING:\n    from benchmark import typed\n"
    )
    for name in ("plain", "typed"):
        (package / f"{name}.py").write_text("")
    assert imported_modules("benchmark.root", tmp_path) == ["benchmark.plain", "benchmark.root"]
    (package / "plain.py").write_text("from benchmark import VALUE\n")
    assert imported_modules("benchmark.root", tmp_path) == ["benchmark", "benchmark.plain", "benchmark.root"]
    with pytest.raises(ModuleNotFoundError, match="no such module"):
        imported_modules("benchmark.ghost", tmp_path)


def test_every_module_that_a_cell_loads_is_part_of_the_digest() -> None:
    script = f"""
import json, sys
import {BUILT_CODE}
print(json.dumps([n for n, m in sys.modules.items() if n.startswith(("benchmark.", "karel_env.")) and
                  not hasattr(m, "__path__")]))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    # Where compiled code is kept does not determine a cell; the package itself imports it.
    loaded = set(json.loads(out.stdout)) - {"karel_env.compiled_cache"}
    assert loaded <= set(imported_modules(BUILT_CODE))
