"""One draw of the trained pseudo-models of protocol 4: programs, controls and weights are new in each.

The counterpart of `rotation_draw.RotationDraw`; the randomly initialised copies have the trained architecture.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmark.calibrate.rotation_draw import CONTROL_SEED_OFFSET, Cell, Controls, RotationDraw, to_cell
from benchmark.calibrate.trained.rotation_network import (
    TRAINED_KINDS,
    RotationNetwork,
    fresh_accuracy,
    init_rotation_network,
    rotation_views,
    train_rotation_network,
)
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.version4.measure_rotation import measure_rotation, prefix_history_states
from benchmark.probing.version4.rotation_sources import Views, probe_rotation
from benchmark.probing.version4.rotation_verdict import TOKEN_HISTORY, verdict_from_rotation_evidence


@dataclass(frozen=True)
class TrainedRotationDraw(RotationDraw):
    """One draw of programs and controls, and one training of each network.

    Attributes are those of `RotationDraw`; `seed` is that of the trainings too.
    """

    @cached_property
    def _programs(self) -> Any:
        return self._blind.tasks.programs

    def views(self, network: RotationNetwork) -> Views:
        """States of a network at the labelled words of the draw, see `rotation_views`."""
        return rotation_views(network, self._programs, self.builder.inputs, self.builder.probe_set)

    def probe_controls(self) -> Controls:
        """Probe the token history of the draw and randomly initialised copies of the trained architecture."""
        probe_set, first = self.builder.probe_set, CONTROL_SEED_OFFSET + 10 * self.seed
        copies = [
            self.views(init_rotation_network(self.suite, first + i).eval()) for i in range(self.protocol.random_inits)
        ]
        history = [[prefix_history_states(probe_set, self.builder.inputs)]]
        return {
            TOKEN_HISTORY: probe_rotation(probe_set, self.judged, history, self.protocol),
            RANDOM_INIT: probe_rotation(probe_set, self.judged, copies, self.protocol),
        }

    def measure(self, name: str, controls: Controls) -> Cell:
        """Train the pseudo-model `name` and measure it with the code that measures a model."""
        began = time.process_time()
        trained = TRAINED_KINDS[name]
        network = train_rotation_network(self.suite, trained, self.seed)
        evidence = {
            **measure_rotation(
                self.builder.probe_set, self.judged, self.views(network), self.protocol, controls[TOKEN_HISTORY]
            ),
            RANDOM_INIT: controls[RANDOM_INIT],
        }
        result = verdict_from_rotation_evidence(evidence, self.judged, self.protocol)
        cell = to_cell(name, trained.kind, self.seed, result)
        return cell | {
            "task_accuracy": round(fresh_accuracy(network, trained, self.seed), 6),
            "seconds": round(time.process_time() - began, 1),
        }
