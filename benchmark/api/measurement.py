"""Measure whether states represent the robot's state: skill, gap, delta and verdict against any controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.api.hidden_states import PooledStates
from benchmark.api.inline import Picture, draw, html_table
from benchmark.api.inputs import InputError, check_names, check_no_empty_rows, check_states
from benchmark.api.probe_set import BlindProbeSet
from benchmark.probing.control_gap import CONTROLS, MODEL, FeatureResult
from benchmark.probing.protocol import POOLS, Protocol
from benchmark.probing.readout import Readout
from benchmark.probing.verdict import ProbeResult, count_blind_steps, measure_against
from benchmark.statistics import Estimate, holm
from karel_env.command import shown
from karel_env.features import FEATURES, PRIMARY

if TYPE_CHECKING:
    from benchmark.api.frames import DataFrame

SINGLE_VIEW = ("states",)


@dataclass(frozen=True)
class Measurement:
    """The result of `measure`.

    Attributes:
        result: verdict, results by feature, diagnostics and numbers of programs and states, as in `record.json`.
        features: names of the reported features, in the order given to `measure`.
        controls: names of the controls.
        protocol: settings of the probes.
        evidence: arrays that the result is computed from, by name, as in `probes.data`.
        readout: predictions of one probe seed per action word, for 40 test programs.
    """

    result: ProbeResult
    features: tuple[str, ...]
    controls: tuple[str, ...]
    protocol: Protocol
    evidence: Mapping[str, np.ndarray]
    readout: Readout

    @property
    def verdict(self) -> str:
        """REPRESENTS, RECORD-ONLY or INCONCLUSIVE, decided on facing, whichever features are reported."""
        return self.result.verdict

    @property
    def missing_controls(self) -> tuple[str, ...]:
        """Controls of the protocol that were not given; with any missing, a verdict is not that of the leaderboard."""
        return tuple(name for name in CONTROLS if name not in self.controls)

    @property
    def feature(self) -> FeatureResult:
        """The results of the primary feature: facing if it is reported, else the first reported one."""
        return self.result.features[PRIMARY if PRIMARY in self.features else self.features[0]]

    @property
    def skill(self) -> Estimate:
        """Skill score of the primary feature with its 95% interval: 0 is the label prior, 1 is perfect."""
        return self.feature.skill

    @property
    def gap(self) -> Estimate:
        """Skill under the original minus mean skill under the alternatives, with its 95% interval."""
        return self.feature.gap

    @property
    def delta(self) -> Estimate:
        """Control-adjusted gap: the gap minus the largest gap of a control, with its 95% interval."""
        return self.feature.delta

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per reported feature: each figure, the ends of its 95% interval, n and p values."""
        return [_row(name, self.result.features[name]) for name in self.features]

    def to_frame(self) -> DataFrame:
        """The rows as a DataFrame, indexed by feature.

        Raises:
            ImportError: pandas is not installed.
        """
        from benchmark.api.frames import to_frame

        return to_frame(self.rows(), "feature")

    def figure(self) -> Picture:
        """Skill and delta by feature, as a figure that a notebook draws."""
        from benchmark.probing.figures import plot_features

        reported = replace(self.result, features={name: self.result.features[name] for name in self.features})
        return draw(partial(plot_features, "states", reported), "skill and delta by feature")

    def _repr_html_(self) -> str:
        """The rows as a table, and drawn."""
        return f"{html_table(self.rows(), f'verdict {self.verdict}')}{self.figure()._repr_html_()}"


def _row(name: str, result: FeatureResult) -> dict[str, Any]:
    row: dict[str, Any] = {"feature": name}
    controls = {f"gap of {control}": gap for control, gap in result.control_gaps.items()}
    for column, estimate in ({"skill": result.skill, "gap": result.gap, "delta": result.delta} | controls).items():
        row |= {column: estimate.value, f"{column} low": estimate.low, f"{column} high": estimate.high}
    return row | {
        "n": result.delta.n,
        "p": result.p,
        "p_holm": result.p_holm,
        "p_rand": result.p_rand,
        "view": result.view,
        "degenerate": result.degenerate,
    }


