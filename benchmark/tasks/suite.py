"""Suites: the tasks of a benchmark run, defined by a small YAML file and a seed. Tasks are generated, never downloaded.

Letters: `N` tasks, `E` examples per task.
The generators are imported where tasks are drawn: compiling them costs a second, and a suite is also read where none are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmark.errors import UsageError, VerificationError
from karel_env.command import nearest
from karel_env.generation.recipe import KINDS, ControlRecipe, Recipe, Tasks
from karel_env.language import ACTIONS
from karel_env.syntax.dialects import KAREL

SUITE_FOLDER = Path(__file__).parent / "suites"
EQUALITIES = ("state", "drawn")
DEFAULT_SHOTS, MAX_SHOTS = 4, 1000


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name, version: identify the suite in leaderboard rows.
        official: whether runs may enter the leaderboard.
        seed: seed of every task of the suite.
        tasks: N, size of the test set.
        shown, held_out: number of examples per task that the prompt shows, and that it does not show.
        recipe: distribution of test tasks; `recipe.examples` is shown + held_out. A `ControlRecipe` generates
            conditionals and loops, and its lengths count statements.
        train_length: (shortest, longest) program of training data for the suite.
        equality: equality of worlds for the headline accuracy: `state` compares full states, `drawn` compares drawings,
            which do not show the markers under the robot.
        batch: prompts per forward pass, part of the protocol.
        shard: tasks per shard, the unit of work and of resuming; a multiple of `batch`.
        max_new_words: largest length of a generated program, in tokens of the canonical text after the header.
        probe_programs: label budget: number of programs that a probe is trained on, and of tasks of the `generated` set.
            The `blind` set has twice as many, so that this number remains for training with every test fold.
        blind_length: number of actions of each program of the blind set.
        shots: solved examples in a prompt of the few-shot track; `DEFAULT_SHOTS` if the file has no such entry.
        sha256: pinned digest of the test set; empty for a custom suite without one.
        dialect: what programs are written in, in few-shot prompts and their answers; one of `karel_env.syntax.dialects.DIALECTS`.
    """

    name: str
    version: int
    official: bool
    seed: int
    tasks: int
    shown: int
    held_out: int
    recipe: Recipe
    train_length: tuple[int, int]
    equality: str
    batch: int
    shard: int
    max_new_words: int
    probe_programs: int
    blind_length: int
    shots: int
    sha256: str
    dialect: str = KAREL

    @property
    def show_under_robot(self) -> bool:
        """Whether prompts print the markers under the robot."""
        return self.equality == "state"

    @property
    def has_several_sizes(self) -> bool:
        """Whether its worlds differ in height or width."""
        return any(low < high for low, high in (self.recipe.height, self.recipe.width))

    def shards(self, num_tasks: int) -> list[tuple[int, int]]:
        """(start, stop) of each shard of `num_tasks` tasks."""
        return [(start, min(start + self.shard, num_tasks)) for start in range(0, num_tasks, self.shard)]


def suite_names() -> list[str]:
    """Names of the shipped suites."""
    return sorted(path.stem for path in SUITE_FOLDER.glob("*.yaml"))


