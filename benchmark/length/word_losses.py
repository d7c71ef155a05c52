"""Probe the rotation at each word, and execute the readable record, for programs of one length.

Two kinds of probes: trained on words of the length at which they are tested, or trained on the first words only and applied
to those after them. The second tells whether the code of the state stays the same.

Letters: `K` labels, `U` tested prompts, `T` words, `Q` seeds, `R` words of all programs, `Re` evaluated ones, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.length.long_programs import LABELS, LongPrograms
from benchmark.probing.labels import Split
from benchmark.probing.probe_fit import ProbeFit, fit_in_process
from benchmark.probing.version4.readable_record import (
    NUM_WORDS,
    RECORDS,
    WORD_PAIRS,
    count_targets,
    executed_losses,
    pair_count_targets,
    place_targets,
)
from benchmark.probing.version4.rotation_evidence import select_on_validation, step_prior_loss
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.turn_pairs import NUM_ROTATIONS

Views = Sequence[np.ndarray]
"""Alternative states, float32 [R, D] each, from which validation selects."""


@dataclass(frozen=True)
class WordLosses:
    """Cross-entropies of one source of states, summed per prompt.

    Attributes:
        loss: float64 [K, U, T], of the probes.
        prior: float64 [K, U, T], of the label frequencies at the word.
        hits: int64 [U, T], words whose rotation is the most probable class.
        count: int64 [U, T], words.
        seed: int64 [U], index of the probe seed that tests the prompt.
    """

    loss: np.ndarray
    prior: np.ndarray
    hits: np.ndarray
    count: np.ndarray
    seed: np.ndarray


@dataclass(frozen=True)
class LengthProbes:
    """The settings of the probes of one measurement.

    Attributes:
        programs: the programs.
        protocol: settings of protocol 4.
        seeds: the probe seeds; seed q tests the prompts of fold q.
        trainer: trains the probes.
    """

    programs: LongPrograms
    protocol: RotationProtocol
    seeds: Sequence[int]
    trainer: Callable[..., ProbeFit] = fit_in_process

    def probe(self, views: Views, num_words: int) -> WordLosses:
        """Probes that are trained on the first `num_words` words and tested on the same words of other programs.

        The view is selected on validation per label and word, the label prior among them, as in protocol 4.
        """
        splits = self._splits(num_words, num_words)
        fits = [self._fit(view, self._label_targets(), [NUM_ROTATIONS], splits) for view in views]
        losses = []
        for q, split in enumerate(splits):
            rows = np.concatenate([split.validation, split.test])
            candidates = [-fit.log_prob[q].swapaxes(0, 1).astype(np.float64) for fit in fits]
            priors = self._prior_losses(num_words, q, rows)
            selected = select_on_validation(candidates, priors[None], self.programs.step[rows], len(split.validation))
            losses.append(selected[0, :, len(split.validation) :])
        view = [int(np.argmin([fit.validation[q, 0, 0] for fit in fits])) for q in range(len(splits))]
        predicted = [fits[view[q]].predicted[q][0, 0, len(s.validation) :] for q, s in enumerate(splits)]
        return self._sum(num_words, splits, losses, predicted)

    def carry(self, views: Views, trained_words: int) -> WordLosses:
        """Probes that are trained on the first `trained_words` words and applied to all words of other programs.

        The view of a label is the one with the lowest validation loss on the words that it was trained on.
        """
        num_words = self.programs.num_words
        splits = self._splits(trained_words, num_words)
        fits = [self._fit(view, self._label_targets(), [NUM_ROTATIONS], splits) for view in views]
        losses, predicted = [], []
        for q, split in enumerate(splits):
            best = np.argmin([fit.validation[q, :, 0] for fit in fits], 0)
            tested = slice(len(split.validation), None)
            losses.append(np.stack([-fits[v].log_prob[q][k, 0, tested] for k, v in enumerate(best)]).astype(np.float64))
            predicted.append(fits[best[0]].predicted[q][0, 0, tested])
        return self._sum(num_words, splits, losses, predicted)

    def execute_records(self, views: Views, num_words: int) -> dict[str, WordLosses]:
        """Read words and counts from the states and execute them under every label; the losses of each of `RECORDS`."""
        prefixes = self.programs.prefixes[:, :num_words]
        splits = self._splits(num_words, num_words)
        counts = np.concatenate([count_targets(prefixes), pair_count_targets(prefixes)])
        place_fits, count_fits = (
            [self._fit(view, targets[None], [classes] * len(targets), splits, with_posterior=True) for view in views]
            for targets, classes in ((place_targets(prefixes), NUM_WORDS), (counts, num_words + 1))
        )
        losses: dict[str, list[np.ndarray]] = {name: [] for name in RECORDS}
        for q, split in enumerate(splits):
            rows = np.concatenate([split.validation, split.test])
            priors = self._prior_losses(num_words, q, rows)[None]
            executed = [
                self._execute(rows, *(_posterior(fit, q, len(rows)) for fit in fits))
                for fits in zip(place_fits, count_fits, strict=True)
            ]
            for name in RECORDS:
                candidates = [by_record[name][None] for by_record in executed]
                selected = select_on_validation(candidates, priors, self.programs.step[rows], len(split.validation))
                losses[name].append(selected[0, :, len(split.validation) :])
        return {name: self._sum(num_words, splits, losses[name], None) for name in RECORDS}

    def _splits(self, trained_words: int, tested_words: int) -> list[Split]:
        """Per seed: rows of the first `trained_words` words for training and validation, of `tested_words` for testing."""
        folds = self.protocol.folds
        trained = [self.programs.split(seed, folds, trained_words) for seed in self.seeds]
        tested = [self.programs.split(seed, folds, tested_words).test for seed in self.seeds]
        return [Split(split.train, split.validation, rows) for split, rows in zip(trained, tested, strict=True)]

    def _label_targets(self) -> np.ndarray:
        return self.programs.labels[:, None]

    def _fit(
        self, view: np.ndarray, targets: np.ndarray, counts: Sequence[int], splits: Sequence[Split], **how: Any
    ) -> ProbeFit:
        """Train on the splits of all seeds; results are for validation rows and then test rows."""
        evaluated = [
            Split(split.train, split.validation, np.concatenate([split.validation, split.test])) for split in splits
        ]
        protocol = self.protocol
        return self.trainer(
            [view] * len(splits), targets, np.array(counts), evaluated, [protocol.hidden], self.seeds, protocol, **how
        )

    def _prior_losses(self, num_words: int, q: int, rows: np.ndarray) -> np.ndarray:
        """float64 [K, len(rows)], cross-entropy of the label frequencies at each word among training programs."""
        train = self.programs.split(self.seeds[q], self.protocol.folds, num_words).train
        return np.stack([step_prior_loss(self.programs.step, label, train, rows) for label in self.programs.labels])

    def _execute(self, rows: np.ndarray, place_probs: np.ndarray, count_probs: np.ndarray) -> dict[str, np.ndarray]:
        """float64 [K, len(rows)] by record, loss of the executed posteriors."""
        by_place = place_probs.reshape(len(rows), -1, NUM_WORDS)
        by_count = count_probs.reshape(len(rows), NUM_WORDS + len(WORD_PAIRS), -1)
        lengths, labels = self.programs.step[rows] + 1, self.programs.labels[:, rows]
        return executed_losses(by_place, by_count, lengths, LABELS, labels)

    def _sum(
        self,
        num_words: int,
        splits: Sequence[Split],
        losses: Sequence[np.ndarray],
        predicted: Sequence[np.ndarray] | None,
    ) -> WordLosses:
        """Sum the losses [K, Rt] of the test rows of each seed per prompt and word."""
        parts = []
        for q, (split, loss) in enumerate(zip(splits, losses, strict=True)):
            prompt = self.programs.blind.group[split.test // self.programs.num_words]
            tested, index = np.unique(prompt, return_inverse=True)
            shape = (len(tested), num_words)
            cell = np.ravel_multi_index((index, self.programs.step[split.test]), shape)
            summed = [
                np.stack([np.bincount(cell, row, shape[0] * num_words).reshape(shape) for row in values])
                for values in (loss, self._prior_losses(num_words, q, split.test))
            ]
            count = np.bincount(cell, minlength=shape[0] * num_words).reshape(shape)
            is_hit = np.zeros(len(cell)) if predicted is None else predicted[q] == self.programs.labels[0, split.test]
            hits = np.bincount(cell, is_hit, shape[0] * num_words).reshape(shape).astype(np.int64)
            parts.append((*summed, hits, count, np.full(len(tested), q)))
        loss_sum, prior_sum, hit_sum, counts, seed = zip(*parts, strict=True)
        return WordLosses(
            np.concatenate(loss_sum, 1), np.concatenate(prior_sum, 1), np.concatenate(hit_sum), np.concatenate(counts),
            np.concatenate(seed),
        )  # fmt: skip


def _posterior(fit: ProbeFit, q: int, num_rows: int) -> np.ndarray:
    """float32 [num_rows, C], probabilities of the classes of all heads of the only network."""
    assert fit.log_posterior is not None
    posterior = np.exp(fit.log_posterior[q][0]).T
    assert len(posterior) == num_rows
    return posterior
