"""The evidence of protocol 4: cross-entropies of every source of states, summed as far as its figures allow.

Sources are the model, its randomly initialised copies, the token history, and the executed records of the model. A run
stores these arrays; `rotation_verdict` computes every figure from them. Sums are kept per group of prompts where an
interval needs them: for rotation by novelty, for displacement on all rows. NumPy only.

Letters: `Q` seeds, `F` relative features, `K` labels (0 is the original), `M` labels of displacement (the original and the
marker alternatives), `T` word positions, `U` groups of prompts, `R` rows, `H` record heads. Novelty: 0 for a prefix that
the probe was trained on, 1 for an unseen one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES, RelativeProbeSet
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.turn_pairs import MARKER_PAIRS

NUM_NOVELTIES = 2
NUM_DISPLACEMENT_LABELS = 1 + len(MARKER_PAIRS)


@dataclass(frozen=True)
class RotationEvidence:
    """Cross-entropies of one source in nats.

    Attributes:
        rotation: float32 [K, 2, U], sums over test rows by novelty and group, mean over the seeds that test a group.
        displacement: float32 [F - 1, M, U], the same of forward and sideways on all rows; M is 0 for executed records.
        by_position: float32 [K, T], the same of rotation by word position, over all groups.
        rotation_by_seed: float32 [Q, K, 2], sums over the test rows of the seed.
        displacement_by_seed: float32 [Q, F - 1, M].
        heads: float32 [Q, 2, H], cross-entropy per row of the record heads and of their prior; H is 0 for other sources.
    """

    rotation: np.ndarray
    displacement: np.ndarray
    by_position: np.ndarray
    rotation_by_seed: np.ndarray
    displacement_by_seed: np.ndarray
    heads: np.ndarray

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays by name, each with `prefix` and a dot before it."""
        return {f"{prefix}.{name}": array for name, array in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str) -> RotationEvidence:
        """The evidence that `arrays` named."""
        return cls(**{name: arrays[f"{prefix}.{name}"] for name in cls.__dataclass_fields__})


def evidence_shapes(
    num_labels: int, judged_rows: JudgedRows, source_is_record: bool, heads: int
) -> dict[str, list[int]]:
    """Shape of each array of a source's evidence."""
    num_positions, num_novelties, num_groups = judged_rows.num_rows.shape
    num_seeds, displacements = len(judged_rows.seeds), len(RELATIVE_FEATURES) - 1
    num_displacement_labels = 0 if source_is_record else NUM_DISPLACEMENT_LABELS
    return {
        "rotation": [num_labels, num_novelties, num_groups],
        "displacement": [displacements, num_displacement_labels, num_groups],
        "by_position": [num_labels, num_positions],
        "rotation_by_seed": [num_seeds, num_labels, num_novelties],
        "displacement_by_seed": [num_seeds, displacements, num_displacement_labels],
        "heads": [num_seeds, 2, heads],
    }


def merge_evidence(parts: Sequence[tuple[Sequence[int], RotationEvidence]], seeds: Sequence[int]) -> RotationEvidence:
    """The evidence of one source from that of subsets of its seeds.

    Args:
        parts: seeds and evidence per subset; `JudgedRows.select` gives the rows of a subset.
        seeds: all seeds, in the order of the result.
    """

    def add(name: str) -> np.ndarray:
        total = np.sum([vars(part)[name] for _, part in parts], 0, dtype=np.float64)
        return np.asarray(total, np.float32)

    def stack(name: str) -> np.ndarray:
        by_seed = {seed: vars(part)[name][q] for own, part in parts for q, seed in enumerate(own)}
        return np.stack([by_seed[seed] for seed in seeds])

    return RotationEvidence(
        *map(add, ("rotation", "displacement", "by_position")),
        *map(stack, ("rotation_by_seed", "displacement_by_seed", "heads")),
    )


