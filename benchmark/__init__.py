"""Can a language model write Karel programs from examples, and do its hidden states represent what they mean?

    import benchmark as kb
    probes = kb.blind_probe_set("laptop")
    model = kb.load_model("path:FOLDER")
    result = kb.measure(probes, kb.hidden_states(model, probes), kb.standard_controls(model, probes))

Everything in `__all__` is loaded where it is first used, so that `import benchmark` imports no torch. docs/api.md shows
the API by example.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.api.evaluation import Report as Report
    from benchmark.api.evaluation import evaluate as evaluate
    from benchmark.api.hidden_states import PooledStates as PooledStates
    from benchmark.api.hidden_states import hidden_states as hidden_states
    from benchmark.api.hidden_states import pooled_states as pooled_states
    from benchmark.api.hidden_states import standard_controls as standard_controls
    from benchmark.api.hidden_states import token_history_control as token_history_control
    from benchmark.api.inputs import InputError as InputError
    from benchmark.api.measurement import Measurement as Measurement
    from benchmark.api.measurement import measure as measure
    from benchmark.api.model import Model as Model
    from benchmark.api.model import load_model as load_model
    from benchmark.api.model import wrap as wrap
    from benchmark.api.probe_set import TRIAL as TRIAL
    from benchmark.api.probe_set import BlindProbeSet as BlindProbeSet
    from benchmark.api.probe_set import blind_probe_set as blind_probe_set
    from benchmark.api.programs import generate_programs as generate_programs
    from benchmark.api.programs import load_tasks as load_tasks
    from benchmark.api.programs import score_programs as score_programs
    from benchmark.api.programs import task_prompts as task_prompts
    from benchmark.api.prompts_file import write_prompts as write_prompts
    from benchmark.api.states_file import StatesFile as StatesFile
    from benchmark.api.states_file import read_states as read_states
    from benchmark.api.states_file import write_states as write_states
    from benchmark.api.use_measurement import TRIAL_PAIRS as TRIAL_PAIRS
    from benchmark.api.use_measurement import UseMeasurement as UseMeasurement
    from benchmark.api.use_measurement import measure_use as measure_use
    from benchmark.causal.pairs import PairSettings as PairSettings
    from benchmark.errors import BenchmarkError as BenchmarkError
    from benchmark.errors import ModelError as ModelError
    from benchmark.errors import UsageError as UsageError
    from benchmark.probing.protocol import STANDARD as STANDARD
    from benchmark.probing.protocol import Protocol as Protocol
    from benchmark.statistics import Estimate as Estimate
    from benchmark.tasks.scoring import Scores as Scores
    from benchmark.tasks.scoring import summarize as summarize
    from benchmark.tasks.suite import Suite as Suite
    from benchmark.tasks.suite import load_suite as load_suite

    __version__: str

_HOMES = {
    "benchmark.api.evaluation": ["Report", "evaluate"],
    "benchmark.api.hidden_states": [
        "PooledStates",
        "hidden_states",
        "pooled_states",
        "standard_controls",
        "token_history_control",
    ],
    "benchmark.api.inputs": ["InputError"],
    "benchmark.api.measurement": ["Measurement", "measure"],
    "benchmark.api.model": ["Model", "load_model", "wrap"],
    "benchmark.api.probe_set": ["TRIAL", "BlindProbeSet", "blind_probe_set"],
    "benchmark.api.programs": ["generate_programs", "load_tasks", "score_programs", "task_prompts"],
    "benchmark.api.prompts_file": ["write_prompts"],
    "benchmark.api.states_file": ["StatesFile", "read_states", "write_states"],
    "benchmark.api.use_measurement": ["TRIAL_PAIRS", "UseMeasurement", "measure_use"],
    "benchmark.causal.pairs": ["PairSettings"],
    "benchmark.errors": ["BenchmarkError", "ModelError", "UsageError"],
    "benchmark.probing.protocol": ["STANDARD", "Protocol"],
    "benchmark.statistics": ["Estimate"],
    "benchmark.tasks.scoring": ["Scores", "summarize"],
    "benchmark.tasks.suite": ["Suite", "load_suite"],
}
"""The names of the API by the module that defines them; a new name is one entry here, and one line above for types."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
DISTRIBUTION = "karel-semantics-benchmark"
UNKNOWN_VERSION = "0+unknown"

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Load a name of the API from the module that defines it."""
    if name == "__version__":
        return _version()
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    """The installed version; `0+unknown` for a source that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return UNKNOWN_VERSION
