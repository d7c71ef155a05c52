"""Full detail: other edits at every site, other doses, and edits at every later word, scored by whole programs.

Letters: `P` strict report pairs that the model solves, `L` sites, `B` rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmark.causal.edits import EDITS, Edit, MeanShift
from benchmark.causal.evidence import CausalEvidence
from benchmark.causal.interventions import SteerableModel
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings, derive_pairs
from benchmark.causal.rotation import net_rotation
from benchmark.causal.session import CausalSession, best_words
from benchmark.causal.targets import END, TURNS, equal_worlds, execute_prefixes, turn_robots
from benchmark.causal.verdict import choose_site
from benchmark.statistics import Estimate, wilson
from benchmark.tasks.prompt_template import PLAIN, PromptTemplate
from benchmark.tasks.suite import Suite
from karel_env.interpreter import run
from karel_env.language import Programs

DOSES = (0.0, 0.5, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class CausalDetail:
    """Shares of strict report pairs.

    Attributes:
        pairs: P.
        ranks: rank of each edit at the site of the verdict.
        by_edit: share of targets per edit, by site.
        by_dose: share of targets by scale of the mean shift, at the site of the verdict.
        persistence: share of whole programs that lead from the turned state to the outputs, with no edit, with the turn at
            every word, and with another turn at every word; Wilson intervals over pairs.
    """

    pairs: int
    ranks: dict[str, int]
    by_edit: dict[str, list[float]]
    by_dose: dict[str, float]
    persistence: dict[str, Estimate | None]


def measure_detail(
    model: SteerableModel,
    suite: Suite,
    evidence: CausalEvidence,
    settings: PairSettings = STANDARD_PAIRS,
    template: PromptTemplate = PLAIN,
    on_step: Callable[[str], None] = lambda step: None,
) -> CausalDetail:
    """Measure the full detail of a model whose standard evidence is given; arguments as of `measurement.measure_use`."""
    pairs = derive_pairs(suite, settings)
    session = CausalSession(model, suite, pairs, template)
    site, _ = choose_site(evidence.choose[0], pairs, evidence.is_solved)
    rows = np.flatnonzero(pairs.is_report & pairs.is_strict & evidence.is_solved)
    by_site = session.read_mean_states().sites
    values = net_rotation(pairs.mean_prefix)
    edits: dict[str, list[Edit]] = {
        name: [make(states, values, TURNS) for states in by_site] for name, make in EDITS.items()
    }
    shift = edits["mean shift"][site]
    assert isinstance(shift, MeanShift)
    doses = [MeanShift(shift.means, dose) for dose in DOSES]
    on_step("edits by site, doses")
    hits = {name: np.zeros(len(model.sites)) for name in edits}
    dose_hits = np.zeros(len(DOSES))
    for chunk, prepared in session.batches(rows):
        states, target = prepared.states(), pairs.target[chunk]
        source = session.values[0, chunk]
        turned = (source + pairs.turn[chunk]) % TURNS

        def count(edit: Edit, at: int) -> int:
            edited = edit(states[at], source, turned)  # noqa: B023
            return int((best_words(prepared.score(at, edited).log_probs) == target).sum())  # noqa: B023

        for name, row in edits.items():
            hits[name] += [count(edit, at) for at, edit in enumerate(row)]
        dose_hits += [count(edit, site) for edit in doses]
    on_step("whole programs")
    other = pairs.other_turns()
    turns = {"no edit": np.zeros(len(rows), int), "edit at every word": pairs.turn[rows], "other value": other[rows]}
    persistence = {name: _persist(session, rows, shift, site, turn) for name, turn in turns.items()}
    return CausalDetail(
        pairs=len(rows),
        ranks={name: row[site].rank for name, row in edits.items()},
        by_edit={name: (row / max(len(rows), 1)).tolist() for name, row in hits.items()},
        by_dose={f"{dose:g}": float(n / max(len(rows), 1)) for dose, n in zip(DOSES, dose_hits, strict=True)},
        persistence=persistence,
    )


def _persist(
    session: CausalSession, rows: np.ndarray, shift: MeanShift, site: int, turns: np.ndarray
) -> Estimate | None:
    """Share of programs that are right from the turned state if every word is written under a shift by `turns` [P]."""
    words: list[list[int]] = [session.pairs.prefix[row].tolist() for row in rows]
    is_open = np.ones(len(rows), bool)
    for _ in range(session.suite.max_new_words):
        for start in range(0, int(is_open.sum()), session.batch_rows):
            chunk = np.flatnonzero(is_open)[start : start + session.batch_rows]
            prefix = np.array([words[i] for i in chunk], np.int8)
            prepared = session.prepare(session.pairs.task[rows[chunk]], prefix)
            source = net_rotation(prefix)
            edited = shift(prepared.states()[site], source, (source + turns[chunk]) % TURNS)
            for i, word in zip(chunk, best_words(prepared.score(site, edited).log_probs).tolist(), strict=True):
                words[i].append(word)
        is_open = np.array([row[-1] != END for row in words])
        if not is_open.any():
            break
    return wilson(int(_reaches_outputs(session, rows, words, is_open).sum()), len(rows))


def _reaches_outputs(
    session: CausalSession, rows: np.ndarray, words: list[list[int]], is_open: np.ndarray
) -> np.ndarray:
    """bool [P], whether the actions after the prefix lead from the turned state to all outputs."""
    pairs, suite = session.pairs, session.suite
    length = pairs.prefix.shape[1]
    inputs, outputs = (w[pairs.task[rows], : suite.shown] for w in (pairs.tasks.inputs, pairs.tasks.outputs))
    turned = turn_robots(execute_prefixes(pairs.prefix[rows], inputs), pairs.turn[rows])
    suffixes = [row[length:-1] for row in words]
    lengths = np.array([len(suffix) for suffix in suffixes])
    is_right = (lengths == 0) & equal_worlds(turned, outputs, suite.equality).all(1)
    some = np.flatnonzero(lengths)
    if len(some):
        actions = np.zeros((len(some), lengths.max()), np.int8)
        for line, i in enumerate(some):
            actions[line, : lengths[i]] = suffixes[i]
        reached = run(Programs.straight_line(actions, lengths[some]), turned[some]).worlds
        is_right[some] = equal_worlds(reached, outputs[some], suite.equality).all(1)
    return np.asarray(is_right & ~is_open)


def format_detail(detail: CausalDetail, sites: tuple[str, ...]) -> str:
    """Tables for a terminal."""
    lines = [f"full detail, {detail.pairs} strict pairs", "rank  " + "  ".join(sites)]
    for name, row in detail.by_edit.items():
        lines.append(f"{detail.ranks[name]:>4}  " + "  ".join(f"{v:.3f}" for v in row) + f"  {name}")
    lines.append("dose  " + ", ".join(f"{dose}: {share:.3f}" for dose, share in detail.by_dose.items()))
    for name, estimate in detail.persistence.items():
        if estimate is not None:
            lines.append(f"whole programs, {name}: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")
    return "\n".join(lines)
