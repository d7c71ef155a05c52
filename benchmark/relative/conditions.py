"""The values of the conditions with which a program with control flow decides, at their first evaluation.

Each condition word is a row: `if (front_is_clear())` is true or false in example 0. Its value follows from the state of the
robot and the world. As for the actions, a value counts only if no later word is executed before.

Letters: `B` programs, `R` condition words, `K` labels (0 is the original).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probe_fit import ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence, select_on_validation
from benchmark.probing.version4.rotation_interval import UNSEEN_ROWS, Skills, compute_skills
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.turn_pairs import SEMANTIC_PAIRS
from benchmark.relative.control_labels import SEMANTICS, ControlProbeSet, number_texts
from benchmark.statistics import bootstrap_weights
from karel_env.execution.interpreter import run
from karel_env.language import FIRST_CONDITION, FIRST_COUNT, HEADER, Programs
from karel_env.semantics import Semantics
from karel_env.world import Worlds

NUM_VALUES = 2


def condition_probe_set(probe_set: ControlProbeSet) -> ControlProbeSet:
    """The condition words of the programs; their value is in place of rotation, nothing is in place of displacement, and `step` is the condition that is tested.

    The label prior is then that of the condition, since `front_is_clear` is true more often than `markers_present`.
    """
    programs, inputs = probe_set.programs, probe_set.inputs
    is_condition = (programs.words >= FIRST_CONDITION) & (programs.words < FIRST_COUNT)
    owner = np.repeat(np.arange(len(programs)), programs.lengths)[is_condition]
    word = np.flatnonzero(is_condition) - programs.offsets[owner] - len(HEADER)
    values = np.stack([_first_values(programs, inputs, s, probe_set.max_events) for s in SEMANTICS])[:, is_condition]
    row = np.flatnonzero((values != MISSING).all(0))
    classes = np.full((len(values), len(RELATIVE_FEATURES), len(row)), MISSING, np.int16)
    classes[:, 0] = values[:, row]
    return replace(
        probe_set,
        program=owner[row],
        word=word[row],
        step=(programs.words[is_condition][row] - FIRST_CONDITION).astype(np.int64),
        prefixes=np.zeros((len(row), 0), np.int8),
        classes=classes,
        start_heading=inputs.robot[owner[row], 2].astype(np.int16),
        counts=np.array([NUM_VALUES, 0, 0]),
        row=row,
        text=number_texts(programs, owner[row], word[row]),
        first_judged=0,
        num_words=int(is_condition.sum()),
        num_executed=int((values[0] != MISSING).sum()),
    )


def _first_values(programs: Programs, inputs: Worlds, semantics: Semantics, max_events: int) -> np.ndarray:
    """int16 [words], value of each condition word at its first evaluation; `MISSING` if there is none, or a later word
    is executed before."""
    trace = run(programs, inputs, semantics, max_events=max_events, trace=True).trace
    assert trace is not None
    owner = np.repeat(np.arange(len(programs)), np.diff(trace.offsets))
    word = programs.offsets[owner] + trace.word
    is_first_pass = word == np.maximum.accumulate(word)
    values = np.full(len(programs.words), MISSING, np.int16)
    events = np.flatnonzero(is_first_pass & (trace.value >= 0))
    first_word, first = np.unique(word[events], return_index=True)
    values[first_word] = trace.value[events[first]]
    return values


def probe_conditions(
    probe_set: ControlProbeSet,
    judged_rows: JudgedRows,
    views: list[StateArray],
    protocol: RotationProtocol,
    trainer: ProbeTrainer = fit_in_process,
) -> RotationEvidence:
    """Evidence of one source on the values of conditions under every semantics, in the place of rotation."""
    splits = [
        Split(split.train, split.validation, rows)
        for split, rows in zip(judged_rows.splits, judged_rows.evaluated, strict=True)
    ]
    fits = [
        trainer(
            [view] * len(splits), probe_set.classes[:, :1], probe_set.counts[:1], splits, [protocol.hidden], judged_rows.seeds, protocol
        )
        for view in views
    ]  # fmt: skip
    losses = []
    for q, rows in enumerate(judged_rows.evaluated):
        candidates = [-fit.log_prob[q].astype(np.float64).swapaxes(0, 1) for fit in fits]
        prior, step = judged_rows.prior_loss[q][:1], probe_set.step[rows]
        losses.append(select_on_validation(candidates, prior, step, judged_rows.num_validation[q]))
    return judged_rows.sum_losses(losses, has_displacement=False)


def condition_skills(evidence: RotationEvidence, judged_rows: JudgedRows, protocol: RotationProtocol) -> Skills:
    """Skills under the labels of `SEMANTIC_PAIRS`, on unseen rows."""
    assert judged_rows.prior is not None
    assert evidence.rotation.shape[0] == len(SEMANTIC_PAIRS)
    weights = bootstrap_weights(judged_rows.num_rows.shape[2], protocol.resamples, BOOTSTRAP_SEED)
    return compute_skills(evidence, judged_rows.prior, weights, UNSEEN_ROWS)