@dataclass(frozen=True)
class JudgedRows:
    """The rows that the seeds of a protocol test, the label prior on them, and where each row is summed.

    Attributes:
        seeds: the seeds.
        splits: split per seed.
        evaluated: int64 [Re] per seed, validation rows and then test rows.
        num_validation: number of validation rows per seed.
        cell: int64 [Rt] per seed, index of the (word position, novelty, group) of each test row.
        num_rows: int64 [T, 2, U], number of test rows, over all seeds of the protocol.
        num_seeds: int64 [U], number of seeds of the protocol that test a group of prompts.
        prior: the step-conditional label prior as evidence of all seeds of the protocol.
        prior_loss: float64 [F, K, Re] per seed.
    """

    seeds: Sequence[int]
    splits: list[Split]
    evaluated: list[np.ndarray]
    num_validation: list[int]
    cell: list[np.ndarray]
    num_rows: np.ndarray
    num_seeds: np.ndarray
    prior: RotationEvidence | None
    prior_loss: list[np.ndarray]

    @property
    def num_unseen(self) -> int:
        """Number of distinct test rows with an unseen prefix."""
        return round(float((self.num_rows[:, 1].sum(0) / self.num_seeds).sum()))

    def select(self, seeds: Sequence[int]) -> JudgedRows:
        """The rows of a subset of the seeds; sums over groups have the weights of all seeds, see `merge_evidence`."""
        chosen = [list(self.seeds).index(seed) for seed in seeds]
        return replace(
            self,
            seeds=list(seeds),
            splits=[self.splits[q] for q in chosen],
            evaluated=[self.evaluated[q] for q in chosen],
            num_validation=[self.num_validation[q] for q in chosen],
            cell=[self.cell[q] for q in chosen],
            prior_loss=[self.prior_loss[q] for q in chosen],
        )

    def sum_losses(
        self, losses: Sequence[np.ndarray], heads: np.ndarray | None = None, has_displacement: bool = True
    ) -> RotationEvidence:
        """Sum the losses float [F, K, Re] of each seed over its test rows.

        Args:
            losses: losses per seed.
            heads: float [Q, 2, H], see `RotationEvidence.heads`.
            has_displacement: whether the source has losses of forward and sideways.
        """
        shape, num_labels = self.num_rows.shape, losses[0].shape[1]
        num_displacement_labels = NUM_DISPLACEMENT_LABELS if has_displacement else 0
        features = [(0, k) for k in range(num_labels)] + [
            (f, k) for f in range(1, len(RELATIVE_FEATURES)) for k in range(num_displacement_labels)
        ]
        total = np.zeros((len(features), self.num_rows.size))
        by_seed = []
        for loss, cell, num_validation in zip(losses, self.cell, self.num_validation, strict=True):
            summed = np.stack(
                [np.bincount(cell, loss[f, k, num_validation:], minlength=self.num_rows.size) for f, k in features]
            )
            total += summed
            by_seed.append(summed.reshape(-1, *shape).sum((1, 3)))
        cells = total.reshape(-1, *shape) / self.num_seeds
        displacement_shape = (len(RELATIVE_FEATURES) - 1, num_displacement_labels)
        seed_sums = np.stack(by_seed)
        parts = (
            cells[:num_labels].sum(1),
            cells[num_labels:].sum((1, 2)).reshape(*displacement_shape, shape[2]),
            cells[:num_labels].sum((2, 3)),
            seed_sums[:, :num_labels],
            seed_sums[:, num_labels:].sum(2).reshape(len(losses), *displacement_shape),
            np.zeros((len(losses), 2, 0)) if heads is None else heads,
        )
        return RotationEvidence(*(part.astype(np.float32) for part in parts))


