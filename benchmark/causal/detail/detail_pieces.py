"""The pieces of full detail: what one worker computes at a time, and the arrays that it stores; see `causal.pieces`.

Letters: as in `detail_evidence`; `B` rows of a piece, `D` width of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmark.causal.detail.das import (
    DAS_RANKS,
    TRAIN_BATCH,
    DifferentiablePrefixes,
    TrainingBatch,
    train_basis,
)
from benchmark.causal.detail.detail_evidence import (
    CONDITIONS,
    DAS,
    DOSES,
    EDIT_NAMES,
    FALSE,
    MAX_SITES,
    MOVE_CONDITIONS,
    SHUFFLED,
    STEERED,
    DetailEvidence,
    DetailRows,
    detail_sites,
    empty_detail,
)
from benchmark.causal.detail.detail_runs import SHUFFLE_SEED, move_codes, move_shift, training_pairs
from benchmark.causal.detail.detail_verdict import chosen_move_site, chosen_site, solved_reason
from benchmark.causal.detail.displacement import MoveShift
from benchmark.causal.detail.donors import DonorSwap
from benchmark.causal.detail.site_edits import SiteEdits, condition_labels
from benchmark.causal.detail.whole_programs import write_programs
from benchmark.causal.edits import MeanShift, mean_shift
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.interventions import PreparedPrefixes, SteerableModel
from benchmark.causal.pairs import prefix_texts
from benchmark.causal.session import CausalSession, SiteStates, best_words
from benchmark.causal.targets import TURNS
from benchmark.causal.verdict import MIN_SOLVED
from benchmark.errors import ModelError
from benchmark.tasks.scoring import score_programs
from karel_env.semantics import ORIGINAL

ROWS_PER_PIECE = 256
MEANS, CHOOSE, MOVE_CHOOSE, SUBSPACE, REPORT, MOVE_REPORT, PROGRAM = KINDS = (
    "means", "choose", "move-choose", "subspace", "report", "move-report", "programs",
)  # fmt: skip
MIN_TRAIN_PAIRS = 16
"""Fewest choose pairs that a subspace is trained on."""
DIFFERENTIABLE = "prepare_differentiable"
"""Name of the optional method of a model that subspaces are trained with, see `prepare_differentiable`."""
NO_GRADIENT = "word scores of the model cannot be differentiated by its states"

Arrays = dict[str, np.ndarray]
ReadPiece = Callable[[str], Arrays]


@dataclass(frozen=True)
class DetailPiece:
    """A piece.

    Attributes:
        kind: one of `KINDS`.
        number: its number among those of its kind; of a subspace, the position of its site.
        at: int64 [B], positions in the array of pairs of its kind, see `DetailRows`.
    """

    kind: str
    number: int
    at: np.ndarray

    @property
    def name(self) -> str:
        """Name of the piece, unique in a measurement."""
        return piece_name(self.kind, self.number)


def piece_name(kind: str, number: int = 0) -> str:
    """Name of a piece."""
    return f"{kind}-{number:06d}"


def plan_detail(rows: DetailRows) -> list[list[DetailPiece]]:
    """The pieces by phase; a piece depends on those of earlier phases."""

    def split(kind: str, count: int) -> list[DetailPiece]:
        starts = range(0, count, ROWS_PER_PIECE)
        return [
            DetailPiece(kind, i, np.arange(start, min(start + ROWS_PER_PIECE, count))) for i, start in enumerate(starts)
        ]

    none = np.zeros(0, np.int64)
    return [
        [DetailPiece(MEANS, 0, none)],
        [*split(CHOOSE, len(rows.choose)), *split(MOVE_CHOOSE, len(rows.move_choose))],
        # The number of sites is not known before a model is loaded; those that it lacks are empty.
        [DetailPiece(SUBSPACE, position, none) for position in range(MAX_SITES)],
        [
            *split(REPORT, len(rows.report)),
            *split(MOVE_REPORT, len(rows.move_report)),
            DetailPiece(PROGRAM, 0, np.arange(len(rows.programs))),
        ],
    ]


class DetailCollector:
    """Computes the pieces of a model.

    Args:
        session: the model with the pairs.
        rows: the pairs of full detail.
        codes: int64 [R], displacement of the mean prefixes.
        read: reads the arrays of earlier pieces; raises `ModelError` if a piece could not be computed.
    """

    def __init__(self, session: CausalSession, rows: DetailRows, codes: np.ndarray, read: ReadPiece) -> None:
        self.session, self.rows, self.codes, self.read = session, rows, codes, read
        self.sites = detail_sites(len(session.model.sites))
        self.loaded_means: SiteStates | None = None

    @property
    def means(self) -> SiteStates:
        """States at the mean prefixes, of all sites of the model."""
        if self.loaded_means is None:
            self.loaded_means = SiteStates.from_arrays(self.read(piece_name(MEANS)))
        return self.loaded_means

    def compute(self, piece: DetailPiece) -> Arrays:
        """The arrays of a piece.

        Raises:
            ModelError: the model does not allow it.
        """
        if piece.kind == MEANS:
            if not len(self.rows.report) or not len(self.rows.choose) or not len(self.codes):
                raise ModelError("no strict pair can be derived from the suite; expected a suite with more tasks")
            return self.session.read_mean_states().to_arrays()
        self.read(piece_name(MEANS))
        if piece.kind == CHOOSE:
            return self._choose(piece.at)
        if piece.kind == MOVE_CHOOSE:
            return self._move_choose(piece.at)
        if piece.kind == SUBSPACE:
            return self._subspace(piece.number) if piece.number < len(self.sites) else {}
        self._check_solved()
        if piece.kind == REPORT:
            return self._report(piece.at)
        if piece.kind == MOVE_REPORT:
            return self._move_report(piece.at)
        return self._programs(piece.at)

    def _batches(self, task: np.ndarray, prefix: np.ndarray) -> Iterator[tuple[np.ndarray, PreparedPrefixes]]:
        """Positions and prepared prefixes, a batch at a time."""
        for start in range(0, len(task), self.session.batch_rows):
            part = np.arange(start, min(start + self.session.batch_rows, len(task)))
            yield part, self.session.prepare(task[part], prefix[part])

    def _solves(self, prepared: PreparedPrefixes, task: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        suite = self.session.suite
        texts = prepared.complete(suite.max_new_words)
        programs = [f"{start} {text}" for start, text in zip(prefix_texts(prefix), texts, strict=True)]
        solved: np.ndarray = score_programs(suite, self.rows.pairs.tasks.take(task), programs).shown
        return solved

    def _values(self, rows: np.ndarray, condition: str) -> tuple[np.ndarray, np.ndarray]:
        """Values of pairs before and after the edit, under the semantics of a condition."""
        source = self.session.values[int(condition == FALSE), rows]
        return source, (source + self.rows.pairs.turn[rows]) % TURNS

    def _shift(self, site: int) -> MeanShift:
        return mean_shift(self.means.sites[site], self.session.rotations(self.rows.pairs.mean_prefix, ORIGINAL), TURNS)

    def _choose(self, at: np.ndarray) -> Arrays:
        rows, pairs = self.rows.choose[at], self.rows.pairs
        arrays = {
            "choose_is_solved": np.zeros(len(at), np.uint8),
            "choose": np.full((len(self.sites), len(at)), NOT_RUN, np.int8),
        }
        shifts = [self._shift(site) for site in self.sites]
        for part, prepared in self._batches(pairs.task[rows], pairs.prefix[rows]):
            chunk, states = rows[part], prepared.states()
            arrays["choose_is_solved"][part] = self._solves(prepared, pairs.task[chunk], pairs.prefix[chunk])
            for position, site in enumerate(self.sites):
                edited = self.session.edited(shifts[position], states[site], chunk)
                arrays["choose"][position, part] = _words(prepared, site, edited)
        return arrays

    def _assembled(self, kind: str) -> Arrays:
        """The arrays of all pieces of a kind, joined along the pairs; empty if there are none."""
        pieces = [piece for phase in plan_detail(self.rows) for piece in phase if piece.kind == kind]
        return join_pieces([self.read(piece.name) for piece in pieces])

    def _check_solved(self) -> None:
        """Raise `ModelError` if so few choose pairs are solved that nothing would be reported."""
        share = float(self._assembled(CHOOSE)["choose_is_solved"].mean())
        if share < MIN_SOLVED:
            raise ModelError(solved_reason(share))

    def _verdict_site(self) -> int:
        choose = self._assembled(CHOOSE)
        return chosen_site(choose["choose"], choose["choose_is_solved"].astype(bool), self.rows)

    def _subspace(self, position: int) -> Arrays:
        """Bases of the subspaces at a site, and the words that they write on the pairs that they were trained on."""
        site, pairs = self.sites[position], self.rows.pairs
        is_solved = self._assembled(CHOOSE)["choose_is_solved"].astype(bool)
        at = training_pairs(is_solved)
        if not callable(getattr(self.session.model, DIFFERENTIABLE, None)):
            raise ModelError(NO_GRADIENT)
        if len(at) < MIN_TRAIN_PAIRS:
            raise ModelError(f"{len(at)} choose pairs are solved; expected {MIN_TRAIN_PAIRS} to train a subspace")
        batches = self._training_batches(self.rows.choose[at], site)
        states = self.means.sites[site]
        labels, arrays = condition_labels(self.session.labelled_part(pairs.mean_prefix)), {}
        for condition in (STEERED, FALSE):
            source = self.session.values[int(condition == FALSE)]
            for name, rank in zip(DAS, DAS_RANKS, strict=True):
                values = (source + pairs.turn) % TURNS
                arrays[f"{condition}.{name}"] = train_basis(batches, values, states, labels[condition], rank)
        del batches
        trained = np.full((2, len(DAS), len(self.rows.choose)), NOT_RUN, np.int8)
        rows = self.rows.choose[at]
        for part, prepared in self._batches(pairs.task[rows], pairs.prefix[rows]):
            natural = prepared.states()[site]
            for index, condition in enumerate((STEERED, FALSE)):
                _, new = self._values(rows[part], condition)
                for k, name in enumerate(DAS):
                    swap = DonorSwap(states, labels[condition], arrays[f"{condition}.{name}"])
                    trained[index, k, at[part]] = _words(prepared, site, swap.replace(natural, new, rows[part]))
        return arrays | {"trained": trained}

    def _training_batches(self, rows: np.ndarray, site: int) -> list[TrainingBatch]:
        pairs, batches = self.rows.pairs, []
        order = np.random.Generator(np.random.Philox(SHUFFLE_SEED)).permutation(len(rows))
        for start in range(0, len(rows), TRAIN_BATCH):
            chunk = np.sort(rows[order[start : start + TRAIN_BATCH]])
            prompts = [self.session.prompts[task] for task in pairs.task[chunk]]
            prefixes, states = prepare_differentiable(
                self.session.model, prompts, prefix_texts(pairs.prefix[chunk]), site
            )
            batches.append(TrainingBatch(prefixes, states, pairs.target[chunk], chunk))
        return batches

    def _site_edits(self, position: int) -> SiteEdits:
        try:
            arrays = self.read(piece_name(SUBSPACE, position))
        except ModelError:
            arrays = {}
        bases = {
            (condition, name): arrays[f"{condition}.{name}"]
            for condition in (STEERED, FALSE)
            for name in DAS
            if f"{condition}.{name}" in arrays
        }
        pairs = self.rows.pairs
        prefixes = self.session.labelled_part(pairs.mean_prefix)
        return SiteEdits(self.means.sites[self.sites[position]], prefixes, self.codes, bases)

    def _report(self, at: np.ndarray) -> Arrays:
        rows, pairs, empty = self.rows.report[at], self.rows.pairs, empty_detail(self.rows, len(self.sites))
        names = ("is_solved", "unedited", "edits", "clamped", "doses")
        arrays = {name: empty[name][..., : len(at)].copy() for name in names}
        verdict_site = self._verdict_site()
        edits, ranges = (
            [self._site_edits(position) for position in range(len(self.sites))],
            self.means.activation_ranges,
        )
        doses = [MeanShift(self._shift(self.sites[verdict_site]).means, dose) for dose in DOSES]
        for part, prepared in self._batches(pairs.task[rows], pairs.prefix[rows]):
            chunk, states = rows[part], prepared.states()
            arrays["unedited"][part] = best_words(prepared.score().log_probs)
            arrays["is_solved"][part] = self._solves(prepared, pairs.task[chunk], pairs.prefix[chunk])
            for position, site in enumerate(self.sites):
                for x, condition in enumerate(CONDITIONS):
                    source, new = self._values(chunk, condition)
                    for e, name in enumerate(EDIT_NAMES):
                        edited = edits[position].apply(condition, name, states[site], source, new, chunk)
                        if edited is None:
                            continue
                        arrays["edits"][x, e, position, part] = _words(prepared, site, edited)
                        if position == verdict_site and condition == STEERED:
                            words = best_words(prepared.score(site, edited, ranges=ranges).log_probs)
                            arrays["clamped"][e, part] = words
            site = self.sites[verdict_site]
            for number, dose in enumerate(doses):
                arrays["doses"][number, part] = _words(prepared, site, self.session.edited(dose, states[site], chunk))
        return arrays

    def _programs(self, at: np.ndarray) -> Arrays:
        rows, pairs = self.rows.report[self.rows.programs[at]], self.rows.pairs
        turns = np.stack([np.zeros(len(rows), np.int64), pairs.turn[rows], pairs.other_turns()[rows]])
        site = self.sites[self._verdict_site()]
        return {
            "programs": write_programs(self.session, rows, self._shift(site), site, turns, self.rows.num_words)
        }  # fmt: skip

    # Displacement

    def _move_shift(self, site: int, condition: str) -> MoveShift:
        return move_shift(self.means.sites[site], self.rows.pairs.mean_prefix, self.codes, condition)

    def _moved(
        self, shift: MoveShift, states: np.ndarray, rows: np.ndarray, direction: np.ndarray, condition: str = STEERED
    ) -> tuple[np.ndarray, np.ndarray]:
        """Edited states of displacement pairs, and whether the edit is defined: for false semantics, and differs there."""
        codes, counts = move_codes(self.rows.moves.prefix[rows], condition)
        added, is_defined = shift.shifts(codes, direction.clip(0))
        return states + added, is_defined & counts & (direction >= 0)

    def _move_choose(self, at: np.ndarray) -> Arrays:
        rows, moves = self.rows.move_choose[at], self.rows.moves
        arrays = {
            "solved": np.zeros(len(at), np.uint8), "unedited": np.full(len(at), NOT_RUN, np.int8),
            "moves_choose": np.full((len(self.sites), len(at)), NOT_RUN, np.int8),
        }  # fmt: skip
        shifts = [self._move_shift(site, STEERED) for site in self.sites]
        for part, prepared in self._batches(moves.task[rows], moves.prefix[rows]):
            chunk, states = rows[part], prepared.states()
            self._move_unedited(arrays, part, chunk, prepared)
            for position, site in enumerate(self.sites):
                edited, _ = self._moved(shifts[position], states[site], chunk, moves.direction[chunk])
                arrays["moves_choose"][position, part] = _words(prepared, site, edited)
        return arrays

    def _move_unedited(self, arrays: Arrays, part: np.ndarray, chunk: np.ndarray, prepared: PreparedPrefixes) -> None:
        moves = self.rows.moves
        arrays["unedited"][part] = best_words(prepared.score().log_probs)
        arrays["solved"][part] = self._solves(prepared, moves.task[chunk], moves.prefix[chunk])

    def _move_report(self, at: np.ndarray) -> Arrays:
        rows, moves, empty = self.rows.move_report[at], self.rows.moves, empty_detail(self.rows, len(self.sites))
        names = ("moves", "move_controls", "move_clamped")
        arrays = {name: empty[name][..., : len(at)].copy() for name in names}
        arrays |= {"solved": np.zeros(len(at), np.uint8), "unedited": np.full(len(at), NOT_RUN, np.int8)}
        choose = self._assembled(MOVE_CHOOSE)
        is_solved = np.zeros(len(moves), bool)
        is_solved[self.rows.move_choose] = choose.get("solved", is_solved[:0])
        move_site = chosen_move_site(choose.get("moves_choose", np.zeros((0, 0))), is_solved, self.rows)
        shifts, ranges = [self._move_shift(site, STEERED) for site in self.sites], self.means.activation_ranges
        site = self.sites[move_site]
        by_condition = {c: self._move_shift(site, c) for c in CONDITIONS}
        for part, prepared in self._batches(moves.task[rows], moves.prefix[rows]):
            chunk, states = rows[part], prepared.states()
            self._move_unedited(arrays, part, chunk, prepared)
            for position, other in enumerate(self.sites):
                edited, _ = self._moved(shifts[position], states[other], chunk, moves.direction[chunk])
                arrays["moves"][position, part] = _words(prepared, other, edited)
            for number, name in enumerate(MOVE_CONDITIONS):
                condition = name if name in CONDITIONS else STEERED
                direction = moves.direction[chunk] if name in CONDITIONS else moves.other[chunk]
                edited, is_run = self._moved(by_condition[condition], states[site], chunk, direction, condition)
                if name in (STEERED, SHUFFLED):
                    is_run = np.ones(len(chunk), bool)
                arrays["move_controls"][number, part] = np.where(is_run, _words(prepared, site, edited), NOT_RUN)
            edited, _ = self._moved(shifts[move_site], states[site], chunk, moves.direction[chunk])
            arrays["move_clamped"][part] = best_words(prepared.score(site, edited, ranges=ranges).log_probs)
        return arrays


def _words(prepared: PreparedPrefixes, site: int, states: np.ndarray) -> np.ndarray:
    """int64 [B], the best continuation after an edit."""
    return best_words(prepared.score(site, states).log_probs)


def prepare_differentiable(
    model: SteerableModel, prompts: list[str], prefixes: list[str], site: int
) -> tuple[DifferentiablePrefixes, np.ndarray]:
    """Prefixes whose scores can be differentiated by the state of a site, and its states.

    Raises:
        ModelError: they cannot.
    """
    prepare = getattr(model, DIFFERENTIABLE)
    prefixes_and_states: tuple[DifferentiablePrefixes, np.ndarray] = prepare(prompts, prefixes, site)
    return prefixes_and_states


def join_pieces(parts: list[Arrays]) -> Arrays:
    """Arrays of pieces joined along their last axis, the pairs; empty for no pieces."""
    return {name: np.concatenate([part[name] for part in parts], -1) for name in parts[0]} if parts else {}


def assemble_detail(rows: DetailRows, num_sites: int, read: ReadPiece) -> tuple[DetailEvidence, str]:
    """The evidence from all stored pieces, and why no subspace was trained (empty if some were).

    Raises:
        ModelError: a piece other than a subspace could not be computed.
    """
    arrays, reason = empty_detail(rows, num_sites), ""
    for phase in plan_detail(rows):
        for piece in phase:
            if piece.kind == SUBSPACE and piece.number < num_sites:
                try:
                    arrays["trained"][:, :, piece.number] = read(piece.name)["trained"]
                except ModelError as error:
                    reason = str(error)
            elif piece.kind in (CHOOSE, REPORT):
                for name, values in read(piece.name).items():
                    arrays[name][..., piece.at] = values
            elif piece.kind in (MOVE_CHOOSE, MOVE_REPORT):
                part = dict(read(piece.name))
                at = (rows.move_choose if piece.kind == MOVE_CHOOSE else rows.move_report)[piece.at]
                arrays["moves_are_solved"][at] = part.pop("solved")
                arrays["moves_unedited"][at] = part.pop("unedited")
                for name, values in part.items():
                    arrays[name][..., piece.at] = values
            elif piece.kind == PROGRAM:
                arrays |= read(piece.name)
    return DetailEvidence.from_arrays(arrays), reason
