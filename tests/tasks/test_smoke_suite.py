"""The suite `smoke` is a cut of `laptop`: its tasks and probe programs are the first ones, which no model of it has seen."""

from __future__ import annotations

from dataclasses import replace

from benchmark.tasks import suite as suites
from benchmark.tasks.shared_prompts import MIN_PAIRS, shared_prompts
from benchmark.tasks.suite import load_suite

CUT = ("tasks", "probe_programs", "batch", "shard", "name", "version", "official", "sha256")
"""Fields in which the suites may differ."""


def test_the_suites_differ_in_size_only() -> None:
    smoke, laptop = load_suite("smoke"), load_suite("laptop")
    same = {name: getattr(laptop, name) for name in CUT}
    assert replace(smoke, **same) == laptop
    assert not smoke.official


def test_tasks_and_probe_programs_are_the_first_of_laptop() -> None:
    smoke, laptop = load_suite("smoke"), load_suite("laptop")
    test = suites.test_tasks(smoke)
    assert test.key.tolist() == suites.test_tasks(laptop).key[: len(test)].tolist()
    assert suites.probe_tasks(smoke, test).key.tolist() == suites.probe_tasks(laptop).key[:200].tolist()
    assert suites.blind_tasks(smoke).key.tolist() == suites.blind_tasks(laptop).key[:400].tolist()


def test_it_has_enough_pairs_for_unseen_prefixes() -> None:
    assert len(shared_prompts(load_suite("smoke")).tasks) >= MIN_PAIRS
