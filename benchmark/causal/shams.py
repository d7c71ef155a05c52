"""Sham edits: what must not change a model, or must change it only after the edit. `benchmark.doctor` calls them.

Every check returns a reason, or None if it passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmark.causal.interventions import SteerableModel

ORDER_TOLERANCE = 1e-3
"""Largest difference in nats of a score between two orders of one batch."""


def check_zero_edit(model: SteerableModel, prompts: Sequence[str], prefixes: Sequence[str]) -> str | None:
    """Does replacing a state by itself leave every score bit for bit?"""
    prepared = model.prepare(prompts, prefixes)
    unedited = prepared.score().log_probs
    for site, states in enumerate(prepared.states()):
        scores = prepared.score(site, states).log_probs
        if not np.array_equal(scores, unedited):
            largest = float(np.abs(scores - unedited).max())
            return f"{model.sites[site]}: an edit by zero changes scores by up to {largest:.2g} nats; expected no bit"
    return None


def check_hooks_fire(model: SteerableModel, prompts: Sequence[str], prefixes: Sequence[str]) -> str | None:
    """Does a large edit at every site change the scores?"""
    prepared = model.prepare(prompts, prefixes)
    unedited = prepared.score().log_probs
    for site, states in enumerate(prepared.states()):
        generator = np.random.Generator(np.random.Philox(site))
        noise = generator.standard_normal(states.shape).astype(np.float32) * max(float(states.std()), 1e-3)
        if np.array_equal(prepared.score(site, states + noise).log_probs, unedited):
            return f"{model.sites[site]}: an edit changes no score; expected a change, the hook does not fire"
    return None


def check_edit_reaches_later_only(model: SteerableModel, prompts: Sequence[str], prefixes: Sequence[str]) -> str | None:
    """Are states read again after an edit those of an unedited run, and scores of an unedited run unchanged?"""
    prepared = model.prepare(prompts, prefixes)
    unedited, before = prepared.score().log_probs, [states.copy() for states in prepared.states()]
    for site, states in enumerate(before):
        prepared.score(site, states + np.float32(1))
        if not np.array_equal(prepared.score().log_probs, unedited):
            return f"{model.sites[site]}: an edit changes a later unedited pass; expected that nothing remains of it"
        if not all(np.array_equal(a, b) for a, b in zip(prepared.states(), before, strict=True)):
            return f"{model.sites[site]}: an edit changes states that are read afterwards; expected those of an unedited run"
    return None


def check_batch_order(model: SteerableModel, prompts: Sequence[str], prefixes: Sequence[str]) -> str | None:
    """Do edited scores of a prefix not depend on the order of the batch?"""
    orders = np.arange(len(prompts)), np.arange(len(prompts))[::-1]
    for site in range(len(model.sites)):
        scores = []
        for order in orders:
            prepared = model.prepare([prompts[i] for i in order], [prefixes[i] for i in order])
            states = prepared.states()[site]
            values = states + np.float32(0.1) * np.roll(states, 1, 1)
            scores.append(prepared.score(site, values).log_probs[np.argsort(order)])
        largest = float(np.abs(scores[0] - scores[1]).max())
        if not largest <= ORDER_TOLERANCE:
            return (
                f"{model.sites[site]}: edited scores differ by {largest:.2g} nats between two orders of a batch; expected "
                f"at most {ORDER_TOLERANCE:g}"
            )
    return None


SHAMS: tuple[tuple[str, Callable[[SteerableModel, Sequence[str], Sequence[str]], str | None]], ...] = (
    ("edit by zero", check_zero_edit),
    ("hooks", check_hooks_fire),
    ("later only", check_edit_reaches_later_only),
    ("batch order", check_batch_order),
)


def run_shams(model: SteerableModel, prompts: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """The reasons of all checks that fail, each with the name of its check."""
    results = [(name, check(model, prompts, prefixes)) for name, check in SHAMS]
    return [f"{name}: {reason}" for name, reason in results if reason is not None]
