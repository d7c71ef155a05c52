"""Measure whether a model that executes programs uses the rotation that its states hold.

The rotation at the program's last word is edited as in the main measurement (mean shift at scale 1, site from other tasks),
and the model names the robot's heading. Success is the heading that is right for the edited rotation in the world's frame.

Letters: `N` tasks, `S` semantics (0 is the original), `L` sites, `V` random draws, `D` width, `B` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from benchmark.causal.edits import MeanShift, mean_shift
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.execution.heading_tasks import HeadingTasks
from benchmark.causal.execution.verdict import ExecutionResult, judge_execution
from benchmark.causal.interventions import AT_PROMPT, PreparedPrefixes, SteerableModel
from benchmark.causal.natural_range import ComponentRange
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.session import best_words
from benchmark.causal.targets import TURNS
from benchmark.errors import ModelError
from karel_env.semantics import ORIGINAL

NUM_RANDOM = 5
RANDOM_SEED = 90_301
NUM_EDITS = TURNS - 1


@dataclass(frozen=True)
class ExecutionEvidence:
    """Headings named per task under each edit, index in `HEADINGS`; `NOT_RUN` where an edit was not made.

    Turns of edits are one, two and three quarter turns to the right, in this order.

    Attributes:
        unedited: int8 [N].
        choose: int8 [S, L, N], the mean shift under each semantics at each site, on choose tasks; turn 1 + task % 3.
        steered: int8 [S, 3, N], the same at the site of each semantics, on report tasks.
        random: int8 [V, 3, N], vectors of random direction and the edit's norm.
        wrong_position: int8 [3, N], the shift at the last token of the prompt.
        clamped: int8 [3, N], the shift with later activations in their natural range.
        untrained: int8 [3, N], the shift in an untrained copy with its own means and site.
    """

    unedited: np.ndarray
    choose: np.ndarray
    steered: np.ndarray
    random: np.ndarray
    wrong_position: np.ndarray
    clamped: np.ndarray
    untrained: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, as a file stores them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class ExecutionMeasurement:
    """The result of a model.

    Attributes:
        sites: names of the places at which states were replaced.
        result: scores and verdict.
        evidence: headings named; None if the model cannot be edited.
    """

    sites: tuple[str, ...]
    result: ExecutionResult
    evidence: ExecutionEvidence | None


def measure_execution(
    model: SteerableModel,
    tasks: HeadingTasks,
    untrained: SteerableModel | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> ExecutionMeasurement:
    """Measure one model.

    Args:
        model: scores the continuations `HeadingTasks.answers` in place of the words of a program.
        tasks: the tasks.
        untrained: a copy of the same architecture with random weights, a control.
        on_step: called with the name of each step.

    Returns:
        The result. A model that names fewer than 30% of the headings, or cannot be edited, has the verdict N/A.
    """
    session = ExecutionSession(model, tasks)
    num_sites = len(model.sites)
    semantics = len(session.values)
    arrays = {
        name: np.full((*shape, len(tasks)), NOT_RUN, np.int8)
        for name, shape in {
            "unedited": (), "choose": (semantics, num_sites), "steered": (semantics, NUM_EDITS),
            "random": (NUM_RANDOM, NUM_EDITS), "wrong_position": (NUM_EDITS,), "clamped": (NUM_EDITS,),
            "untrained": (NUM_EDITS,),
        }.items()
    }  # fmt: skip
    evidence = ExecutionEvidence(**arrays)
    try:
        on_step("unedited")
        session.name_unedited(evidence.unedited)
        if (reason := session.inability(evidence.unedited)) is not None:
            return ExecutionMeasurement(
                tuple(model.sites), ExecutionResult.inapplicable(reason, tasks, evidence.unedited), evidence
            )
        on_step("choosing the site")
        session.read_states()
        is_right = evidence.unedited == tasks.heading
        session.choose(evidence.choose)
        sites = [choose_site(evidence.choose[s], tasks, session.counts(s) & is_right) for s in range(semantics)]
        on_step("edits and controls")
        session.report(evidence, sites)
        if untrained is not None:
            on_step("untrained copy")
            _run_untrained(ExecutionSession(untrained, tasks), evidence)
    except ModelError as error:
        return ExecutionMeasurement((), ExecutionResult.inapplicable(str(error), tasks, evidence.unedited), None)
    result = judge_execution(evidence, tasks, sites[0], [session.counts(s) for s in range(semantics)])
    return ExecutionMeasurement(tuple(model.sites), result, evidence)


class ExecutionSession:
    """A model with the tasks, and the rotation of their programs under each semantics."""

    def __init__(self, model: SteerableModel, tasks: HeadingTasks) -> None:
        self.model, self.tasks, self.texts = model, tasks, tasks.texts
        self.values = np.stack([net_rotation(tasks.programs, s) for s in (ORIGINAL, *alternative_semantics())])
        self.states: list[np.ndarray] = []
        self.activations: list[np.ndarray] = []
        self.shifts: list[list[MeanShift]] = []

    def counts(self, semantics: int) -> np.ndarray:
        """bool [N], tasks on which a semantics counts: all for the original, for others those whose rotation differs."""
        return np.asarray((self.values[semantics] != self.values[0]) | (semantics == 0))

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, PreparedPrefixes]]:
        """Tasks `rows`, prepared a batch at a time."""
        for start in range(0, len(rows), self.model.batch_rows):
            chunk = rows[start : start + self.model.batch_rows]
            yield chunk, self.model.prepare([self.tasks.prompts[i] for i in chunk], [self.texts[i] for i in chunk])

    def name_unedited(self, words: np.ndarray) -> None:
        """Fill int8 [N] with the headings that the unedited model names."""
        for rows, prepared in self.batches(np.arange(len(self.tasks))):
            words[rows] = best_words(prepared.score().log_probs)

    def inability(self, unedited: np.ndarray) -> str | None:
        """Why the model cannot be measured; None if it can."""
        from benchmark.causal.verdict import MIN_SOLVED

        share = float((unedited == self.tasks.heading).mean())
        if share < MIN_SOLVED:
            return f"the model names {share:.0%} of the headings; expected at least {MIN_SOLVED:.0%} (chance: 25%)"
        return None

    def read_states(self) -> None:
        """Read the states of choose tasks and make the means of each semantics at each site."""
        rows = np.flatnonzero(~self.tasks.is_report)
        parts, activations = [], []
        for _, prepared in self.batches(rows):
            parts.append(list(prepared.states()))
            activations.append(list(prepared.activations()))
        self.states = [np.concatenate(part) for part in zip(*parts, strict=True)]
        self.activations = [np.concatenate(part) for part in zip(*activations, strict=True)]
        if not all(np.isfinite(part).all() for part in self.states):
            raise ModelError("states are NaN or infinite; try --dtype float32, else the weights are broken")
        self.shifts = [[mean_shift(states, value[rows], TURNS) for states in self.states] for value in self.values]

    def edited(self, semantics: int, site: int, states: np.ndarray, rows: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """float32 [B, D], states of tasks `rows` with the rotation that quarter turns int [B] lead to."""
        source = self.values[semantics, rows]
        return self.shifts[semantics][site](states, source, (source + turn) % TURNS)

    def choose(self, words: np.ndarray, num_semantics: int | None = None) -> None:
        """Fill int8 [S, L, N] on choose tasks, one turn per task."""
        for rows, prepared in self.batches(np.flatnonzero(~self.tasks.is_report)):
            states, turn = prepared.states(), choose_turns(rows)
            for semantics in range(len(self.values))[:num_semantics]:
                for site in range(len(self.model.sites)):
                    edited = self.edited(semantics, site, states[site], rows, turn)
                    words[semantics, site, rows] = best_words(prepared.score(site, edited).log_probs)

    def report(self, evidence: ExecutionEvidence, sites: list[int]) -> None:
        """Run every edit and control on report tasks; `sites` holds the site of each semantics."""
        at = sites[0]
        natural, ranges = ComponentRange.of(self.states[at]), [ComponentRange.of(a) for a in self.activations]
        for rows, prepared in self.batches(np.flatnonzero(self.tasks.is_report)):
            states, prompt_states = prepared.states(), prepared.states(AT_PROMPT)[at]
            for number in range(NUM_EDITS):
                turn = np.full(len(rows), number + 1)
                for semantics, site in enumerate(sites):
                    edited = self.edited(semantics, site, states[site], rows, turn)
                    evidence.steered[semantics, number, rows] = best_words(prepared.score(site, edited).log_probs)
                edited = self.edited(0, at, states[at], rows, turn)
                shift = edited - states[at]
                norms = np.linalg.norm(shift.astype(np.float64), axis=1)
                for draw in range(NUM_RANDOM):
                    seeds = [RANDOM_SEED + (int(row) * NUM_EDITS + number) * NUM_RANDOM + draw for row in rows]
                    random = states[at] + natural.random_vectors(norms, seeds)
                    evidence.random[draw, number, rows] = best_words(prepared.score(at, random).log_probs)
                wrong = prepared.score(at, prompt_states + shift, position=AT_PROMPT)
                evidence.wrong_position[number, rows] = best_words(wrong.log_probs)
                clamped = prepared.score(at, edited, ranges=ranges)
                evidence.clamped[number, rows] = best_words(clamped.log_probs)


def _run_untrained(session: ExecutionSession, evidence: ExecutionEvidence) -> None:
    """Fill the control of an untrained copy, with its own means and site."""
    tasks = session.tasks
    session.read_states()
    words = np.full((1, len(session.model.sites), len(tasks)), NOT_RUN, np.int8)
    session.choose(words, 1)
    site = choose_site(words[0], tasks, np.ones(len(tasks), bool))
    for rows, prepared in session.batches(np.flatnonzero(tasks.is_report)):
        states = prepared.states()[site]
        for number in range(NUM_EDITS):
            edited = session.edited(0, site, states, rows, np.full(len(rows), number + 1))
            evidence.untrained[number, rows] = best_words(prepared.score(site, edited).log_probs)


def choose_turns(rows: np.ndarray) -> np.ndarray:
    """int64 [B], the turn of the edit of each choose task."""
    return np.asarray(1 + rows % NUM_EDITS)


def choose_site(words: np.ndarray, tasks: HeadingTasks, is_valid: np.ndarray) -> int:
    """The first site with the largest share of targets on choose tasks; `words` int8 [L, N], `is_valid` bool [N]."""
    rows = np.flatnonzero(is_valid & ~tasks.is_report)
    if not len(rows):
        raise ModelError("no choose task has the right heading; use more tasks")
    target = (tasks.heading[rows] + choose_turns(rows)) % TURNS
    return int((words[:, rows] == target).mean(1).argmax())
