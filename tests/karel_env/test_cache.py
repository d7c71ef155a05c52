"""Compiled code is not kept longer than the sources that went into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import karel_env
from karel_env.compiled_cache import delete_stale_cache

RUN = """
from karel_env.execution.interpreter import run
from karel_env.language import Programs; from karel_env.syntax.parser import parse; from karel_env.world import parse_world
print(run(Programs.of([parse("def run() { turn_left() }")]), parse_world("> .")[None]).worlds.robot.tolist())
"""


def test_compiled_functions_go_when_any_source_changes(tmp_path):
    """Quick sibling of the next test, without a compiler."""
    folder = tmp_path / "karel_env"
    (folder / "execution" / "__pycache__").mkdir(parents=True)
    for name in ("execution/machine.py", "semantics.py"):
        (folder / name).write_text("x = 1\n")
    compiled = [folder / "execution" / "__pycache__" / f"machine.run.{kind}" for kind in ("nbi", "1.nbc")]

    def left_after_import() -> list[bool]:
        delete_stale_cache(folder)
        return [path.exists() for path in compiled]

    for change in (
        lambda: None,
        lambda: (folder / "semantics.py").write_text("x = 1;\n"),
        lambda: os.utime(folder / "semantics.py", ns=(1, 1)),
        lambda: (folder / "execution" / "new.py").write_text(""),
        lambda: (folder / "execution" / "new.py").unlink(),
    ):
        change()
        assert left_after_import() == [False, False]
        for path in compiled:
            path.write_bytes(b"compiled")
        assert left_after_import() == [True, True]


@pytest.mark.slow
def test_a_change_in_another_file_is_noticed(tmp_path):
    """What `turn_left` does is in semantics.py, which machine.py took its numbers from when it was compiled."""
    copy = tmp_path / "karel_env"
    shutil.copytree(Path(karel_env.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"PYTHONPATH": str(tmp_path)}

    def result() -> str:
        done = subprocess.run(
            [sys.executable, "-c", RUN], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert result() == "[[1, 1, 0]]"
    compiled = {path: path.stat().st_mtime_ns for path in copy.rglob("*.nbc")}
    assert compiled
    assert result() == "[[1, 1, 0]]"
    assert compiled == {path: path.stat().st_mtime_ns for path in copy.rglob("*.nbc")}, "kept"
    semantics = copy / "semantics.py"
    text = semantics.read_text()
    assert "MOVE, LEFT, RIGHT, PICK, PUT = range" in text
    semantics.write_text(text.replace("MOVE, LEFT, RIGHT, PICK, PUT = range", "MOVE, RIGHT, LEFT, PICK, PUT = range"))
    assert result() == "[[1, 1, 2]]"
