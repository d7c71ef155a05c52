"""Compile the functions of `karel_env` that most tests call; a process of its own while the tests are collected."""

from __future__ import annotations

from dataclasses import replace

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


if __name__ == "__main__":
    main()
