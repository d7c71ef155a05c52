"""Foreseeable failures of every command are one line and a documented exit code; faults of the program are not hidden."""

from __future__ import annotations

import ast
import errno
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from whole_runs import ROOT, call, only

import benchmark.run
import karel_env
from benchmark.command import note_results_kept, run_command, silence_libraries
from benchmark.errors import ModelError
from karel_env import command as shared
from karel_env import compiled_cache

COMMANDS = [
    "benchmark.run", "benchmark.sweep", "benchmark.status", "benchmark.doctor.command", "benchmark.calibrate.command",
    "benchmark.emergence.command", "benchmark.board.comparison", "benchmark.board.tables", "benchmark.board.page", "benchmark.board.overview", "benchmark.submit.command",
    "benchmark.calibrate.legacy_command", "benchmark.bench.command", "benchmark.submit.export.command", "benchmark.review.pull_request",
    "benchmark.causal.command", "benchmark.calibrate.causal", "benchmark.reproduction.command", "benchmark.relative.command", "benchmark.exchange.prompts", "benchmark.exchange.measure",
    "benchmark.submit.sealed", "karel_env.run", "karel_env.bench", "baselines.train", "baselines.tune", "baselines.speed", "baselines.smollm2",
]  # fmt: skip
MODEL = ["--model", "path:nowhere"]
WITH_OUT = [
    ("benchmark.run", MODEL), ("benchmark.sweep", MODEL), ("benchmark.calibrate.command", ["--suite", "smoke"]),
    ("benchmark.emergence.command", [str(Path(__file__).parents[2] / "docs" / "emergence" / "protocol3" / "gpt-laptop-1.json")]),
    ("baselines.train", ["gpt-laptop"]), ("benchmark.board.page", ["--submissions", "{empty}"]),
]  # fmt: skip
DEEP = "[" * 100_000
WORLD = {"h": 3, "w": 3, "walls": ["###", "#.#", "###"], "markers": [], "y": 1, "x": 1, "d": 0}
TASK = json.dumps({"id": 1, "program": "def run() { move() }", "world": WORLD})


def line_of(capsys) -> str:
    """The one line on standard error."""
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("module", COMMANDS)
def test_wrong_options_are_one_line(module, capsys):
    assert importlib.import_module(module).main(["--no-such-option"]) == 2
    assert "--help" in line_of(capsys)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_not_taken_for_code_that_exits(module, capsys):
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(module).main(["--help"])
    assert caught.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(("module", "words"), WITH_OUT)
def test_a_file_in_place_of_the_folder_is_named(module, words, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("here")
    (tmp_path / "empty").mkdir()
    words = [word.format(empty=tmp_path / "empty") for word in words]
    for out in (file, file / "below"):
        assert importlib.import_module(module).main([*words, "--out", str(out)]) == 2
        assert str(file) in line_of(capsys)
    assert file.read_text() == "here"


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert benchmark.run.main([*MODEL, "--out", str(tmp_path / "runs")]) == 2
    assert "cannot be written to" in line_of(capsys)


@pytest.mark.parametrize(
    ("problem", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 1, "/a/b: No space left"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 2, "/a: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/a"), 2, "/a: Is a directory"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("CUDA out of memory. Tried"), 3, "out of memory"),
        (SystemExit(0), 3, "ended the process"),
        (ModelError("two\nlines"), 3, "two lines"),
    ],
)
def test_foreseen_failures_are_one_line(problem, code, says, capsys):
    def fail() -> int:
        raise problem

    assert run_command(fail) == code
    assert says in line_of(capsys)


@pytest.mark.parametrize(
    "problem", [KeyError("a"), RuntimeError("b"), AssertionError("c"), OSError("d"), RecursionError("e")]
)
def test_faults_of_the_program_show_their_traceback(problem):
    def fail() -> int:
        raise problem

    with pytest.raises(type(problem)):
        run_command(fail)


@pytest.mark.parametrize("keeps", [False, True])
def test_an_interrupted_command_says_whether_it_continues(keeps, capsys):
    def work() -> int:
        if keeps:
            note_results_kept()
        raise KeyboardInterrupt

    assert run_command(work) == 1
    assert ("run the same command again to continue" in line_of(capsys)) == keeps
    # The next command of the process has kept nothing yet.
    assert run_command(lambda: signal.raise_signal(signal.SIGINT) or 0) == 1
    assert "begins anew" in line_of(capsys)