def measure(
    probes: BlindProbeSet,
    hidden: Any,
    controls: Mapping[str, Any],
    *,
    features: Sequence[str] | None = None,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> Measurement:
    """Measure whether hidden states represent the robot's state, beyond what the controls represent.

    Args:
        probes: the probe set that the model has read, R rows; its protocol holds the settings of the probes.
        hidden: states of all rows in their order, from whatever produced them: [R, L, D] (each probe then selects mean
            over layers or last layer on validation) or [R, D]; NumPy array or torch tensor of any real dtype; or the
            `PooledStates` of [R, L, D].
        controls: by name at least one control: an array or tensor [R, L, D'] or [R, D'], the `PooledStates` of
            `standard_controls`, or a sequence of these (copies: probe seed i reads copy i modulo their number).
        features: names of the features to report, in order; None for all of `karel_env.FEATURES`. The probes of all
            features share hidden layers and are trained together, so figures do not depend on the selection, except
            `p_holm`, which adjusts for the reported features.
        on_steps: called with the number of optimiser steps made since its last call.

    Returns:
        The verdict, and per feature skill, gap and delta with 95% intervals over programs and probe seeds.

    Raises:
        InputError: (a ValueError) a wrong shape or number of rows, NaN or infinity, states that do not vary, a row of zeros,
            an unknown feature, or no control.

    Source: Jin & Rinard 2024, section 4; docs/probing.md, "What is measured" and "How to read a verdict".
    """
    if not isinstance(probes, BlindProbeSet):
        raise InputError(f"probes: a {type(probes).__name__}; expected the result of blind_probe_set")
    names = check_names("features", FEATURES if features is None else features, FEATURES)
    num_rows = probes.num_rows
    model_views = _views("hidden", hidden, num_rows, is_model=True)
    copies = _control_copies(controls, num_rows)
    view_names = POOLS if len(model_views) == len(POOLS) else SINGLE_VIEW
    result, evidence, readout = measure_against(
        probes.labels, model_views, copies, probes.protocol, view_names, on_steps
    )
    missing = [name for name in names if name not in result.features]
    if features is not None and missing:
        raise InputError(
            f"features: {', '.join(missing)}: the protocol has no alternative semantics for it; expected some of "
            f"{', '.join(result.features)}"
        )
    reported = tuple(name for name in names if name in result.features)
    adjusted = holm({name: result.features[name].p for name in reported})
    by_feature = {name: replace(result.features[name], p_holm=adjusted[name]) for name in reported}
    return Measurement(
        replace(result, features=by_feature), reported, tuple(copies), probes.protocol, evidence.to_arrays(), readout
    )


def count_steps(probes: BlindProbeSet, hidden: Any, controls: Mapping[str, Any]) -> int:
    """Number of optimiser steps that `measure` reports to `on_steps` for the same arguments."""
    copies = [control[0] if isinstance(control, (list, tuple)) else control for control in controls.values()]
    return count_blind_steps(probes.protocol, sum(map(_count_views, (hidden, *copies))))


def _count_views(states: Any) -> int:
    return len(POOLS) if isinstance(states, PooledStates) or np.ndim(states) == 3 else 1


def _views(name: str, states: Any, num_rows: int, is_model: bool = False) -> list[np.ndarray]:
    """The views of states: mean and last layer of [R, L, D], or the one of [R, D]."""
    if isinstance(states, PooledStates):
        return [check_states(f"{name} {view}", getattr(states, view), num_rows) for view in POOLS]
    array = check_states(name, states, num_rows)
    if is_model:
        check_no_empty_rows(name, array)
    if array.ndim == 2:
        return [array]
    pooled = PooledStates.of(array)
    return [pooled.mean, pooled.last]


def _control_copies(controls: Mapping[str, Any], num_rows: int) -> dict[str, list[list[np.ndarray]]]:
    """The views of each copy of each control."""
    if not isinstance(controls, Mapping) or not controls:
        received = "empty" if isinstance(controls, Mapping) else f"a {type(controls).__name__}"
        raise InputError(
            f"controls: {received}; expected a mapping of at least one name to states, such as standard_controls(model, probes)"
        )
    copies: dict[str, list[list[np.ndarray]]] = {}
    for name, value in controls.items():
        if not isinstance(name, str) or name == MODEL or "." in name:
            raise InputError(f"controls: the name {shown(name)!r}; expected a text other than {MODEL!r}, without a dot")
        is_sequence = isinstance(value, (list, tuple))
        if is_sequence and not value:
            raise InputError(f"controls {name}: no copies; expected states, or a sequence of them")
        labels = [
            f"controls {name} copy {i}" if is_sequence else f"controls {name}"
            for i in range(len(value) if is_sequence else 1)
        ]
        parts = value if is_sequence else [value]
        copies[name] = [_views(label, part, num_rows) for label, part in zip(labels, parts, strict=True)]
        if len({len(views) for views in copies[name]}) > 1:
            raise InputError(f"controls {name}: copies of [R, L, D] and of [R, D]; expected one form for all copies")
    return copies
