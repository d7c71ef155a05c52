"""The task sets of one suite: drawn once each, held by whoever needs them more than once, and passed as arrays.

Letters: `N` tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock

import numpy as np

from benchmark.tasks.probe_sets import num_crossed_programs, num_wide_programs
from benchmark.tasks.stage import CROSSED, GENERATED, TEST_SET_STAGES, WIDE, Stage
from benchmark.tasks.suite import (
    Suite,
    blind_tasks,
    check_digest,
    num_blind_programs,
    probe_tasks,
    shot_tasks,
    test_tasks,
    training_tasks,
)
from karel_env.generation.recipe import Tasks
from karel_env.language import Programs
from karel_env.world import Worlds

TEST_SET, PROBE_SET, SHOT_SET, BLIND_SET, WIDE_SET = TASK_SETS = ("test", "probe", "shots", "blind", "wide")
TASK_FIELDS = (
    "words", "offsets", "input cells", "input robot", "input size", "output cells", "output robot", "output size", "key",
)  # fmt: skip


class TaskSets:
    """The task sets of a suite; each is drawn when it is first used. Threads may share it.

    Args:
        suite: the suite.
        drawn: task sets that were drawn before, by name (one of `TASK_SETS`).
    """

    def __init__(self, suite: Suite, drawn: Mapping[str, Tasks] | None = None) -> None:
        self.suite = suite
        self._drawn = dict(drawn or {})
        self._lock = RLock()

    @classmethod
    def from_arrays(cls, suite: Suite, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> TaskSets:
        """The task sets that another process drew, given as `tasks_to_arrays` by name.

        Raises:
            VerificationError: the digest of the test set differs from the pinned one.
        """
        drawn = {name: tasks_from_arrays(columns) for name, columns in arrays.items()}
        if TEST_SET in drawn:
            check_digest(suite, drawn[TEST_SET])
        return cls(suite, drawn)

    def get(self, name: str) -> Tasks:
        """The task set of a name, one of `TASK_SETS`.

        Raises:
            VerificationError: the digest of the generated test set differs from the pinned one.
        """
        with self._lock:
            if name not in self._drawn:
                self._drawn[name] = self._draw(name)
            return self._drawn[name]

    def _draw(self, name: str) -> Tasks:
        if name == TEST_SET:
            return test_tasks(self.suite)
        if name == PROBE_SET:
            return probe_tasks(self.suite, self.test)
        if name == SHOT_SET:
            return shot_tasks(self.suite, self.test, self.probe)
        return blind_tasks(self.suite, num_wide_programs(self.suite) if name == WIDE_SET else None)

    @property
    def test(self) -> Tasks:
        """The test set."""
        return self.get(TEST_SET)

    @property
    def probe(self) -> Tasks:
        """The tasks of the `generated` probe set."""
        return self.get(PROBE_SET)

    @property
    def shots(self) -> Tasks:
        """The solved examples of few-shot prompts."""
        return self.get(SHOT_SET)

    @property
    def blind(self) -> Tasks:
        """The blind probe set."""
        return self.get(BLIND_SET)

    @property
    def wide(self) -> Tasks:
        """A blind set of the largest label budget, scaled in proportion to the suite's own budget."""
        return self.get(WIDE_SET)

    @property
    def crossed(self) -> Tasks:
        """The first fifth of the blind set; the budget is smaller since each alternative needs separate prompts."""
        return self.blind.take(np.arange(num_crossed_programs(self.suite)))

    def of_stage(self, stage: Stage) -> Tasks:
        """The tasks of a stage or of its randomly initialised copies."""
        if stage.kind in TEST_SET_STAGES:
            return self.test
        if stage.kind == GENERATED:
            return self.probe
        if stage.kind == WIDE:
            return self.wide
        return self.crossed if stage.kind == CROSSED else self.blind

    def evaluation_keys(self) -> np.ndarray:
        """Keys of the tasks of the test set and the probe sets, which no training task may have."""
        return np.concatenate([self.test.key, self.probe.key, self.blind.key])

    def training(self, indices: np.ndarray, seed: int) -> Tasks:
        """Training tasks, see `suite.training_tasks`."""
        return training_tasks(self.suite, indices, seed, self.evaluation_keys())


def num_stage_tasks(suite: Suite, stage: Stage) -> int:
    """N, number of tasks of a stage; draws none."""
    if stage.kind in TEST_SET_STAGES:
        return suite.tasks
    if stage.kind == GENERATED:
        return suite.probe_programs
    if stage.kind == WIDE:
        return num_wide_programs(suite)
    return num_crossed_programs(suite) if stage.kind == CROSSED else num_blind_programs(suite)


def tasks_to_arrays(tasks: Tasks) -> dict[str, np.ndarray]:
    """The arrays of a task set, named as in `TASK_FIELDS`."""
    inputs, outputs = ((worlds.cells, worlds.robot, worlds.size) for worlds in (tasks.inputs, tasks.outputs))
    parts = (tasks.programs.words, tasks.programs.offsets, *inputs, *outputs, tasks.key)
    return dict(zip(TASK_FIELDS, parts, strict=True))


def tasks_from_arrays(arrays: Mapping[str, np.ndarray]) -> Tasks:
    """The task set of `tasks_to_arrays`."""
    words, offsets, *world_arrays, key = (arrays[name] for name in TASK_FIELDS)
    return Tasks(Programs(words, offsets), Worlds(*world_arrays[:3]), Worlds(*world_arrays[3:]), key)
