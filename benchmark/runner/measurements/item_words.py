"""Items of measurements in words, for the progress of a run; their names are those of stored files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from benchmark.tasks.stage import STAGE_WORDS

MEASUREMENT_WORDS = {
    "represents": "Represents", "preview": "Represents (preview)", "uses": "Uses and Merges", "reach": "Reach",
    "uses-detail": "Uses in detail",
}  # fmt: skip
ITEM_WORDS = {
    "represents": {
        "model": "the model's hidden states", "random": "untrained copy",
        "suite": "controls from the programs alone",
    },
    "preview": {
        "states": "hidden states, part", "random": "untrained copy", "suite": "controls from the programs alone",
        "probe": "probes of the hidden states, seed", "record": "probes of records of the words, seed",
    },
    "uses": {
        "merges": "prefixes that lead to equal states", "unedited": "words without an edit, part",
        "means": "mean states", "choose": "edits to choose a layer, part",
        "report": "edits to report, part", "untrained": "edits of an untrained copy",
    },
    "reach": {
        "answers": "the model's programs", "content": "what states say of words, part",
        "ahead": "words that follow",
    },
    "uses-detail": {
        "means": "mean states", "choose": "rotation edits to choose a layer, part",
        "move-choose": "position edits to choose a layer, part", "subspace": "trained subspace, layer",
        "report": "rotation edits to report, part", "move-report": "position edits to report, part",
        "programs": "whole programs after an edit",
    },
}  # fmt: skip
"""What an item of a measurement is, by the measurement's name and the item's without its number."""


def describe_items(measurement: str, phases: Sequence[Sequence[str]]) -> dict[str, str]:
    """Each item of a measurement in words, by name: `untrained copy 2 of 3`.

    Args:
        measurement: name of the measurement.
        phases: names of its items by phase; those of one kind are counted over all phases.
    """
    words = ITEM_WORDS.get(measurement, {})
    names = [name for phase in phases for name in phase]
    kinds = {name: re.sub(r"-\d+$", "", name) for name in names}
    totals = Counter(kinds.values())
    numbers: Counter[str] = Counter()
    described = {}
    for name in names:
        kind = kinds[name]
        numbers[kind] += 1
        text = words.get(kind, kind)
        if text.endswith(" seed"):
            # A preview may be decided before the last seed.
            described[name] = f"{text} {numbers[kind]}"
        elif totals[kind] > 1 or text.endswith((" part", " copy")):
            described[name] = f"{text} {numbers[kind]} of {totals[kind]}"
        else:
            described[name] = text
    return described


def describe_stage(name: str) -> str:
    """A stage of a run in words, from the beginning of its stored names, such as `random-0-blind` or `uses-choose`; or empty."""
    # The longest name first: `uses-detail-choose` is no item of `uses`.
    for measurement in sorted(ITEM_WORDS, key=len, reverse=True):
        kind = name.removeprefix(f"{measurement}-")
        if kind != name and kind in ITEM_WORDS[measurement]:
            words = re.sub(r",? (part|seed|layer)$", "", ITEM_WORDS[measurement][kind])
            return f"{MEASUREMENT_WORDS[measurement]}: {words}"
    copy = re.fullmatch(r"random-(\d+)-(.+)", name)
    kind, _, alternative = (copy[2] if copy else name).partition("-")
    words = " ".join(filter(None, (STAGE_WORDS.get(kind, ""), alternative)))
    return f"{words}, untrained copy {int(copy[1]) + 1}" if copy and words else words
