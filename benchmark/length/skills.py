"""Skill of rotation by word and by stretch of words, with intervals over prompts. NumPy and SciPy only.

Every figure is computed for all test prompts, in each bootstrap resample of prompts, and for the prompts of each probe seed.

Letters: `K` labels, `U` tested prompts, `T` words, `Q` seeds, `W` resamples, `S` = 1 + W + Q selections of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.length.word_losses import WordLosses
from benchmark.probing.control_gap import skill_score
from benchmark.probing.version4.rotation_interval import GapSample, estimate_gap
from benchmark.statistics import Estimate, bootstrap_weights

BOOTSTRAP_SEED, LEVEL = 90_032, 0.95
SKILL, GAP, SURPLUS, ACCURACY = "skill", "gap", "surplus", "accuracy"


@dataclass(frozen=True)
class Stretch:
    """Words `first` to `last` of a program, from 1, and the figures on them.

    Attributes:
        first, last: the words.
        figures: by source and figure, such as `model skill`, with 95% intervals.
    """

    first: int
    last: int
    figures: Mapping[str, Estimate]


def list_stretches(num_words: int, base: int) -> list[tuple[int, int]]:
    """The stretches of words 1 to `num_words`: the first `base`, and between one doubling of it and the next.

    The last stretch ends with the last word.
    """
    ends = [base]
    while ends[-1] < num_words:
        ends.append(min(2 * ends[-1], num_words))
    return [(start + 1, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def figures_of_words(
    sources: Mapping[str, WordLosses],
    records: Sequence[WordLosses],
    carried: Mapping[str, WordLosses],
    first: int,
    last: int,
    resamples: int,
) -> dict[str, Estimate]:
    """The figures on words `first` to `last`.

    Args:
        sources: losses of probes that are trained on words of the same length, by source; the first is the model.
        records: losses of the executed records of the model.
        carried: losses of probes that are trained on the first words only, by source.
        first, last: words, from 1.
        resamples: W.

    Returns:
        Per source skill and gap to the marker alternatives; of the best record skill, and the surplus of the model over it;
        of the carried probes skill and accuracy.
    """
    words = slice(first - 1, last)
    figures: dict[str, np.ndarray] = {}
    selections = _selections(next(iter({**sources, **carried}.values())), resamples)
    for name, losses in sources.items():
        skills = _skills(losses, words, selections)
        figures[f"{name} {SKILL}"], figures[f"{name} {GAP}"] = skills[0], skills[0] - skills[1:].mean(0)
    if records:
        model = figures[f"{next(iter(sources))} {SKILL}"]
        best = np.max([_skills(losses, words, selections)[0] for losses in records], 0)
        figures[f"record {SKILL}"], figures[SURPLUS] = best, model - best
    for name, losses in carried.items():
        figures[f"{name} carried {SKILL}"] = _skills(losses, words, selections)[0]
        hits, count = (selections @ part[:, words].sum(1) for part in (losses.hits, losses.count))
        figures[f"{name} carried {ACCURACY}"] = hits / count
    num_prompts = selections.shape[1]
    return {name: _estimate(values, resamples, num_prompts) for name, values in figures.items()}


def _selections(losses: WordLosses, resamples: int) -> np.ndarray:
    """float64 [S, U], weight of each prompt: all, bootstrap resamples, the prompts of each seed."""
    num_prompts = len(losses.seed)
    of_seeds = np.arange(losses.seed.max() + 1)[:, None] == losses.seed
    return np.concatenate(
        [np.ones((1, num_prompts)), bootstrap_weights(num_prompts, resamples, BOOTSTRAP_SEED), of_seeds.astype(float)]
    )


def _skills(losses: WordLosses, words: slice, selections: np.ndarray) -> np.ndarray:
    """float64 [K, S], 1 - CE / CE of the label prior."""
    loss, prior = (part[..., words].sum(-1) @ selections.T for part in (losses.loss, losses.prior))
    return skill_score(loss, prior)


def _estimate(values: np.ndarray, resamples: int, num_prompts: int) -> Estimate:
    """The estimate with its interval, from values [S]."""
    sample = GapSample(float(values[0]), values[1 : 1 + resamples], values[1 + resamples :])
    return estimate_gap(sample, num_prompts, LEVEL)
