"""Measure a model at several lengths: rotation by word, accuracy on longer tasks, use after longer prefixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.errors import ModelError
from benchmark.length.context_limit import ContextLimit
from benchmark.length.long_programs import LongPrograms, draw_long_programs, program_length
from benchmark.length.longer_prefixes import LongPrefixResult, measure_long_prefixes
from benchmark.length.longer_tasks import LongTaskResult, score_longer_tasks
from benchmark.length.skills import Stretch, figures_of_words, list_stretches
from benchmark.length.word_losses import LengthProbes, Views, WordLosses
from benchmark.models.loading import load_model
from benchmark.probing.device.trainer import trainer_on
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.runner.blind_reading import read_blind_states
from benchmark.runner.measurements.word_scorers import load_steerable
from benchmark.runner.plan import Job
from benchmark.runner.worker import RANDOM_INIT_SEED

MODEL, UNTRAINED, HISTORY = "model", "untrained", "token history"
UNTRAINED_COPY = 0
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class LengthSettings:
    """How much is measured.

    Attributes:
        factors: lengths in units of the longest training program, ascending, the first of them 1.
        prompts: prompts of the blind set, each with four programs.
        seeds: probe seeds; seed q tests the prompts of fold q.
        tasks: longer tasks per factor; 0 for none.
        prefix_tasks: tasks per factor from which pairs for *use* are derived; 0 for none.
        protocol: settings of the probes.
    """

    factors: Sequence[int] = (1, 2, 4)
    prompts: int = 500
    seeds: Sequence[int] = (0, 1, 2)
    tasks: int = 200
    prefix_tasks: int = 600
    protocol: RotationProtocol = ROTATION_STANDARD


@dataclass(frozen=True)
class RotationCurve:
    """Rotation in programs of one length, from probes of one kind.

    Attributes:
        trained_words: words of a program that the probes are trained on.
        words: words of a program that they are tested on.
        stretches: figures of several words together.
        by_word: figures of single words.
    """

    trained_words: int
    words: int
    stretches: Sequence[Stretch]
    by_word: Sequence[Stretch]


@dataclass(frozen=True)
class LengthResult:
    """All results of a model; a factor that was not measured has its reason in `reasons`.

    Attributes:
        base: actions of the longest training program.
        rotation: probes of each length, tested at that length.
        carried: probes of factor 1 on all words of the longest programs; None if only factor 1 was read.
        tasks: by factor.
        prefixes: by factor.
        reasons: by name of the part and factor, such as `tasks x4`.
        programs: number of blind programs.
    """

    base: int
    rotation: Sequence[RotationCurve]
    carried: RotationCurve | None
    tasks: Mapping[int, LongTaskResult]
    prefixes: Mapping[int, LongPrefixResult]
    reasons: Mapping[str, str]
    programs: int


def measure_length(
    job: Job, settings: LengthSettings, limit: ContextLimit, on_step: OnStep = lambda step: None
) -> LengthResult:
    """Measure a model of the trained track.

    Args:
        job: model, suite, dtype and device.
        settings: how much is measured.
        limit: what fits into the context of the model.
        on_step: called with the name of each step.

    Raises:
        ModelError: the model has no hidden states, or they are not finite.
    """
    if not job.checkpoint.has_hidden_states:
        raise ModelError(f"{job.checkpoint.spec}: has no hidden states; expected a language model")
    base = program_length(job.suite, 1)
    reasons = {f"programs x{k}": limit.reason(k) for k in settings.factors}
    fitting = [k for k in settings.factors if not reasons[f"programs x{k}"]]
    rotation: Sequence[RotationCurve] = ()
    carried, num_programs = None, 0
    if fitting:
        programs = draw_long_programs(job.suite, fitting[-1], settings.prompts)
        num_programs = len(programs.words)
        on_step("reading the model")
        model = _read(job, programs, None)
        on_step("reading an untrained copy")
        views = {MODEL: model, UNTRAINED: _read(job, programs, UNTRAINED_COPY), HISTORY: [programs.history_states()]}
        probes = LengthProbes(programs, settings.protocol, settings.seeds, trainer_on(job.device))
        rotation, carried = curves(probes, views, [k * base for k in fitting], base, on_step)
    tasks = _measure_tasks(job, settings, limit, reasons, on_step)
    prefixes = _measure_prefixes(job, settings, fitting, on_step)
    kept_reasons = {name: reason for name, reason in reasons.items() if reason}
    return LengthResult(base, rotation, carried, tasks, prefixes, kept_reasons, num_programs)


def curves(
    probes: LengthProbes,
    views: Mapping[str, Views],
    lengths: Sequence[int],
    base: int,
    on_step: OnStep = lambda step: None,
) -> tuple[list[RotationCurve], RotationCurve | None]:
    """The curves of a source with its controls.

    Args:
        probes: programs and settings.
        views: float32 [R, D] per view, by source; the first source is the model, whose record is executed.
        lengths: words of the programs that are probed, the longest last.
        base: words that the carried probes are trained on.
        on_step: called with the name of each step.

    Returns:
        A curve per length, and that of the probes of `base` on all words; None if `base` is all of them.
    """
    model, model_views = next(iter(views.items()))
    rotation = []
    for num_words in lengths:
        on_step(f"probing {num_words} words")
        sources = {name: probes.probe(of_source, num_words) for name, of_source in views.items()}
        records = list(probes.execute_records(model_views, num_words).values())
        rotation.append(_curve(probes, num_words, num_words, base, sources, records, {}))
    longest = lengths[-1]
    if longest == base:
        return rotation, None
    on_step(f"applying probes of {base} words to {longest}")
    carried = probes.carry(model_views, base)
    return rotation, _curve(probes, base, longest, base, {}, [], {model: carried})


def _curve(
    probes: LengthProbes,
    trained_words: int,
    num_words: int,
    base: int,
    sources: Mapping[str, WordLosses],
    records: Sequence[WordLosses],
    carried: Mapping[str, WordLosses],
) -> RotationCurve:
    def figures(ranges: Sequence[tuple[int, int]]) -> list[Stretch]:
        resamples = probes.protocol.resamples
        return [Stretch(a, b, figures_of_words(sources, records, carried, a, b, resamples)) for a, b in ranges]

    words = [(word, word) for word in range(1, num_words + 1)]
    return RotationCurve(trained_words, num_words, figures(list_stretches(num_words, base)), figures(words))


def _read(job: Job, programs: LongPrograms, copy: int | None) -> list[np.ndarray]:
    """float32 [R, D] per view, the states at the words of blind programs, of the model or of its untrained copy."""
    seed = None if copy is None else RANDOM_INIT_SEED + copy
    model = load_model(job.checkpoint, job.dtype, job.device, seed)
    return list(read_blind_states(model, job.suite, programs.blind).values())


def _measure_tasks(
    job: Job, settings: LengthSettings, limit: ContextLimit, reasons: dict[str, str], on_step: OnStep
) -> dict[int, LongTaskResult]:
    results: dict[int, LongTaskResult] = {}
    if not settings.tasks:
        return results
    model = load_model(job.checkpoint, job.dtype, job.device)
    for factor in settings.factors:
        reason = reasons[f"tasks x{factor}"] = limit.reason(factor, is_written=True)
        if not reason:
            on_step(f"tasks of {program_length(job.suite, factor)} words")
            results[factor] = score_longer_tasks(model, job.suite, factor, settings.tasks)
    return results


def _measure_prefixes(
    job: Job, settings: LengthSettings, factors: Sequence[int], on_step: OnStep
) -> dict[int, LongPrefixResult]:
    if not settings.prefix_tasks or not factors:
        return {}
    model, untrained = load_steerable(job), load_steerable(job, UNTRAINED_COPY)
    results = {}
    for factor in factors:
        on_step(f"use in programs of {program_length(job.suite, factor)} words")
        results[factor] = measure_long_prefixes(model, untrained, job.suite, factor, settings.prefix_tasks)
    return results
