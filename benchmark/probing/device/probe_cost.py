"""Operations and bytes of probes on a device, by count: what a width costs before anybody waits for it.

Counts are of the matrix products, two operations per multiply-add; a test compares them with what torch counts. Element-wise
work is counted as bytes. Eigenvectors are an estimate (`EIGEN_OPERATIONS` times D^3).

Letters: `R` states, `D` width, `Q` seeds, `G` networks, `H` hidden width, `C` classes of all heads of a network, `K` heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.probing.version4.readable_record import NUM_WORDS, WORD_PAIRS
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, NUM_ROTATIONS

EIGEN_OPERATIONS = 9
"""Operations of the eigenvectors of a symmetric matrix, in D^3 (Golub and Van Loan 2013, section 8.3)."""
BYTES_PER_PARAMETER = 44
"""Bytes moved per parameter and step: bfloat16 products read 2 and write 2 of the gradient; the gradient is converted (6);
AdamW reads and writes three and reads one of float32 (28); the copy in bfloat16 is written (6)."""
STATE_BYTES = 4


@dataclass(frozen=True)
class Operations:
    """Counts of a part of the work.

    Attributes:
        double: operations of float64 products.
        single: operations of products in the dtype of the probes (bfloat16 or float32).
        bytes: bytes moved for parameters and their updates.
    """

    double: float = 0
    single: float = 0
    bytes: float = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.double + other.double, self.single + other.single, self.bytes + other.bytes)

    def times(self, count: int) -> Operations:
        """The same work several times."""
        return Operations(self.double * count, self.single * count, self.bytes * count)


@dataclass(frozen=True)
class ProbeShape:
    """The networks of one fit and seed.

    Attributes:
        networks: G.
        classes: C.
        heads: K.
        hidden: H; 0 for linear probes.
    """

    networks: int
    classes: int
    heads: int
    hidden: int

    def forward(self, width: int, states: int) -> int:
        """Operations of the logits of some states."""
        if not self.hidden:
            return 2 * self.networks * self.classes * width * states
        return 2 * self.networks * self.hidden * (width + self.classes) * states

    def backward(self, width: int, states: int) -> int:
        """Operations of the gradients of all weights."""
        if not self.hidden:
            return 2 * self.networks * self.classes * width * states
        return 2 * self.networks * self.hidden * (width + 2 * self.classes) * states

    def sums(self, states: int) -> int:
        """Operations of one sum over the classes of every head, and of its way back."""
        return 2 * self.networks * self.heads * self.classes * states

    def parameters(self, width: int) -> int:
        """Number of weights."""
        if not self.hidden:
            return self.networks * self.classes * width
        return self.networks * (self.hidden * (width + self.classes) + self.classes)


def whitening_operations(
    width: int, states: int, training: Sequence[int], shared: int | None = None, axes: int | None = None
) -> Operations:
    """Sums, eigenvectors and projection of the states of several seeds.

    Args:
        width: D.
        states: R, of which each seed projects all.
        training: states that each seed trains on.
        shared: states that any seed trains on, if each is summed once; None for sums of each seed of its own.
        axes: axes that are kept; all if None.
    """
    summed = sum(training) if shared is None else shared
    eigen = EIGEN_OPERATIONS * width**3 * len(training)
    projection = 2 * states * width * (width if axes is None else axes) * len(training)
    return Operations(double=2 * summed * width**2 + eigen, single=projection)


def training_operations(
    shape: ProbeShape,
    width: int,
    validation: int,
    tested: int,
    protocol: RotationProtocol,
    with_posterior: bool = False,
) -> Operations:
    """Training, validation and test of one fit and seed; the test is counted once per checkpoint, an upper bound.

    Args:
        shape: the networks.
        width: axes kept, and the column of ones.
        validation, tested: number of states.
        protocol: steps, batch size, number of checkpoints.
        with_posterior: whether the probabilities of all classes are computed too.
    """
    batch = protocol.batch
    step = shape.forward(width, batch) + shape.backward(width, batch) + 2 * shape.sums(batch)
    evaluated = protocol.checks * (validation + tested)
    single = protocol.steps * step + shape.forward(width, evaluated) + shape.sums(evaluated)
    if with_posterior:
        single += 2 * shape.sums(protocol.checks * tested)
    return Operations(single=single, bytes=protocol.steps * BYTES_PER_PARAMETER * shape.parameters(width))


@dataclass(frozen=True)
class BlindRows:
    """Numbers of labelled words of a blind set.

    Attributes:
        states: of all programs.
        training: of the programs that a seed trains on.
        tested: of a fold.
        places: action words of a program.
        displacements: classes of forward and of sideways.
    """

    states: int
    training: int
    tested: int
    places: int
    displacements: int

    @classmethod
    def of_length(cls, length: int, displacements: int, protocol: RotationProtocol = ROTATION_STANDARD) -> BlindRows:
        """The rows of straight-line programs of one length, with complete folds."""
        programs = protocol.prompts * protocol.programs_per_prompt
        fold = programs // protocol.folds
        return cls(programs * length, (protocol.folds - 2) * fold * length, fold * length, length, displacements)


def source_operations(
    width: int,
    rows: BlindRows,
    seeds: int,
    views: int,
    protocol: RotationProtocol = ROTATION_STANDARD,
    is_model: bool = True,
) -> Operations:
    """Everything that is computed from the states of one source.

    Args:
        width: D; all axes are kept.
        rows: numbers of labelled words.
        seeds: probe seeds that read the source.
        views: number of views.
        protocol: settings of the probes.
        is_model: whether the records are read too, as from a model; copies have none.
    """
    labels = ProbeShape(
        len(ALL_PAIRS) * protocol.copies, NUM_ROTATIONS + 2 * rows.displacements, 3, protocol.hidden
    )  # fmt: skip
    shapes = [(labels, False)]
    if is_model:
        num_counts = NUM_WORDS + len(WORD_PAIRS)
        places = ProbeShape(protocol.copies, NUM_WORDS * rows.places, rows.places, protocol.hidden)
        counts = ProbeShape(protocol.copies, num_counts * (rows.places + 1), num_counts, protocol.hidden)
        shapes += [(places, True), (counts, True)]
    shared = rows.states if seeds == protocol.folds else rows.training
    total = Operations()
    for shape, has_posterior in shapes:
        # The records are read on validation and test rows.
        fits = training_operations(shape, width + 1, rows.tested, 2 * rows.tested, protocol, has_posterior).times(seeds)
        total += fits + whitening_operations(width, rows.states, [rows.training] * seeds, shared)
    return total.times(views)