def load_suite(name_or_path: str, seed: int | None = None) -> Suite:
    """Load a shipped suite by name, or a custom suite by the path of its YAML file.

    Args:
        name_or_path: such as `laptop` or `my/suite.yaml`.
        seed: replaces the suite's seed; the result is then not official and has no pinned digest.

    Raises:
        UsageError: there is no such suite, or the file is not a valid suite.
    """
    is_custom = name_or_path.endswith((".yaml", ".yml"))
    path = Path(name_or_path) if is_custom else SUITE_FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        names = suite_names()
        raise UsageError(
            f"--suite {name_or_path}: no such suite; use one of {', '.join(names)}, or the path of a .yaml file"
            f"{nearest(name_or_path, names)}"
        )
    try:
        suite = _read_suite(path.read_bytes())
    except (KeyError, TypeError, ValueError, OSError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(
            f"--suite {name_or_path}: {_format_error(error)}; see benchmark/tasks/suites/laptop.yaml"
        ) from error
    if is_custom:
        suite = replace(suite, official=False)
    if seed is not None and seed != suite.seed:
        suite = replace(suite, seed=seed, sha256="", official=False)
    return suite


def _format_error(error: Exception) -> str:
    text = f"missing entry {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())


PROBES_PER_LIMITED_TASK = 5
"""Probe programs per test task of a limited suite."""
FIELD_LIMITS = {
    "seed": (0, 2**63 - 1), "tasks": (1, 10_000_000), "shown": (1, 1000), "held_out": (0, 1000), "batch": (1, 10_000_000),
    "shard": (1, 10_000_000), "max_new_words": (1, 100_000), "probe_programs": (0, 10_000_000), "blind_length": (0, 1000),
    "shots": (0, MAX_SHOTS),
}  # fmt: skip
"""Smallest and largest value of the numeric fields of a suite."""


@lru_cache(maxsize=64)
def _read_suite(content: bytes) -> Suite:
    """A run loads its suite several times, and reading YAML takes 20 ms."""
    return _parse_suite(yaml.safe_load(content))


def _parse_suite(entry: dict[str, Any]) -> Suite:
    suite = Suite(
        name=str(entry["name"]),
        version=int(entry["version"]),
        official=bool(entry["official"]),
        seed=int(entry["seed"]),
        tasks=int(entry["tasks"]),
        shown=int(entry["shown"]),
        held_out=int(entry["held_out"]),
        recipe=_parse_recipe(entry),
        train_length=_parse_range(entry["train_length"]),
        equality=str(entry["equality"]),
        batch=int(entry["batch"]),
        shard=int(entry["shard"]),
        max_new_words=int(entry["max_new_words"]),
        probe_programs=int(entry["probe"]["programs"]),
        blind_length=int(entry["probe"]["blind_length"]),
        shots=int(entry.get("shots", DEFAULT_SHOTS)),
        sha256=str(entry.get("sha256") or ""),
    )
    for name, (lower, upper) in FIELD_LIMITS.items():
        if not lower <= getattr(suite, name) <= upper:
            raise ValueError(f"{name} {getattr(suite, name)}: expected at least {lower} and at most {upper}")
    if not 0 <= suite.recipe.wall < 1 or not 0 <= suite.recipe.marker <= 1:
        raise ValueError(
            f"wall {suite.recipe.wall} and marker {suite.recipe.marker}: expected shares, at least 0 and below 1"
        )
    if suite.equality not in EQUALITIES:
        raise ValueError(f"equality {suite.equality!r} is not one of {', '.join(EQUALITIES)}")
    if suite.shown < 1 or suite.tasks < 1 or suite.batch < 1 or suite.shard % suite.batch:
        raise ValueError("shown, tasks and batch must be at least 1 and shard a multiple of batch")
    return suite


def _parse_recipe(entry: dict[str, Any]) -> Recipe:
    """Parse the recipe of a suite; an entry `control` under `draw` gives a recipe with conditionals and loops."""
    distribution = entry["draw"]
    recipe = Recipe(
        height=_parse_range(distribution["height"]),
        width=_parse_range(distribution["width"]),
        wall=float(distribution["wall"]),
        marker=float(distribution["marker"]),
        length=_parse_range(distribution["length"]),
        weights=tuple(int(distribution["weights"][action]) for action in ACTIONS),
        examples=int(entry["shown"]) + int(entry["held_out"]),
    )
    if "control" not in distribution:
        return recipe
    control = distribution["control"]
    return ControlRecipe(
        **vars(recipe),
        kinds=tuple(int(control["kinds"][kind]) for kind in KINDS),
        depth=int(control["depth"]),
        negate=float(control["negate"]),
        repeats=_parse_range(control["repeats"]),
        most_markers=int(control["most_markers"]),
        events=int(control["events"]),
        live=bool(control["live"]),
        shown=int(entry["shown"]),
    )


def _parse_range(value: int | list[int]) -> tuple[int, int]:
    lower, upper = (value, value) if isinstance(value, int) else value
    return int(lower), int(upper)


def test_tasks(suite: Suite) -> Tasks:
    """Draw the test set; a caller that needs a task set more than once holds a `TaskSets`.

    Raises:
        VerificationError: the digest of the test set differs from the pinned one.
    """
    return check_digest(suite, _evaluation_tasks(suite, "test", suite.tasks))


def probe_tasks(suite: Suite, test: Tasks | None = None) -> Tasks:
    """Draw the tasks of the `generated` probe set: from the distribution of the test set and disjoint from it.

    Args:
        suite: the suite.
        test: the test set; drawn if None.
    """
    test = test_tasks(suite) if test is None else test
    return _evaluation_tasks(suite, "probe", suite.probe_programs, test.key)


def shot_tasks(suite: Suite, test: Tasks | None = None, probe: Tasks | None = None) -> Tasks:
    """Draw the solved examples of few-shot prompts, [shots]: from the distribution of the test set, disjoint from all tasks.

    Args:
        suite: the suite.
        test, probe: the test set and the `generated` probe set; drawn if None.
    """
    test = test_tasks(suite) if test is None else test
    probe = probe_tasks(suite, test) if probe is None else probe
    return _evaluation_tasks(suite, "shots", suite.shots, np.concatenate([test.key, probe.key]))


def _evaluation_tasks(suite: Suite, purpose: str, num_tasks: int, excluded: np.ndarray | None = None) -> Tasks:
    """`num_tasks` tasks from the random stream `purpose` of the suite; programs with control flow are distinct."""
    from karel_env.generation import control_flow, generator

    if isinstance(suite.recipe, ControlRecipe):
        return control_flow.distinct(suite.recipe, suite.seed, purpose, num_tasks, excluded=excluded)
    return generator.generate(suite.recipe, suite.seed, purpose, np.arange(num_tasks), excluded=excluded)


def blind_tasks(suite: Suite, num_pairs: int | None = None) -> Tasks:
    """Draw the tasks of the `blind` probe set: distinct programs of uniformly drawn actions of one length.

    Args:
        suite: the suite.
        num_pairs: number of program-world pairs; `num_blind_programs` if None. If there are fewer programs of this length,
            programs are repeated in other worlds.
    """
    from karel_env.generation import generator

    recipe = replace(suite.recipe, length=(suite.blind_length,) * 2, weights=(1,) * len(ACTIONS))
    num_distinct = len(ACTIONS) ** suite.blind_length
    num_tasks = num_blind_programs(suite) if num_pairs is None else num_pairs
    num_occurrences: Counter[bytes] = Counter()
    task_index: list[int] = []
    start = 0
    while len(task_index) < num_tasks:
        candidates = generator.generate(recipe, suite.seed, "blind", np.arange(start, start + 2 * num_tasks))
        for i in range(len(candidates)):
            program = candidates.programs.program(i).tobytes()
            if num_occurrences[program] <= len(task_index) // num_distinct:
                num_occurrences[program] += 1
                task_index.append(start + i)
        start += 2 * num_tasks
    return generator.generate(recipe, suite.seed, "blind", np.array(task_index[:num_tasks]))


def num_blind_programs(suite: Suite) -> int:
    """Size of the blind set: twice the label budget, at most the number of distinct programs."""
    return min(2 * suite.probe_programs, len(ACTIONS) ** suite.blind_length)


def training_tasks(suite: Suite, indices: np.ndarray, seed: int, excluded: np.ndarray | None = None) -> Tasks:
    """Draw training tasks for a model of the suite, disjoint from the test set and the probe sets.

    Args:
        suite: the suite.
        indices: numbers of the tasks in the random stream of `seed`.
        seed: seed of the training data.
        excluded: keys of the tasks of the test set and the probe sets (`TaskSets.evaluation_keys`); drawn if None.
    """
    from karel_env.generation import control_flow, generator

    if excluded is None:
        test = test_tasks(suite)
        excluded = np.concatenate([test.key, probe_tasks(suite, test).key, blind_tasks(suite).key])
    recipe = replace(suite.recipe, length=suite.train_length)
    if isinstance(recipe, ControlRecipe):
        return control_flow.generate(recipe, seed, "train", indices, excluded=excluded)
    return generator.generate(recipe, seed, "train", indices, excluded=excluded)


def check_digest(suite: Suite, tasks: Tasks) -> Tasks:
    """Return a test set whose digest is the pinned one, if the suite pins any.

    Raises:
        VerificationError: the digests differ.
    """
    actual = hash_tasks(tasks)
    if suite.sha256 and actual != suite.sha256:
        raise VerificationError(
            f"suite {suite.name}: the generated test set has SHA-256 {actual}, expected {suite.sha256}; "
            "this installation does not generate the pinned tasks, reinstall the released version"
        )
    return tasks


def hash_tasks(tasks: Tasks) -> str:
    """SHA-256 over programs, inputs and outputs in a platform-independent byte order and layout."""
    sha256 = hashlib.sha256()
    parts = [tasks.programs.words, tasks.programs.offsets]
    for worlds in (tasks.inputs, tasks.outputs):
        parts += [worlds.cells, worlds.robot, worlds.size]
    for array in parts:
        sha256.update(str(array.shape).encode())
        sha256.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return sha256.hexdigest()


def identify_suite(suite: Suite) -> dict[str, Any]:
    """The fields of a suite that identify a run; the canonical dialect is left out, as it was before there was another."""
    return {name: value for name, value in asdict(suite).items() if name != "dialect" or value != KAREL}


def set_prompts(suite: Suite, num_fewshot: int | None = None, dialect: str = KAREL) -> Suite:
    """The suite with other few-shot prompts; its tasks are the same.

    Args:
        suite: the suite.
        num_fewshot: number of solved examples, the first ones of the suite's stream; None for the suite's own number.
        dialect: one of `karel_env.syntax.dialects.DIALECTS`.
    """
    return replace(suite, shots=suite.shots if num_fewshot is None else num_fewshot, dialect=dialect)


def limit_test_tasks(suite: Suite, num_tasks: int | None) -> Suite:
    """The suite with its first `num_tasks` test tasks, without their pinned digest, and with all its probe sets."""
    if num_tasks is None or num_tasks >= suite.tasks:
        return suite
    return replace(suite, tasks=num_tasks, sha256="")


def limit_suite(suite: Suite, num_tasks: int | None) -> Suite:
    """The suite with its first `num_tasks` tasks only, and smaller probe sets; not official and without pinned digest."""
    if num_tasks is None:
        return suite
    num_probe_programs = min(suite.probe_programs, max(200, PROBES_PER_LIMITED_TASK * num_tasks))
    return replace(
        suite, tasks=min(num_tasks, suite.tasks), probe_programs=num_probe_programs, sha256="", official=False
    )
