"""A driver that kills itself at a given event, again and again: run by `test_resume` in a process of its own.

Every write of the driver has three events: its content is synced, it is renamed, an event is logged. SIGKILL comes right
before one of them. Prints, as JSON lines, what each session computed and what was committed at its end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

from quick_protocol import QUICK

import benchmark.driver
import benchmark.folder
import benchmark.run
import benchmark.shards
import benchmark.work
from benchmark.shards import WHOLE, Shards


class Killer:
    """Counts events, and ends the process at the last one."""

    def __init__(self, left: int) -> None:
        self.left = left

    def event(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def named(call) -> list[str]:
    """Names of the pieces that a call computes."""
    if hasattr(call, "names"):
        return list(call.names)
    return [call.name] if hasattr(call, "name") else [call[0]]


def session(words: list[str], left: int, computed: Path) -> None:
    killer = Killer(left)
    sync, replace, log, answer = os.fsync, Path.replace, benchmark.folder.RunFolder.log, benchmark.work.Desk.answer

    def before(real):
        def call(*arguments, **named):
            killer.event()
            return real(*arguments, **named)

        return call

    def told(self, held, work, call, share):
        found = answer(self, held, work, call, share)
        with computed.open("a") as file:
            file.write("".join(f"{name}\n" for name in named(call)))
        return found

    os.fsync, Path.replace, benchmark.folder.RunFolder.log = before(sync), before(replace), before(log)
    benchmark.work.Desk.answer = told
    os._exit(benchmark.run.main(words))


def committed(out: Path) -> list[str]:
    folders = [Shards(path) for path in out.glob("*/shards")]
    return [p.stem for s in folders for p in s.root.glob("*.json") if s.condition(p.stem) == WHOLE]


def main() -> None:
    seed, kills, out, *words = sys.argv[1:]
    benchmark.driver.STANDARD = QUICK
    chance, scratch = random.Random(int(seed)), Path(out).parent / "computed"
    for number in range(int(kills) + 1):
        scratch.write_text("")
        left = chance.randint(1, 60) if number < int(kills) else -1
        child = os.fork()
        if child == 0:
            session([*words, "--out", out], left, scratch)
        _, status = os.waitpid(child, 0)
        done = scratch.read_text().split()
        print(json.dumps({"killed": os.WIFSIGNALED(status), "computed": done, "committed": committed(Path(out))}))
        sys.stdout.flush()
        if not os.WIFSIGNALED(status):
            break
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