def encoded(encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_tables_can_be_printed_in_any_encoding(encoding, undisturbed, monkeypatch):
    import benchmark.status

    stream = encoded(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert benchmark.status.main([str(undisturbed)]) == 0
    assert run_command(lambda: print("\u250c\u2500\u2510 \u00b1 \u2026 \u6f22 \udcff") or 0) == 0
    written = stream.buffer.getvalue().decode(encoding)
    assert "state      done" in written
    if encoding == "ascii":
        assert "+-+ +/- . \\u6f22 \\udcff" in written


def test_the_row_of_a_run_is_printed_in_ascii(words, undisturbed, tmp_path, quick, monkeypatch):
    shutil.copytree(undisturbed, tmp_path / undisturbed.name)
    out, err = encoded("ascii"), encoded("ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert call(*words, "--out", tmp_path) == 0
    assert "| verdict" in out.buffer.getvalue().decode("ascii")
    assert b"record.json" in err.buffer.getvalue()


class Full(io.StringIO):
    """A stream on a disk that is full, or whose reader is gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


def test_a_full_disk_behind_standard_output_is_told(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full(errno.ENOSPC))
        assert run_command(lambda: print("row") or 0) == 1
    assert "standard output cannot be written to (No space left on device)" in line_of(capsys)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_standard_error_that_fails_stops_nothing(number, monkeypatch, capsys):
    def work() -> int:
        print("busy", file=sys.stderr, flush=True)
        print("row")
        return 4

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full(number))
        assert run_command(work) == 4
    assert capsys.readouterr().out == "row\n"


def test_a_reader_that_is_gone_does_not_change_the_exit_code(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full(errno.EPIPE))
        assert run_command(lambda: print("row", flush=True) or 4) == 4
    assert not capsys.readouterr().err


def test_closed_streams_are_a_null_device(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert run_command(lambda: sys.stdout.write("row") and 0) == 0
    assert (sys.stdout, sys.stderr) == (None, None)


@pytest.mark.parametrize(
    "stdin", [None, io.StringIO(DEEP), io.TextIOWrapper(io.BytesIO(b"\xff\n")), io.StringIO("9" * 5000)]
)
def test_the_filter_tells_what_is_wrong_with_its_input(stdin, monkeypatch, capsys):
    import karel_env.run

    monkeypatch.setattr(sys, "stdin", stdin)
    assert karel_env.run.main([]) == 2
    assert line_of(capsys)


def test_the_filter_reads_utf_8_whatever_the_encoding_is(monkeypatch, capsys):
    import karel_env.run

    line = json.dumps({**json.loads(TASK), "id": "\u6f22"}, ensure_ascii=False).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line + b"\n\xff\n"), encoding="ascii"))
    assert karel_env.run.main([]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["id"] == "\u6f22"
    assert "line 2" in err


@pytest.mark.parametrize(
    "content", [DEEP, "{", "[]", "", "\x00", '{"models": 3}', "models: [{model: 1, more: 2}]", "\ud800"]
)
def test_files_that_are_read_tell_what_is_wrong(content, tmp_path, capsys):

    raw = content.encode("utf-8", "surrogatepass")
    for name in ("models.yaml", "suite.yaml", "points.json", "recipe.yaml", "calibration.json", "record.json"):
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "events.jsonl").write_text('{"time": "x", "event": "finished"}\n')
    (tmp_path / "empty").mkdir()
    calls = [
        ("benchmark.sweep", ["--models", "models.yaml"], {2}),
        ("benchmark.run", ["--suite", "suite.yaml"], {2}),
        ("benchmark.emergence.command", ["points.json"], {2}),
        ("baselines.train", ["recipe.yaml", "--out", "trained"], {2}),
        (
            "benchmark.board.tables",
            ["--submissions", "empty", "--calibration", "calibration.json", "--out", "b.md"],
            {2},
        ),
        ("benchmark.status", ["."], {1}),
        ("benchmark.board.comparison", [".", "."], {1, 2, 3}),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for module, words, codes in calls:
            if module == "benchmark.emergence.command" and content == "[]":
                continue
            assert importlib.import_module(module).main(words) in codes, module
            assert line_of(capsys), module


OWN = """
import os
import sys
from benchmark.models.interface import Generation

class Writer:
    def generate(self, prompts, max_new_words):
        {deed}
        return [Generation("move(); }}", 2, True) for _ in prompts]

def make(random_seed=None):
    {at_making}
    return Writer()
"""
DEEDS = [
    "sys.exit(0)",
    "os._exit(0)",
    "raise KeyboardInterrupt",
    "raise GeneratorExit",
    "raise BaseException('x')",
    "exit()",
]


@pytest.mark.parametrize("place", ["deed", "at_making"])
@pytest.mark.parametrize("deed", DEEDS)
def test_own_code_that_exits_leaves_a_line(deed, place, tmp_path, monkeypatch, capsys):
    name = f"leaving_{place}_{DEEDS.index(deed)}"
    (tmp_path / f"{name}.py").write_text(OWN.format(**{"deed": "pass", "at_making": "pass", place: deed}))
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "runs"
    code = call("--model", f"py:{name}:make", "--allow-code", "--suite", "smoke", "--limit", "2", "--out", out)
    assert code == 3
    assert "ended the process" in capsys.readouterr().err
    assert not list(out.glob("*/record.json"))
    assert os._exit.__module__ == "posix"


def test_own_code_that_exits_fails_its_run_of_a_sweep(tmp_path, monkeypatch, capsys):
    import benchmark.sweep

    (tmp_path / "leaving_sweep.py").write_text(OWN.format(deed="pass", at_making="sys.exit(0)"))
    monkeypatch.syspath_prepend(tmp_path)
    words = [
        "--model",
        "py:leaving_sweep:make",
        "--allow-code",
        "--suite",
        "smoke",
        "--limit",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert benchmark.sweep.main(words) == 3
    assert "ended the process" in capsys.readouterr().err


def test_an_interrupt_from_outside_is_not_the_models_fault(capsys):
    def work() -> int:
        from benchmark.models.custom import exit_as_error

        with exit_as_error("py:a:b", "generate"):
            signal.raise_signal(signal.SIGINT)
        return 0

    assert run_command(work) == 1
    assert "interrupted" in line_of(capsys)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_own_code_forks_may_end_itself():
    from benchmark.models.custom import exit_as_error

    with exit_as_error("py:a:b", "generate"):
        child = os.fork()
        if child == 0:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_compiled_code_finds_a_folder(tmp_path, monkeypatch):
    """Without a package or a home folder that can be written to; nobody else's folder is taken."""
    monkeypatch.setattr(compiled_cache, "_is_writable", lambda folder: False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setitem(
        sys.modules, "numba", type("Numba", (), {"config": type("C", (), {"reload_config": lambda: None})})
    )
    package = Path(karel_env.__file__).parent
    compiled_cache.place_cache(package)
    cache = Path(os.environ["NUMBA_CACHE_DIR"])
    assert cache.parent == tmp_path
    assert cache.stat().st_mode & 0o077 == 0
    cache.chmod(0o777)
    with pytest.raises(OSError, match="another user"):
        compiled_cache.temporary_cache(package)
    cache.rmdir()
    cache.symlink_to(tmp_path)
    with pytest.raises(OSError, match="another user"):
        compiled_cache.temporary_cache(package)


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False, env=variables, timeout=1200
    )


def test_processes_with_odd_streams(tmp_path):
    """As shells give them; the filter stands for all, since it starts in a second."""
    filter_ = f"{sys.executable} -m karel_env.run"
    (tmp_path / "tasks").write_text((TASK + "\n") * 1500)
    cases = {
        f"{filter_} < {tmp_path / 'tasks'} | head -n 1": (0, ""),
        f"{filter_} < {tmp_path / 'tasks'} > /dev/full": (1, "error: standard output"),
        f"{filter_} < {tmp_path / 'tasks'} >&-": (0, ""),
        f"{filter_} <&-": (2, "error: standard input is closed"),
        f"PYTHONIOENCODING=ascii {filter_} --mode '\u00e9'": (2, "error: --mode"),
    }
    for line, (code, says) in cases.items():
        done = shell(line)
        assert done.returncode == code, f"{line}\n{done.stderr}"
        assert done.stderr.startswith(says), line
        assert done.stderr.count("\n") == bool(says), (line, done.stderr)


def test_shell_status_of_a_finished_run(undisturbed):
    done = shell(
        f"{sys.executable} -m benchmark.status {undisturbed} | head -n 1", LC_ALL="C", PYTHONIOENCODING="ascii"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert only(undisturbed.parent) == undisturbed
    assert shared.INCOMPLETE_EXIT == 1


def test_texts_are_written_in_utf_8_whatever_the_locale_is():
    """A text that is written by the locale's encoding fails, or differs, where that is ASCII."""
    texts = {}
    for package in ("benchmark", "karel_env", "baselines"):
        for path in sorted((Path(karel_env.__file__).parent.parent / package).rglob("*.py")):
            for call_ in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(call_, ast.Call)
                    and isinstance(call_.func, ast.Attribute)
                    and call_.func.attr == "write_text"
                ):
                    given = {keyword.arg for keyword in call_.keywords}
                    texts[f"{path.name}:{call_.lineno}"] = "encoding" in given or "json.dumps" in ast.unparse(call_)
    assert len(texts) > 5
    # This YAML is ASCII by itself.
    assert {name.partition(":")[0] for name, is_named in texts.items() if not is_named} <= {"sealed.py"}


def test_deprecations_of_one_library_in_another_are_not_shown(recwarn):
    silence_libraries()
    for module in ("transformers.modeling_utils", "peft.mapping", "a_model_of_a_user"):
        warnings.warn_explicit(f"{module} is deprecated", FutureWarning, "file.py", 1, module)
    assert [str(warning.message) for warning in recwarn] == ["a_model_of_a_user is deprecated"]
