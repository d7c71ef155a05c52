"""What protocol 4 needs of a suite besides the blind set, equal for all models: token history, and which labels are kept.

The files of the shipped suites are in `suite_controls/`, named by suite and by `suite_controls_key`, and pinned by their
SHA-256. `python -m benchmark.calibrate --protocol 4 --suite-controls FOLDER` computes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from benchmark.errors import VerificationError
from benchmark.probing.version4.derivability import (
    derivability_losses,
    judged_derivability,
    screen_sample,
    screened_pairs,
)
from benchmark.probing.version4.measure_rotation import judge_suite, prefix_history_states
from benchmark.probing.version4.rotation_evidence import RotationEvidence
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_sources import probe_rotation
from benchmark.probing.version4.rotation_verdict import TOKEN_HISTORY
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, TurnPair
from benchmark.tasks.suite import Suite

FOLDER = Path(__file__).parent / "suite_controls"
SUITE_FIELDS = ("name", "version", "seed", "shown", "held_out", "recipe", "probe_programs", "blind_length")
"""Fields of a suite that its controls depend on."""
SCREEN_SAMPLE = 20_000
"""Programs that derivability is computed from."""
PINNED: dict[str, str] = {
    "colm24-1c141a86aa881dac.data": "b7cd70b56b6a7c324ca6aaa3737cc81af8b12b417cc8b5c65b21b1bc5cb21b46",
    "colm24-64e16e65d69bd9c7.data": "041d861015608877b571caf0a816c76c78644041b2f5ffd9baf7ebbfb4add32b",
    "control-19949ad1b57f1ac3.data": "c0ddcee4ca245662e19951731d22b4f10d74a7a4e71ec00b72673b21ec2acef4",
    "control-de946258505c8e5e.data": "8e1d4e61e650b0b8c0df138f6cd655ea91cca55bb8c65c60c74d54f66c674754",
    "generalize-3f40ad9099e3bdda.data": "a2c97503091e0656acfdf7b97067bf46afc08b2789b3b735abc6c29758a6b634",
    "generalize-adcbf39b1a90c6b8.data": "8b9b14c06f2e9d77eb42101b8ad59d5cdf17c2795fdaa31c8f8701685e1b3731",
    "icml24-83bc9add8e76caaf.data": "3a3ef5528e2eeda0f3158dee874a7216ed7a485ccfa0bbeadcd2b8e17e2649e5",
    "icml24-c81e04e4d9985476.data": "fb0a05275e5c82de16066ce7b15a7611ccfff2ec0704b2d2490e9fb536eb65e0",
    "laptop-590cd7e0ccd45399.data": "5109a6bb05ce3d952c46774cd0c5382734e6fa34bb35deb8cbba29e93f7abed5",
    "laptop-a41ec3684eb04c4a.data": "27bf6d545ab739f87ab26dc95a8b5d84a90f58cea4e45f2803f05fda45ea7801",
    "smoke-2d2e375b0bd1e35b.data": "a696fab59bbbd1de60ce7845d415c81bb91e4b6e25765d28b8fcd96ffaaefa10",
    "smoke-62f0e34f7442cb68.data": "2fb64490c04230db43c2396e4a89c25b9249078bc40cbda43adb7d63e2ff95d3",
}
"""SHA-256 of each shipped file, by name."""
_DERIVABILITY = "derivability"


@dataclass(frozen=True)
class SuiteControls:
    """The controls of a suite that do not depend on the model.

    Attributes:
        token_history: evidence of the token history.
        derivability: derivability of each alternative from the true state, by name of the pair, on the unseen rows.
    """

    token_history: RotationEvidence
    derivability: dict[str, float]

    def kept_pairs(self, protocol: RotationProtocol) -> tuple[tuple[TurnPair, ...], tuple[TurnPair, ...]]:
        """The marker and the pose-word alternatives that are no function of the state, see `screened_pairs`."""
        return screened_pairs(self.derivability, protocol.derivable)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a file."""
        values = np.array([self.derivability[pair.name] for pair in ALL_PAIRS[1:]])
        return {**self.token_history.arrays(TOKEN_HISTORY), _DERIVABILITY: values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> SuiteControls:
        """The controls that `arrays` named."""
        values = {pair.name: float(v) for pair, v in zip(ALL_PAIRS[1:], arrays[_DERIVABILITY], strict=True)}
        return cls(RotationEvidence.from_arrays(arrays, TOKEN_HISTORY), values)


def suite_controls_key(suite: Suite, protocol: RotationProtocol) -> str:
    """SHA-256 of everything of a suite and a protocol that the controls depend on."""
    fields = {name: value for name, value in asdict(suite).items() if name in SUITE_FIELDS}
    text = json.dumps([fields, protocol.evidence_digest()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def compute_suite_controls(suite: Suite, protocol: RotationProtocol) -> SuiteControls:
    """Probe the token history, and compute the derivability of every alternative on the unseen rows."""
    judged = judge_suite(suite, protocol)
    history = prefix_history_states(judged.probe_set, judged.blind.tasks.inputs[:, 0])
    evidence = probe_rotation(judged.probe_set, judged.judged_rows, [[history]], protocol)
    losses = derivability_losses(screen_sample(suite, protocol, SCREEN_SAMPLE))
    unseen_by_step = judged.judged_rows.num_rows[:, 1].sum(1).astype(np.float64)
    return SuiteControls(evidence, judged_derivability(losses, unseen_by_step))


def file_name(suite: Suite, protocol: RotationProtocol) -> str:
    """Name of the file of a suite's controls."""
    return f"{suite.name}-{suite_controls_key(suite, protocol)[:16]}.data"


def write_suite_controls(suite: Suite, protocol: RotationProtocol, folder: Path) -> Path:
    """Compute the controls of a suite and write them to their file in a folder; returns the file."""
    path = folder / file_name(suite, protocol)
    path.write_bytes(save(compute_suite_controls(suite, protocol).arrays()))
    return path


def shipped_suite_controls(suite: Suite, protocol: RotationProtocol) -> SuiteControls | None:
    """The shipped controls of a suite; None for another suite or protocol.

    Raises:
        VerificationError: the file is missing, or is another than the pinned one.
    """
    name = file_name(suite, protocol)
    if name not in PINNED:
        return None
    return SuiteControls.from_arrays(read_pinned(name, PINNED[name], f"the controls of suite {suite.name}"))


def read_pinned(name: str, expected: str, description: str) -> dict[str, np.ndarray]:
    """The arrays of a shipped file.

    Args:
        name: name in `FOLDER`.
        expected: its SHA-256.
        description: what it holds, for the message.

    Raises:
        VerificationError: the file is missing, or has another digest.
    """
    try:
        content = (FOLDER / name).read_bytes()
    except OSError as error:
        raise VerificationError(
            f"{FOLDER / name}: {error.strerror}; expected {description}, reinstall the release"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise VerificationError(
            f"{FOLDER / name}: SHA-256 {digest[:12]}; expected {expected[:12]}, reinstall the released version"
        )
    arrays: dict[str, np.ndarray] = load(content)
    return arrays