def judge_rows(probe_set: RelativeProbeSet, protocol: RotationProtocol) -> JudgedRows:
    """The test rows of every seed and the label prior on them.

    Prompts are grouped into at most `protocol.units` groups of neighbours within their fold.
    """
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    tested = np.unique(np.concatenate([probe_set.cluster[probe_set.program[split.test]] for split in splits]))
    order = np.lexsort((tested, tested % probe_set.folds))
    num_groups = min(protocol.units, len(tested))
    group = np.full(int(probe_set.cluster.max()) + 1, MISSING)
    group[tested[order]] = _group_within_folds(tested[order] % probe_set.folds, num_groups)
    num_groups = int(group.max()) + 1
    shape = (int(probe_set.step.max()) + 1, NUM_NOVELTIES, num_groups)
    cells, evaluated, prior_losses = [], [], []
    num_rows, num_seeds = np.zeros(int(np.prod(shape)), np.int64), np.zeros(num_groups, np.int64)
    for split in splits:
        row_group = group[probe_set.cluster[probe_set.program[split.test]]]
        novelty = probe_set.is_unseen(split, split.test).astype(np.int64)
        cell = np.ravel_multi_index((probe_set.step[split.test], novelty, row_group), shape)
        num_rows += np.bincount(cell, minlength=len(num_rows))
        num_seeds[np.unique(row_group)] += 1
        cells.append(cell)
        rows = np.concatenate([split.validation, split.test])
        evaluated.append(rows)
        prior_losses.append(_prior_losses(probe_set, split, rows))
    judged_rows = JudgedRows(
        list(protocol.seeds), splits, evaluated, [len(split.validation) for split in splits], cells, num_rows.reshape(shape),
        num_seeds, None, prior_losses,
    )  # fmt: skip
    return replace(judged_rows, prior=judged_rows.sum_losses(prior_losses))


def _group_within_folds(fold: np.ndarray, num_groups: int) -> np.ndarray:
    """int64 [prompts], group of each prompt, of neighbours; no group has prompts of two folds. `fold` is ascending."""
    per_fold = max(1, num_groups // len(np.unique(fold)))
    group, next_group = np.zeros(len(fold), np.int64), 0
    for value in np.unique(fold):
        members = np.flatnonzero(fold == value)
        parts = min(per_fold, len(members))
        group[members] = next_group + np.arange(len(members)) * parts // len(members)
        next_group += parts
    return group


def _prior_losses(probe_set: RelativeProbeSet, split: Split, rows: np.ndarray) -> np.ndarray:
    """float64 [F, K, len(rows)], cross-entropy of the class frequencies per word position (add-one smoothing)."""
    num_labels, num_features = probe_set.classes.shape[:2]
    losses = np.zeros((num_features, num_labels, len(rows)))
    for f, k in np.ndindex(num_features, num_labels):
        losses[f, k] = step_prior_loss(probe_set.step, probe_set.classes[k, f], split.train, rows)
    return losses


def step_prior_loss(step: np.ndarray, label: np.ndarray, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 [len(rows)], cross-entropy of the class frequencies per word position; 0 where there is no label."""
    labelled = train[label[train] != MISSING]
    classes = int(label.max(initial=0)) + 1
    count = np.ones((int(step.max()) + 1, classes))
    np.add.at(count, (step[labelled], label[labelled]), 1)
    loss = np.log(count.sum(1))[step[rows]] - np.log(count[step[rows], label[rows].clip(0)])
    return np.where(label[rows] == MISSING, 0, loss)


def select_on_validation(
    candidates: Sequence[np.ndarray], prior: np.ndarray, step: np.ndarray, num_validation: int
) -> np.ndarray:
    """float64 [F, K, Re], losses of the candidate with the lowest validation loss, per feature, label and word position.

    The label prior is a candidate too, so that a view without information has skill 0 instead of that of an overfitted
    probe.

    Args:
        candidates: float [F, K, Re] per view.
        prior: float64 [F, K, Re], losses of the label prior.
        step: int64 [Re], word position of each row.
        num_validation: number of rows that select, the first ones.
    """
    losses = np.stack([prior, *candidates])
    selected = np.zeros_like(prior)
    for position in np.unique(step):
        at = np.flatnonzero(step == position)
        selecting = at[at < num_validation]
        best = losses[..., selecting].sum(-1).argmin(0)
        selected[..., at] = np.take_along_axis(losses[..., at], best[None, ..., None], 0)[0]
    return selected
