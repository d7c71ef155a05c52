"""Native code of tokenizers that panics: `PanicException` is no `Exception`, and becomes one line and exit code 3."""

from __future__ import annotations

import base64
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from tokenizers.pre_tokenizers import FixedLength
from whole_runs import call

from benchmark.cluster.executor import INVALID_MODEL
from benchmark.cluster.local_executor import WorkerSession
from benchmark.command import run_command
from benchmark.doctor import command as doctor
from benchmark.errors import is_panic
from benchmark.sweep import as_benchmark_error

TRIE_UNITS, LEAF, PLACE = 256, 1 << 8, 0xFF


def panicking_normalizer(character: str) -> dict[str, Any]:
    """A trie of characters whose only entry points behind its text, so that this character alone panics."""
    units = [0] * TRIE_UNITS
    code = ord(character)
    units[code] = code | LEAF | (code ^ PLACE) << 10
    units[PLACE] = 0x7FFFFFFF
    packed = struct.pack(f"<{TRIE_UNITS + 1}I", 4 * TRIE_UNITS, *units) + b"x\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(packed).decode()}


@pytest.fixture
def folder(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path: Path) -> Path:
    copied = shutil.copytree(tiny_folder, tmp_path / "model")
    content = json.loads((copied / "tokenizer.json").read_text())
    content["normalizer"] = panicking_normalizer(request.param)
    (copied / "tokenizer.json").write_text(json.dumps(content))
    return copied


def panic() -> None:
    """Raise a panic of tokenizers themselves."""
    FixedLength(length=0).pre_tokenize_str("move();")


def test_the_panic_is_a_real_one(capfd):
    with pytest.raises(BaseException, match=r".") as caught:
        panic()
    assert is_panic(caught.value)
    assert not isinstance(caught.value, Exception)
    assert not is_panic(ValueError("PanicException"))


# A sign of worlds that loading does not meet, one of programs, and one of the header.
@pytest.mark.parametrize("folder", ["#", "_", "{"], indirect=True)
def test_doctor_and_run_refuse_a_tokenizer_that_panics(folder, tmp_path, capfd):
    assert doctor.main(["--model", f"path:{folder}", "--load-deadline", "0"]) == 3
    output, error = capfd.readouterr()
    assert "fail  " in output
    assert output.splitlines()[-1] == "not usable"
    assert error == ""
    words = ("--model", f"path:{folder}", "--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path / "runs")
    for more in ((), ("--dry-run",)):
        assert call(*words, *more) == 3
        error = capfd.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert "no usable tokenizer" in error


class Panicking:
    """Work whose model panics when it is loaded."""

    def prepare(self) -> None:
        panic()


def test_a_panic_after_the_checks_is_one_line_and_the_models_fault(capsys):
    result = WorkerSession().run(None, Panicking(), None, 1.0)
    assert result.status == INVALID_MODEL
    assert "native code that reads the model's files panicked (" in result.message
    assert run_command(panic) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: native code that reads the model's files panicked (")
    assert error.count("\n") == 1


def test_a_panic_fails_its_run_of_a_sweep_alone(capfd):
    with pytest.raises(BaseException, match=r".") as caught:
        panic()
    problem = as_benchmark_error(caught.value)
    assert problem.exit_code == 3
    assert "\n" not in str(problem)
