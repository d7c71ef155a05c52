"""Check of `benchmark.doctor` on a states file: are states of another engine those of transformers, and if not, why?

A few programs of the file's probe set are read again by transformers, one at a time, without batch, padding or cache. States
that differ are compared with what known faults give: another layer, the state before the final norm, the token before or
after, another prompt of the batch. The values themselves, such as zeros and NaN, are looked at in all rows.

Letters: `R` rows, `L` layers + 1, `D` width, `n` rows that are read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.api.probe_set import BlindProbeSet
from benchmark.api.states_file import STATES, read_states
from benchmark.doctor.context import FAIL, OK, TOLERANCE, CheckResult, DoctorContext
from benchmark.files import read_tensor_header
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.token_alignment import align_tokens
from benchmark.tasks.prompts import prompt_ids

NAME = "states file"
BLOCKS, BLOCK_PROGRAMS = 3, 6
"""Runs of neighbouring programs that are read again, spread over the file, and programs per run: neighbours share a batch."""
FILE_TOLERANCE = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Dtype whose tolerance applies to a file, by the dtype of its states."""
SHIFTS = {-1: "the token before the last token of its word", 1: "the token after its word"}
EXPLAINED = 0.99
"""Share of wrong states that a fault must give to be named."""
MIXED = 0.5
"""The same for states of other prompts, some of which were not read again."""


@dataclass(frozen=True)
class ReadRows:
    """Rows that transformers has read again.

    Attributes:
        rows: int64 [n], their indices in the probe set.
        program: int64 [n], their programs.
        layers: float32 [n, L, D] at the last token of each word; the last layer is after the final norm.
        before_norm: float32 [n, D], the output of the last block.
        shifted: float32 [n, L, D] per number of tokens that a state is read too late.
    """

    rows: np.ndarray
    program: np.ndarray
    layers: np.ndarray
    before_norm: np.ndarray
    shifted: dict[int, np.ndarray]


def check_states_file(doctor_context: DoctorContext, path: Path) -> CheckResult:
    """Are the states of a file those of transformers, up to the rounding of the file's dtype?"""
    file = read_states(path)
    states = file.hidden if file.hidden.ndim == 3 else file.hidden[:, None]
    fault = _value_fault(states)
    if fault:
        return CheckResult(NAME, FAIL, fault)
    model = doctor_context.model
    if not isinstance(model, HuggingFaceModel):
        return CheckResult(NAME, FAIL, "compared with transformers only; expected a model of path: or hf:")
    reference = read_again(model, file.probes)
    if states.shape[2] != reference.layers.shape[2]:
        message = f"states of width {states.shape[2]}, those of transformers have {reference.layers.shape[2]}; check the model"
        return CheckResult(NAME, FAIL, message)
    dtype = FILE_TOLERANCE[read_tensor_header(path)[STATES]["dtype"]]
    tolerance = max(TOLERANCE[dtype], TOLERANCE[doctor_context.job.dtype])
    sample = states[reference.rows]
    if file.hidden.ndim == 2:
        return _check_single_view(sample[:, 0], reference, tolerance)
    count = f"{len(sample)} of {file.probes.num_rows:,} rows"
    if sample.shape[1] != reference.layers.shape[1]:
        layers = reference.layers.shape[1]
        message = (
            f"layer index: {sample.shape[1]} layers, transformers has {layers}: the embeddings and {layers - 1} blocks"
        )
        return CheckResult(NAME, FAIL, f"{message}; write all of them in this order")
    distance = _distances(sample, reference.layers)
    if distance.max() <= tolerance:
        return CheckResult(
            NAME, OK, f"{count} equal transformers in {sample.shape[1]} layers (largest {distance.max():.1e})"
        )
    wrong: np.ndarray = distance > tolerance
    message = f"{wrong.any(1).sum()} of {len(sample)} compared rows are not those of transformers"
    return CheckResult(NAME, FAIL, f"{_explain(sample, reference, wrong, tolerance)} ({message})")


def _value_fault(states: np.ndarray) -> str:
    """What is wrong with the values [R, L, D] themselves; empty if nothing is."""
    is_finite = np.isfinite(states).all(2)
    if not is_finite.all():
        row, layer = np.argwhere(~is_finite)[0]
        return f"NaN or infinity in {(~is_finite).any(1).sum():,} of {len(states):,} rows, first in row {row}, layer {layer}; the engine's precision overflows, or rows were never written"
    is_zero = np.abs(states).max(2) == 0
    if is_zero.any():
        row, layer = np.argwhere(is_zero)[0]
        return f"zeros: all values of {np.count_nonzero(is_zero.max(1)):,} of {len(states):,} rows, first row {row}, layer {layer}; these states were never written"
    return ""


