"""The evidence of protocol 4: cross-entropies of every source of states, summed per prompt, word position and novelty.

Sources are the model, its randomly initialised copies, the token history, and the executed records of the model. A run
stores these arrays; `rotation_verdict` computes every figure from them. NumPy only.

Letters: `Q` seeds, `F` relative features, `K` labels (0 is the original), `T` word positions, `U` groups of prompts,
`R` rows, `H` record heads. Novelty: 0 for a prefix that the probe was trained on, 1 for an unseen one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.version4.relative_labels import RelativeProbeSet
from benchmark.probing.version4.rotation_protocol import RotationProtocol

NUM_NOVELTIES = 2


@dataclass(frozen=True)
class RotationEvidence:
    """Cross-entropies of one source in nats.

    Attributes:
        loss: float32 [F, K, T, 2, U], sums over test rows, mean over the seeds that test a prompt.
        by_seed: float32 [Q, F, K, 2], sums over the test rows of the seed.
        heads: float32 [2, H], cross-entropy per row of the record heads and of their prior; empty for other sources.
    """

    loss: np.ndarray
    by_seed: np.ndarray
    heads: np.ndarray


@dataclass(frozen=True)
class JudgedRows:
    """The rows that the seeds of a protocol test, the label prior on them, and where each row is summed.

    Attributes:
        splits: split per seed.
        evaluated: int64 [Re] per seed, validation rows and then test rows.
        num_validation: number of validation rows per seed.
        cell: int64 [Rt] per seed, index of the (word position, novelty, group) of each test row.
        num_rows: int64 [T, 2, U], number of test rows, over all seeds.
        num_seeds: int64 [U], number of seeds that test a group of prompts.
        prior: the step-conditional label prior as evidence.
        prior_loss: float64 [F, K, Re] per seed.
    """

    splits: list[Split]
    evaluated: list[np.ndarray]
    num_validation: list[int]
    cell: list[np.ndarray]
    num_rows: np.ndarray
    num_seeds: np.ndarray
    prior: RotationEvidence
    prior_loss: list[np.ndarray]

    @property
    def num_unseen(self) -> int:
        """Number of distinct test rows with an unseen prefix."""
        return round(float((self.num_rows[:, 1].sum(0) / self.num_seeds).sum()))

    def sum_losses(self, losses: Sequence[np.ndarray], heads: np.ndarray | None = None) -> RotationEvidence:
        """Sum the losses float [F, K, Re] of each seed over its test rows."""
        shape = self.num_rows.shape
        total = np.zeros((*losses[0].shape[:2], self.num_rows.size))
        by_seed = []
        for loss, cell, num_validation in zip(losses, self.cell, self.num_validation, strict=True):
            tested = loss[..., num_validation:]
            summed = np.zeros_like(total)
            for f, k in np.ndindex(*summed.shape[:2]):
                summed[f, k] = np.bincount(cell, tested[f, k], minlength=self.num_rows.size)
            total += summed
            by_seed.append(summed.reshape(*summed.shape[:2], *shape).sum((2, 4)))
        loss = total.reshape(*total.shape[:2], *shape) / self.num_seeds
        return RotationEvidence(
            loss.astype(np.float32),
            np.stack(by_seed).astype(np.float32),
            np.zeros((2, 0), np.float32) if heads is None else heads,
        )


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
        splits, evaluated, [len(split.validation) for split in splits], cells, num_rows.reshape(shape), num_seeds,
        RotationEvidence(np.zeros(0), np.zeros(0), np.zeros((2, 0))), prior_losses,
    )  # fmt: skip
    return JudgedRows(**{**vars(judged_rows), "prior": judged_rows.sum_losses(prior_losses)})


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
