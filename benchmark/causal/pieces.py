"""The pieces of a measurement: what one worker computes at a time, and the arrays that it stores.

The pieces of one phase depend on those of earlier phases only, through their stored arrays, so they can be computed by
any workers in any order. Every piece has fixed rows, so its arrays do not depend on who computes it. What the model writes
unedited on choose pairs comes first: one that solves far too few of them has no verdict, and is not edited.

Letters: `P` pairs, `S` semantics (0 is the original), `L` sites, `D` width of a site, `R` mean prefixes, `B` rows of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from benchmark.causal.edits import MeanShift
from benchmark.causal.evidence import NOT_RUN, CausalEvidence
from benchmark.causal.interventions import AT_PROMPT, PreparedPrefixes, WordScorer
from benchmark.causal.natural_range import ComponentRange
from benchmark.causal.pairs import PairSet, prefix_texts
from benchmark.causal.rotation import NUM_ALTERNATIVES
from benchmark.causal.session import CausalSession, SiteStates, best_words
from benchmark.causal.targets import NEXT_WORDS, TURNS
from benchmark.causal.verdict import choose_site, differing_values, solves_too_few
from benchmark.errors import ModelError
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.scoring import score_programs
from benchmark.tasks.suite import Suite

NUM_RANDOM = 20
RANDOM_SEED = 90_101
ROWS_PER_PIECE = 256
MERGES, UNEDITED, MEANS, CHOOSE, REPORT, UNTRAINED = KINDS = (
    "merges", "unedited", "means", "choose", "report", "untrained",
)  # fmt: skip
NAME_BYTES = 40
"""Longest name of a site that is stored."""

Arrays = dict[str, np.ndarray]
ReadPiece = Callable[[str], Arrays]
"""Returns the arrays of an earlier piece by its name; raises `ModelError` if it could not be computed."""


@dataclass(frozen=True)
class Piece:
    """A piece of a measurement.

    Attributes:
        kind: one of `KINDS`.
        number: its number among those of its kind.
        rows: int64 [B], its pairs; empty where it has no rows of its own.
    """

    kind: str
    number: int
    rows: np.ndarray

    @property
    def name(self) -> str:
        """Name of the piece, unique in a measurement."""
        return name_of(self.kind, self.number)


def name_of(kind: str, number: int = 0) -> str:
    """Name of a piece."""
    return f"{kind}-{number:06d}"


def plan_pieces(pairs: PairSet) -> list[list[Piece]]:
    """The pieces of a measurement by phase."""
    none = np.zeros(0, np.int64)
    choose = np.flatnonzero(~pairs.is_report)
    strict, others = (np.flatnonzero(pairs.is_report & part) for part in (pairs.is_strict, ~pairs.is_strict))
    report = [*_split(strict), *_split(others)]
    return [
        [Piece(MERGES, 0, none), *(Piece(UNEDITED, number, rows) for number, rows in enumerate(_split(choose)))],
        [Piece(MEANS, 0, none)],
        [Piece(UNTRAINED, 0, none), *(Piece(CHOOSE, number, rows) for number, rows in enumerate(_split(choose)))],
        [Piece(REPORT, number, rows) for number, rows in enumerate(report)],
    ]


def _split(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + ROWS_PER_PIECE] for start in range(0, len(rows), ROWS_PER_PIECE)]


def collect_unedited(session: CausalSession, rows: np.ndarray) -> Arrays:
    """Words written on choose pairs `rows` unedited, and the names of the sites, uint8 [L, `NAME_BYTES`]."""
    names = [list(name.encode().ljust(NAME_BYTES, b"\0")[:NAME_BYTES]) for name in session.model.sites]
    arrays = _empty_unedited(len(rows)) | {"names": np.array(names, np.uint8)}
    for part, prepared in session.batches(rows):
        _run_unedited(session, arrays, np.searchsorted(rows, part), part, prepared)
    return arrays


def site_names(read: ReadPiece) -> list[str]:
    """The names of the sites, from the first stored piece of unedited words."""
    return [bytes(name).decode().rstrip("\0") for name in read(name_of(UNEDITED))["names"]]


def collect_means(session: CausalSession) -> Arrays:
    """States and activations at the mean prefixes, see `SiteStates`.

    Raises:
        ModelError: states cannot be read, or are not finite.
    """
    if not session.pairs.is_strict.any() or not len(session.pairs.mean_task):
        raise ModelError("no strict pair can be derived from the suite; expected a suite with more tasks")
    return session.read_mean_states().to_arrays()


def collect_choose(session: CausalSession, means: SiteStates, rows: np.ndarray) -> Arrays:
    """Words written on choose pairs `rows` under each semantics at each site."""
    shifts = means.shifts(session)
    arrays = _not_run(len(rows), choose=(len(session.semantics), len(session.model.sites)))
    for part, prepared in session.batches(rows):
        at = np.searchsorted(rows, part)
        states = prepared.states()
        for semantics, row in enumerate(shifts):
            for site, shift in enumerate(row):
                edited = session.edited(shift, states[site], part, semantics)
                arrays["choose"][semantics, site, at] = _words(prepared, site, edited)
    return arrays


def collect_report(session: CausalSession, means: SiteStates, sites: Sequence[int], rows: np.ndarray) -> Arrays:
    """Words written on report pairs `rows`, either all strict or none, under every edit and control.

    Args:
        session: the model with the pairs.
        means: states at the mean prefixes.
        sites: the site of each semantics, of `choose_sites`.
        rows: int64 [B].
    """
    shifts = means.shifts(session)
    arrays = _empty_unedited(len(rows)) | _not_run(
        len(rows),
        steered=(len(session.semantics),),
        random=(NUM_RANDOM,),
        other_value=(),
        wrong_position=(),
        clamped=(),
    )
    for part, prepared in session.batches(rows):
        at = np.searchsorted(rows, part)
        _run_unedited(session, arrays, at, part, prepared)
        _run_edits(session, arrays, at, part, prepared, shifts, sites)
        if session.pairs.is_strict[rows].all():
            _run_strict_controls(session, arrays, at, part, prepared, shifts[0][sites[0]], means, sites[0])
    return arrays


def collect_untrained(session: CausalSession, rows: np.ndarray | None = None, site: int | None = None) -> Arrays:
    """Words written by the untrained copy on choose and strict report pairs, with its own means.

    Args:
        session: the copy with the pairs.
        rows: int64 [B], sorted pairs, of which others are left out; None for all.
        site: site of the edit on report pairs; None to choose it on the choose pairs.
    """
    pairs = session.pairs
    rows = np.arange(len(pairs)) if rows is None else rows
    arrays = empty_untrained(len(pairs), len(session.model.sites))
    shifts = session.read_mean_states().shifts(session)[0]
    for part, prepared in session.batches(rows[~pairs.is_report[rows]]):
        states = prepared.states()
        for index, shift in enumerate(shifts):
            edited = session.edited(shift, states[index], part)
            arrays["untrained_choose"][index, part] = _words(prepared, index, edited)
    if site is None:
        site, _ = choose_site(arrays["untrained_choose"], pairs, np.ones(len(pairs), bool))
    for part, prepared in session.batches(rows[pairs.is_report[rows] & pairs.is_strict[rows]]):
        states_at = prepared.states()[site]
        arrays["untrained"][part] = _words(prepared, site, session.edited(shifts[site], states_at, part))
    return arrays


def score_prefixes(
    scorer: WordScorer, suite: Suite, pairs: PairSet, task: np.ndarray, prefix: np.ndarray, batch_scale: float = 1.0
) -> np.ndarray:
    """float32 [B, 6], scores of the six continuations after prefixes int8 [B, K] of tasks int64 [B].

    Raises:
        ModelError: a score is NaN or infinite, or the model cannot score words.
    """
    unique, inverse = np.unique(task, return_inverse=True)
    prompts = render_prompts(suite, pairs.tasks.take(unique))
    texts = prefix_texts(prefix)
    scores = np.zeros((len(task), len(NEXT_WORDS)), np.float32)
    batch_rows = max(1, int(scorer.batch_rows * batch_scale))
    for start in range(0, len(task), batch_rows):
        rows = slice(start, start + batch_rows)
        scores[rows] = scorer.score_words([prompts[i] for i in inverse[rows]], texts[rows])
    if not np.isfinite(scores).all():
        raise ModelError("word scores are NaN or infinite; try --dtype float32, else the weights are broken")
    return scores


def read_unedited(pairs: PairSet, read: ReadPiece) -> Arrays:
    """The arrays of `collect_unedited` over all pairs, run on choose pairs, from the stored pieces.

    Raises:
        ModelError: a piece could not be computed.
    """
    arrays = _empty_unedited(len(pairs))
    for piece in plan_pieces(pairs)[0]:
        if piece.kind == UNEDITED:
            part = read(piece.name)
            for name, values in arrays.items():
                values[piece.rows] = part[name]
    return arrays


def is_edited(pairs: PairSet, read: ReadPiece) -> bool:
    """Whether a model solves enough tasks unedited, from the stored pieces, to be edited.

    Raises:
        ModelError: a piece could not be computed.
    """
    return not solves_too_few(read_unedited(pairs, read)["is_solved"], pairs)


def choose_sites(pairs: PairSet, read: ReadPiece) -> list[int]:
    """The site of each semantics, from the stored pieces of unedited words and of choice."""
    pieces = [piece for piece in plan_pieces(pairs)[2] if piece.kind == CHOOSE]
    parts = [read(piece.name)["choose"] for piece in pieces]
    words = np.full((*parts[0].shape[:2], len(pairs)), NOT_RUN, np.int8)
    for piece, part in zip(pieces, parts, strict=True):
        words[:, :, piece.rows] = part
    counted = read_unedited(pairs, read)["is_solved"].astype(bool) & differing_values(pairs)
    return [choose_site(words[s], pairs, counted[s])[0] for s in range(len(words))]


def assemble(pairs: PairSet, read: ReadPiece, has_edits: bool) -> CausalEvidence:
    """The evidence from all stored pieces, or from those of the first phase alone.

    Args:
        pairs: the pairs.
        read: reads a piece.
        has_edits: whether the model was edited.

    Raises:
        ModelError: a piece could not be computed.
    """
    if not plan_pieces(pairs)[0][1:]:
        read(name_of(MEANS))
    arrays = empty_evidence(len(pairs), len(site_names(read))) | read_unedited(pairs, read) | read(name_of(MERGES))
    if has_edits:
        for piece in (piece for phase in plan_pieces(pairs) for piece in phase if piece.kind in (CHOOSE, REPORT)):
            for name, values in read(piece.name).items():
                arrays[name][..., piece.rows] = values
        arrays |= read(name_of(UNTRAINED))
    return CausalEvidence.from_arrays({field.name: arrays[field.name] for field in fields(CausalEvidence)})


def empty_evidence(num_pairs: int, num_sites: int) -> Arrays:
    """Evidence arrays over P pairs in which nothing was run, without the scores of merges."""
    semantics = NUM_ALTERNATIVES + 1
    return _empty_unedited(num_pairs) | _not_run(
        num_pairs, choose=(semantics, num_sites), steered=(semantics,), random=(NUM_RANDOM,), other_value=(),
        wrong_position=(), clamped=(), untrained_choose=(num_sites,), untrained=(),
    )  # fmt: skip


def empty_untrained(num_pairs: int, num_sites: int) -> Arrays:
    """The arrays of an untrained copy that was not run, over P pairs."""
    arrays = empty_evidence(num_pairs, num_sites)
    return {name: arrays[name] for name in ("untrained_choose", "untrained")}


def _empty_unedited(count: int) -> Arrays:
    return {
        "is_solved": np.zeros(count, np.uint8), "is_argmax": np.zeros(count, np.uint8),
        "unedited": np.full(count, NOT_RUN, np.int8),
    }  # fmt: skip


def _not_run(count: int, **shapes: tuple[int, ...]) -> Arrays:
    return {name: np.full((*shape, count), NOT_RUN, np.int8) for name, shape in shapes.items()}


def _words(prepared: PreparedPrefixes, site: int, states: np.ndarray, **options: object) -> np.ndarray:
    """int64 [B], the best continuation after an edit."""
    return best_words(prepared.score(site, states, **options).log_probs)  # type: ignore[arg-type]


def _run_unedited(
    session: CausalSession, arrays: Arrays, at: np.ndarray, rows: np.ndarray, prepared: PreparedPrefixes
) -> None:
    """The unedited word, and whether the program that the model writes from the prefix solves the task."""
    scores = prepared.score()
    arrays["unedited"][at] = best_words(scores.log_probs)
    arrays["is_argmax"][at] = scores.is_argmax
    suite, pairs = session.suite, session.pairs
    texts = prepared.complete(suite.max_new_words)
    programs = [f"{start} {text}" for start, text in zip(prefix_texts(pairs.prefix[rows]), texts, strict=True)]
    arrays["is_solved"][at] = score_programs(suite, pairs.tasks.take(pairs.task[rows]), programs).shown


def _run_edits(
    session: CausalSession,
    arrays: Arrays,
    at: np.ndarray,
    rows: np.ndarray,
    prepared: PreparedPrefixes,
    shifts: list[list[MeanShift]],
    sites: Sequence[int],
) -> None:
    """The edit under each semantics at its own site, and the edit to another value."""
    states = prepared.states()
    for semantics, site in enumerate(sites):
        edited = session.edited(shifts[semantics][site], states[site], rows, semantics)
        arrays["steered"][semantics, at] = _words(prepared, site, edited)
    site, source = sites[0], session.values[0, rows]
    other = session.pairs.other_turns()[rows]
    edited = shifts[0][site](states[site], source, (source + other) % TURNS)
    arrays["other_value"][at] = np.where(other > 0, _words(prepared, site, edited), NOT_RUN)


def _run_strict_controls(
    session: CausalSession,
    arrays: Arrays,
    at: np.ndarray,
    rows: np.ndarray,
    prepared: PreparedPrefixes,
    shift: MeanShift,
    means: SiteStates,
    site: int,
) -> None:
    """Random vectors, wrong position, natural range."""
    states = prepared.states()[site]
    edited = session.edited(shift, states, rows)
    norms = np.linalg.norm((edited - states).astype(np.float64), axis=1)
    natural: ComponentRange = means.site_range(site)
    for number in range(NUM_RANDOM):
        vectors = natural.random_vectors(norms, [RANDOM_SEED + NUM_RANDOM * int(row) + number for row in rows])
        arrays["random"][number, at] = _words(prepared, site, states + vectors)
    at_prompt = prepared.states(AT_PROMPT)[site] + (edited - states)
    arrays["wrong_position"][at] = _words(prepared, site, at_prompt, position=AT_PROMPT)
    arrays["clamped"][at] = _words(prepared, site, edited, ranges=means.activation_ranges)
