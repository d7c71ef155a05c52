"""What tests of whole runs share: calling the command, and looking at what it left."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from quick_protocol import run_quickly

from benchmark.runner.record import read_record
from benchmark.runner.store import ResultStore, StagedResult

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]


def call(*words: object) -> int:
    """The exit code of `python -m benchmark.run` with these words, and the quick protocol."""
    return run_quickly([str(word) for word in words])


def only(folder: Path) -> Path:
    """The one folder in a folder."""
    (found,) = folder.iterdir()
    return found


def committed(out: Path) -> int:
    """Pieces that runs below `out` have committed."""
    return sum(1 for _ in out.glob("*/shards/*.json"))


def same(one: Path, two: Path) -> None:
    """The final files hold the same results; a record's times and counts of retries may differ."""
    for name in ("samples.jsonl.gz", "probes.data", "readings.json.gz"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    a, b = read_record(one / "record.json"), read_record(two / "record.json")
    assert a.model_copy(update={"provenance": b.provenance, "unofficial": b.unofficial}) == b


def below(process: int) -> list[int]:
    """A process and all that it started."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [p for word in task.read_text().split() for p in below(int(word))]
    return found


def computes(process: int) -> bool:
    """Whether a process is a worker that evaluates now."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::EvaluationActor.compute")
    return False


def at_commit(patch: pytest.MonkeyPatch, count: int, deed: Callable[[], object]) -> None:
    """When the driver has committed so many pieces, it does this before it goes on."""
    real, left = ResultStore.commit, iter(range(count - 1, -1, -1))

    def commit(self: ResultStore, attempt: StagedResult) -> None:
        real(self, attempt)
        if next(left, None) == 0:
            deed()

    patch.setattr(ResultStore, "commit", commit)


@contextmanager
def forked(deed: Callable[[Callable[[], None], Callable[[], None]], None]) -> Iterator[int]:
    """Within, a process does something; from when it says so, until it is killed at the end.

    Args:
        deed: gets what to call when it has done it, and what to wait by until the end.
    """
    ready, say = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads that the child does not have; it does not need them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            deed(lambda: os.write(say, b"."), signal.pause)
        finally:
            os._exit(1)
    os.close(say)
    try:
        assert os.read(ready, 1) == b".", "the other process failed"
        yield child
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class Beside(threading.Thread):
    """Does something once when it is time to, while a run goes on in the main thread; in a `with` statement.

    Args:
        due: whether it is time, asked again and again until the run has ended; never by a clock.
        deed: what to do then.
        times: how often; `due` is asked anew each time.
    """

    PAUSE = 0.01

    def __init__(self, due: Callable[[], bool], deed: Callable[[], None], times: int = 1) -> None:
        super().__init__(daemon=True)
        self.due, self.action, self.left, self.done = due, deed, times, 0
        self.ended = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while self.left and not self.ended.wait(self.PAUSE):
                if self.due():
                    self.action()
                    self.left, self.done = self.left - 1, self.done + 1
        except BaseException as error:
            self.problem = error

    def __enter__(self) -> Beside:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()
        if self.problem is not None:
            raise self.problem