def _check_single_view(sample: np.ndarray, reference: ReadRows, tolerance: float) -> CheckResult:
    """Check states [n, D] of one layer, or of the mean over layers."""
    views = {f"layer {i}": reference.layers[:, i] for i in range(reference.layers.shape[1])}
    views["the mean over layers"] = reference.layers.mean(1)
    views["layer index or final norm: the output of the last block before the final norm"] = reference.before_norm
    distances = {name: float(_distances(sample, view).max()) for name, view in views.items()}
    name = min(distances, key=lambda view: distances[view])
    if distances[name] > tolerance:
        return CheckResult(
            NAME,
            FAIL,
            f"no layer of transformers: the nearest is {name}, relative difference {distances[name]:.2g}; write all layers to learn more",
        )
    outcome = FAIL if "before the final norm" in name else OK
    return CheckResult(
        NAME, outcome, f"{len(sample)} rows equal {name} of transformers (largest {distances[name]:.1e})"
    )


def read_again(model: HuggingFaceModel, probes: BlindProbeSet) -> ReadRows:
    """Read some programs of a probe set with transformers."""
    starts = np.linspace(0, max(0, len(probes) - BLOCK_PROGRAMS), BLOCKS).astype(int)
    programs = np.unique(np.concatenate([np.arange(s, min(s + BLOCK_PROGRAMS, len(probes))) for s in starts]))
    parts = [part for program in programs for part in _read_program(model, probes, int(program))]
    rows, layers, before_norm, before, after = (np.array(values) for values in zip(*parts, strict=True))
    return ReadRows(rows, probes.row_program[rows], layers, before_norm, {-1: before, 1: after})


@torch.inference_mode()
def _read_program(
    model: HuggingFaceModel, probes: BlindProbeSet, program: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Per row of a program: its index, its states [L, D], the output of the last block, and its neighbours' states."""
    prompt, text = probes.prompts[program], probes.programs[program]
    alignment = align_tokens(model.tokenizer, prompt, text)
    before = prompt_ids(model.tokenizer, prompt)
    ids = [*before, *alignment.ids]
    layers = model.plain_pass(ids)[0].numpy()
    final = model.base(input_ids=torch.tensor([ids], device=model.device), use_cache=False).last_hidden_state
    before_norm = layers[-1].copy()
    if final[0].shape == before_norm.shape:
        layers[-1] = final[0].float().cpu().numpy()
    for row in np.flatnonzero(probes.row_program == program):
        token = len(before) - 1 + int(alignment.last[probes.row_word[row]])
        neighbours = (layers[:, token - 1], layers[:, min(token + 1, len(ids) - 1)])
        yield int(row), layers[:, token], before_norm[token], *neighbours


def _distances(states: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance of states [..., D] relative to the norm of `reference`."""
    norm = np.maximum(np.linalg.norm(reference, axis=-1), 1e-12)
    distances: np.ndarray = np.linalg.norm(states - reference, axis=-1) / norm
    return distances


def _explain(sample: np.ndarray, reference: ReadRows, wrong: np.ndarray, tolerance: float) -> str:
    """The fault that gives the wrong states [n, L, D]; `wrong` is bool [n, L]."""

    def explains(candidate: np.ndarray) -> bool:
        return bool((_distances(sample, candidate)[wrong] <= tolerance).mean() >= EXPLAINED)

    if not wrong[:, :-1].any() and explains(
        np.concatenate([reference.layers[:, :-1], reference.before_norm[:, None]], 1)
    ):
        return "final norm: the last layer is the output of the last block before the final norm; apply the norm to it"
    order = _layer_order(sample, reference, tolerance)
    if order is not None:
        return f"layer index: layers {order} of transformers are in the place of 0 to {sample.shape[1] - 1}; write the embeddings first, then each block"
    for shift, description in SHIFTS.items():
        if explains(reference.shifted[shift]):
            return f"off by one position: states are those of {description}; read the last token of each word"
    if _from_other_programs(sample, reference, wrong, tolerance):
        return (
            "batch mixing: states are those of other prompts; check the order and the padding of the engine's batches"
        )
    return "another model, tokenizer or precision: no known fault gives these states; compare one prompt by hand"


def _layer_order(sample: np.ndarray, reference: ReadRows, tolerance: float) -> str | None:
    """Which layers of transformers the layers of a file are, if each is one of them and they are not in order."""
    candidates = [*reference.layers.transpose(1, 0, 2), reference.before_norm]
    names = [*map(str, range(len(candidates) - 1)), f"{len(candidates) - 2} before the final norm"]
    order = []
    for depth in range(sample.shape[1]):
        distances = [np.mean(_distances(sample[:, depth], layer) <= tolerance) for layer in candidates]
        if distances[depth] >= EXPLAINED:
            order.append(names[depth])
        elif max(distances) >= EXPLAINED:
            order.append(names[int(np.argmax(distances))])
        else:
            return None
    return ", ".join(order)


def _from_other_programs(sample: np.ndarray, reference: ReadRows, wrong: np.ndarray, tolerance: float) -> bool:
    """Whether wrong states are those of other programs that were read again, at any of their rows.

    The others may be of programs that were not read again. Embeddings are left out: a word has the same in every program.
    """
    cells = [(row, layer) for row, layer in np.argwhere(wrong) if layer or wrong.shape[1] == 1]
    num_explained = 0
    for row, layer in cells:
        is_other = reference.program != reference.program[row]
        num_explained += bool((_distances(sample[row, layer], reference.layers[is_other, layer]) <= tolerance).any())
    return num_explained >= MIXED * max(1, len(cells))
