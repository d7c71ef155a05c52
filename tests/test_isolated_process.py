"""A process of its own: what comes back, what passes a limit, and what is left behind."""

from __future__ import annotations

import re
import time
from pathlib import Path

import bounded_functions as functions
import pytest

from benchmark.errors import BenchmarkError, ItemsFailed, ModelError, UsageError
from benchmark.isolation import run_bounded

ROOMY = {"seconds": 600.0, "memory": 1 << 30}


def test_a_result_comes_back_and_nothing_is_printed(capfd):
    assert run_bounded(functions.double, 21, **ROOMY) == 42
    assert capfd.readouterr() == ("", "")


def test_a_result_larger_than_a_pipe():
    assert run_bounded(functions.large, 5_000_000, **ROOMY) == b"x" * 5_000_000


def test_a_deadline_ends_all_processes_of_the_function(tmp_path):
    note = tmp_path / "note"
    for seconds in (1.5, 6.5, 30.5, 240.5):
        # Longer where the machine is so busy that the function had not begun by then.
        said = re.escape(f"path:a: took more than {seconds:g} s (the deadline)")
        with pytest.raises(ModelError, match=f"^{said}") as caught:
            run_bounded(functions.sleep_with_child, str(note), seconds=seconds, memory=1 << 30, subject="path:a")
        assert caught.value.exit_code == 3
        if note.exists():
            break
    for process in note.read_text().split():
        # Killed it is already; how long the system takes to end it is not the function's.
        while _alive(int(process)):
            time.sleep(0.01)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("function", "size"), [(functions.fill, 1 << 20), (functions.allocate, 1 << 40)], ids=["filled", "at once"]
)
def test_memory_beyond_the_limit(function, size):
    with pytest.raises(ModelError, match=r"took more than 0\.3 GB of memory \(the limit\)"):
        run_bounded(function, size, seconds=600.0, memory=300_000_000)


@pytest.mark.parametrize(
    ("kind", "raised", "code", "message"),
    [
        ("usage", UsageError, 2, "^expected another$"),
        ("shards", ItemsFailed, 3, "1 item failed"),
        ("value", ModelError, 3, "^model: ValueError: two lines$"),
        ("recursion", ModelError, 3, "^model: RecursionError: "),
        ("exit", ModelError, 3, "^model: SystemExit: 0$"),
    ],
)
def test_what_the_function_raises(kind, raised, code, message):
    with pytest.raises(BenchmarkError, match=message) as caught:
        run_bounded(functions.refuse, kind, **ROOMY)
    assert type(caught.value) is raised
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)


def test_a_process_that_dies_without_an_answer():
    with pytest.raises(ModelError, match=r"exited with 0 before it was through \(last words\)"):
        run_bounded(functions.die, 0, **ROOMY)
    with pytest.raises(ModelError, match="killed by SIGABRT"):
        run_bounded(functions.abort, **ROOMY)


@pytest.mark.parametrize(("seconds", "memory"), [(0.0, 1), (float("nan"), 1), (float("inf"), 1), (1.0, 0)])
def test_limits_that_are_none(seconds, memory):
    with pytest.raises(UsageError, match="expected more than 0 of both"):
        run_bounded(functions.double, 1, seconds=seconds, memory=memory)


def test_descriptors_are_closed():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run_bounded(functions.double, 1, **ROOMY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
