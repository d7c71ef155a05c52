"""A driver that kills itself at a given event, again and again: run by `test_resume` in a fork of the test's process.

Everything is loaded once; each session is a fork. Every write of the driver has three events: its content is synced,
it is renamed, an event is logged. SIGKILL comes right before one of them. How far apart the kills are follows from the
number of events of a session that nothing disturbs, so that they are spread over the whole run. Prints, as JSON lines,
what each session computed and what was committed at its end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quick_protocol import make_runs_quick, run_quickly

import benchmark.cluster.local_executor
import benchmark.run
import benchmark.runner.folder
import benchmark.runner.store
from benchmark.runner.store import VALID, ResultStore


class Killer:
    """Counts events, and ends the process at the last one, if any is."""

    def __init__(self, left: int) -> None:
        self.left, self.events = left, Counter[str]()

    def event(self, kind: str) -> None:
        self.events[kind] += 1
        if self.events.total() == self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def names_of(payload) -> list[str]:
    """Names of the pieces that a payload computes."""
    if hasattr(payload, "names"):
        return list(payload.names)
    return [payload.name] if hasattr(payload, "name") else [payload[0]]


@contextmanager
def watched(killer: Killer, computed: Path) -> Iterator[None]:
    """Within, the killer hears of every event, and what is computed is written down."""
    sync, replace, log, run = (
        os.fsync,
        os.replace,
        benchmark.runner.folder.RunFolder.log,
        benchmark.cluster.local_executor.WorkerSession.run,
    )

    def before(real):
        def wrapped(*arguments, **named):
            killer.event(real.__name__)
            return real(*arguments, **named)

        return wrapped

    def recording_run(self, affinity_key, work, payload, batch_scale):
        result = run(self, affinity_key, work, payload, batch_scale)
        with computed.open("a") as file:
            file.write("".join(f"{name}\n" for name in names_of(payload)))
        return result

    os.fsync, os.replace, benchmark.runner.folder.RunFolder.log = before(sync), before(replace), before(log)
    benchmark.cluster.local_executor.WorkerSession.run = recording_run
    yield
    os.fsync, os.replace, benchmark.runner.folder.RunFolder.log = sync, replace, log
    benchmark.cluster.local_executor.WorkerSession.run = run


def committed(out: Path) -> list[str]:
    folders = [ResultStore(path) for path in out.glob("*/shards")]
    return [p.stem for s in folders for p in s.root.glob("*.json") if s.status(p.stem) == VALID]


def forked(words: list[str], left: int, computed: Path) -> int:
    """The wait status of a session in a process of its own, which dies at its `left`-th event."""
    computed.write_text("")
    child = os.fork()
    if child == 0:
        with watched(Killer(left), computed):
            code = run_quickly(words)
        os._exit(code)
    return os.waitpid(child, 0)[1]


def start(output: Path, *arguments: object) -> int:
    """The exit code of `main` with these arguments in a fork, which has everything loaded; `output` gets what it prints."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads that the child does not have; it does not need them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            for path, stream in ((output, 1), (output.with_suffix(".errors"), 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            code = main(*map(str, arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(seed: str, kills: str, out: str, *words: str) -> int:
    """The exit code of the last session."""
    make_runs_quick()
    chance, computed = random.Random(int(seed)), Path(out).parent / "computed"
    undisturbed = Killer(0)
    # In this process, so that the sessions that are forked from it find everything loaded that is loaded on first use.
    with watched(undisturbed, computed):
        assert run_quickly([*words, "--out", f"{out}-undisturbed"]) == 0
    assert set(undisturbed.events) == {"fsync", "replace", "log"}, (
        "the driver writes in another way than is watched here"
    )
    apart = 2 * undisturbed.events.total() // int(kills)
    for number in range(int(kills) + 1):
        left = 1 + int(apart * chance.random()) if number < int(kills) else 0
        status = forked([*words, "--out", out], left, computed)
        done = computed.read_text().split()
        print(json.dumps({"killed": os.WIFSIGNALED(status), "computed": done, "committed": committed(Path(out))}))
        sys.stdout.flush()
        if not os.WIFSIGNALED(status):
            break
    return os.waitstatus_to_exitcode(status)
