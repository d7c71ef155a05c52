"""Compile the functions of `karel_env` that most tests call; a process of its own while the tests are collected and begin."""

from __future__ import annotations

import fcntl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from numba.core.caching import Cache

from benchmark.probing.labels import build_probe_set, list_semantics
from benchmark.probing.protocol import STANDARD
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.relative.measure import RelativeSuite
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import blind_tasks, load_suite, test_tasks


def main() -> None:
    """Draw and label a few tasks, of actions only and with control flow."""
    RelativeSuite(load_suite("control"), replace(ROTATION_STANDARD, prompts=2)).probe_set  # noqa: B018
    for name in ("smoke", "control"):
        suite = replace(load_suite(name), tasks=4, probe_programs=50, sha256="")
        test_tasks(suite)
        tasks = blind_tasks(suite)
        build_probe_set(tasks.programs, first_inputs(tasks), list_semantics(STANDARD), STANDARD)


def wait_for(lock: Path) -> None:
    """From now on, a function that is not compiled yet is awaited as long as another process holds the lock."""
    load = Cache.load_overload

    def load_when_compiled(cache: Cache, *arguments: Any) -> Any:
        while (loaded := load(cache, *arguments)) is None and is_locked(lock):
            time.sleep(0.05)
        return load(cache, *arguments) if loaded is None else loaded

    Cache.load_overload = load_when_compiled


def is_locked(path: Path) -> bool:
    """Whether a process compiles; it may have ended and the file be gone."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


if __name__ == "__main__":
    main()
