"""Labels of the paper's semantic content, now and one or two states ahead, in four frames.

The absolute frame is the paper's: facing, position relative to the start, obstacle. The relative frame is that of the
start heading: rotation, displacement forward and sideways, obstacle; the shown examples share its rotation. `to go` is what
is still needed from the state to the shown output, in the frame of the start heading; a record of words and output derives it.
`conditions` are the values of three conditions of the language, of which programs with control flow make decisions.

Letters: `B` programs, `R` labelled action words, `H` heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.probing.labels import MISSING, ProbeSet, Split, build_probe_set, number_distinct
from benchmark.probing.protocol import Protocol
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES, relative_classes
from benchmark.probing.version4.turn_pairs import NUM_ROTATIONS
from benchmark.tasks.probe_sets import parse_programs
from karel_env.features import FEATURES
from karel_env.generation.recipe import Tasks
from karel_env.language import Programs
from karel_env.semantics import ORIGINAL
from karel_env.world import Worlds

ABSOLUTE, RELATIVE, TO_GO, CONDITIONS = "absolute", "relative", "to go", "conditions"
CLEAR_CONDITIONS = ("front_is_clear", "left_is_clear", "right_is_clear")
"""Conditions whose value follows from heading and walls; markers are no feature of the state."""
TO_GO_HEADS = tuple(f"{name}_to_go" for name in RELATIVE_FEATURES)
FRAMES = {
    ABSOLUTE: (("facing",), ("start_x", "start_y"), ("obstacle",)),
    RELATIVE: (("rotation",), ("forward", "sideways"), ("obstacle",)),
    TO_GO: ((TO_GO_HEADS[0],), TO_GO_HEADS[1:]),
    CONDITIONS: tuple((name,) for name in CLEAR_CONDITIONS),
}
"""Groups of heads per frame; a group is right if all of its heads are."""
HEADS = tuple(dict.fromkeys(head for groups in FRAMES.values() for group in groups for head in group))


@dataclass(frozen=True)
class WrittenPrograms:
    """The programs that a model wrote for the probe tasks, and the worlds that its prompts showed.

    Attributes:
        programs: B valid programs.
        inputs, outputs: worlds [B], the first shown example of each program's task.
        cluster: int64 [B], index of the distinct program.
    """

    programs: Programs
    inputs: Worlds
    outputs: Worlds
    cluster: np.ndarray

    @classmethod
    def from_texts(cls, texts: Sequence[str], tasks: Tasks) -> WrittenPrograms | None:
        """Parse the text per task; None if no text is a valid program."""
        programs, index = parse_programs(texts)
        if not len(programs):
            return None
        return cls(programs, tasks.inputs[index, 0], tasks.outputs[index, 0], number_distinct(programs))

    @property
    def num_distinct(self) -> int:
        """Number of distinct programs."""
        return int(self.cluster.max()) + 1


@dataclass(frozen=True)
class ContentLabels:
    """Classes of every head at several offsets in program states.

    Attributes:
        probe_set: the labelled words and the folds of their programs.
        offsets: offsets in program states; 0 is the state after the word.
        classes: int16 [offsets, H, R], in the order of `HEADS`; `MISSING` where there is no such state.
        counts: int64 [H], number of classes.
        features: int16 [offsets, F, R], classes of all features of the state in both frames.
        feature_counts: number of classes of each of the F features.
    """

    probe_set: ProbeSet
    offsets: tuple[int, ...]
    classes: np.ndarray
    counts: np.ndarray
    features: np.ndarray
    feature_counts: tuple[int, ...]

    def state(self, offset: int) -> np.ndarray:
        """float32 [R, D], all features of the state at an offset in both frames, one-hot."""
        columns = self.features[self.offsets.index(offset)]
        one_hot = [
            np.eye(count, dtype=np.float32)[np.maximum(column, 0)]
            for column, count in zip(columns, self.feature_counts, strict=True)
        ]
        return np.concatenate(one_hot, 1)

    def splits(self, offset: int, protocol: Protocol) -> list[Split]:
        """The split per seed, of words whose state exists both now and at the offset."""
        is_labelled = (self.classes[[0, self.offsets.index(offset)]] != MISSING).all((0, 1))
        return [
            Split(*(rows[is_labelled[rows]] for rows in (split.train, split.validation, split.test)))
            for split in map(self.probe_set.split, protocol.seeds)
        ]


def label_content(written: WrittenPrograms, protocol: Protocol, offsets: Sequence[int] = (0, 1, 2)) -> ContentLabels:
    """Label programs in the first shown world.

    Args:
        written: the programs.
        protocol: number of folds.
        offsets: offsets in program states, 0 first.

    Raises:
        LeakError: two folds share an action prefix in the same world.
    """
    probe_set = build_probe_set(written.programs, written.inputs, [ORIGINAL], protocol, offsets)
    absolute = probe_set.classes_by_offset[:, 0]
    height, width = written.inputs.cells.shape[-2:]
    start = written.inputs.robot[probe_set.program, 2].astype(np.int64)
    relative = relative_classes(absolute, start, height, width)
    to_go = to_go_classes(absolute, start, written.outputs.robot[probe_set.program], height, width)
    displacements = 2 * (max(height, width) - 3) + 1
    relative_counts = dict(zip(RELATIVE_FEATURES, (NUM_ROTATIONS, displacements, displacements), strict=True))
    by_head = {name: (absolute[:, i], int(probe_set.counts[i])) for i, name in enumerate(FEATURES)}
    for names, classes in ((RELATIVE_FEATURES, relative), (TO_GO_HEADS, to_go)):
        counted = zip(names, relative_counts.values(), strict=True)
        by_head |= {name: (classes[:, i], count) for i, (name, count) in enumerate(counted)}
    by_head |= {name: (clear, 2) for name, clear in zip(CLEAR_CONDITIONS, clear_classes(absolute), strict=True)}
    columns, counts = zip(*(by_head[head] for head in HEADS), strict=True)
    features = np.concatenate([absolute, relative], 1)
    feature_counts = tuple(int(count) for count in (*probe_set.counts, *relative_counts.values()))
    return ContentLabels(
        probe_set, tuple(offsets), np.stack(columns, 1), np.array(counts), features, feature_counts
    )  # fmt: skip


def to_go_classes(classes: np.ndarray, start: np.ndarray, output: np.ndarray, height: int, width: int) -> np.ndarray:
    """int16 [..., 3, R], rotation and displacement that are still needed from a state to the output.

    Args:
        classes: int16 [..., F, R], classes of `karel_env.features.FEATURES`.
        start: int64 [R], heading before the first action, whose frame the displacement is in.
        output: int [R, 3], row, column and heading of the robot in the shown output.
        height, width: size of the grid, border included.
    """
    facing, x, y = (classes[..., FEATURES.index(name), :] for name in ("facing", "absolute_x", "absolute_y"))
    # Classes of a state whose heading is the one needed, and whose place is so far from the start as the output from it.
    needed = classes.copy()
    needed[..., FEATURES.index("facing"), :] = (start + output[:, 2] - facing) % NUM_ROTATIONS
    needed[..., FEATURES.index("start_x"), :] = output[:, 1] - 1 - x + width - 3
    needed[..., FEATURES.index("start_y"), :] = output[:, 0] - 1 - y + height - 3
    return np.where((facing == MISSING)[..., None, :], MISSING, relative_classes(needed, start, height, width))


def clear_classes(classes: np.ndarray) -> list[np.ndarray]:
    """int16 [..., R] for each of `CLEAR_CONDITIONS`, 1 where it holds, from classes [..., F, R] of `FEATURES`."""
    facing = classes[..., FEATURES.index("facing"), :]
    walls = np.stack([classes[..., FEATURES.index(f"wall_{side}"), :] for side in ("north", "east", "south", "west")])
    turns = (0, -1, 1)
    blocked = [np.take_along_axis(walls, ((facing + turn) % NUM_ROTATIONS)[None], 0)[0] for turn in turns]
    return [np.where(facing == MISSING, MISSING, 1 - wall).astype(np.int16) for wall in blocked]
