"""Use of the rotation, and merges, after prefixes that are longer than any training program.

The target of an edit is the exact posterior of the next word under the training distribution of programs, which gives no
probability to a prefix that is longer than any of them. What a model could carry over is the rule from state and outputs to the
next word. So the target is that of the training distribution with all lengths moved: up to three words follow the prefix, each
number of them equally often, as after three words of six. The prefixes of factor 1 are those of the causal measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.interventions import SteerableModel
from benchmark.causal.measurement import measure_use
from benchmark.causal.merges import MergeResult
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings
from benchmark.causal.verdict import UseResult, not_applicable
from benchmark.length.long_programs import check_suite, program_length
from benchmark.tasks.suite import Suite

WORDS_LEFT = 3
"""Largest number of words after a prefix."""
MAX_PREFIX = 22
"""Longest prefix whose number among the prefixes of all tasks fits into 64 bits."""


@dataclass(frozen=True)
class LongPrefixResult:
    """Use and merges after prefixes of one length; see `benchmark.causal.verdict` and `benchmark.causal.merges`.

    Attributes:
        words: actions of a prefix.
        solved: share of prefixes from which the model, unedited, solves the task, also where there is no verdict.
        use: score and verdict.
        merges: figure of merges; None if no word was scored.
    """

    words: int
    solved: float | None
    use: UseResult
    merges: MergeResult | None


def long_prefix_suite(suite: Suite, factor: int) -> Suite:
    """The suite whose programs end within three words after a prefix of all but three of `factor` training lengths."""
    check_suite(suite)
    longest = program_length(suite, factor)
    return replace(suite, train_length=(longest - WORDS_LEFT, longest))


def measure_long_prefixes(
    model: SteerableModel,
    untrained: SteerableModel | None,
    suite: Suite,
    factor: int,
    num_tasks: int = STANDARD_PAIRS.tasks,
) -> LongPrefixResult:
    """Measure use and merges after long prefixes, from `num_tasks` tasks."""
    longer = long_prefix_suite(suite, factor)
    words = longer.train_length[0]
    if words > MAX_PREFIX:
        reason = f"prefixes of {words} words; expected at most {MAX_PREFIX}"
        return LongPrefixResult(words, None, not_applicable(reason), None)
    settings: PairSettings = replace(STANDARD_PAIRS, tasks=num_tasks)
    measurement = measure_use(model, longer, untrained, settings, edits_every_model=True)
    evidence, solved = measurement.evidence, None
    if evidence is not None and (is_run := evidence.unedited != NOT_RUN).any():
        solved = float(evidence.is_solved[is_run].mean())
    return LongPrefixResult(words, solved, measurement.use, measurement.merges)
