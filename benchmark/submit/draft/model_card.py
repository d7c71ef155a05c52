"""What a model's card says: the metadata at the top of its `README.md`, in the model's folder or on the hub.

The card is text of others: values that are of another type than expected are left out, and none is longer than a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from benchmark.artifacts import README
from benchmark.errors import BenchmarkError
from benchmark.files import parse_yaml, read_text
from benchmark.models.hub import download_card
from benchmark.models.interface import ModelSpec

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*(?:\n|\Z)", re.DOTALL)
MAX_ITEMS, MAX_LINE = 20, 200
OTHER_LICENCE = "other"


@dataclass(frozen=True)
class ModelCard:
    """Entries of a card that a submission has too; empty for those that it does not tell.

    Attributes:
        authors: names, from `authors`, `author` or `developers`.
        licence: SPDX expression; a licence that is none becomes `LicenseRef-NAME`.
        datasets: names of the training data.
    """

    authors: tuple[str, ...] = ()
    licence: str = ""
    datasets: tuple[str, ...] = ()


NO_CARD = ModelCard()


def read_model_card(folder: Path) -> ModelCard:
    """The card in a folder; empty if there is none, or none that can be read."""
    try:
        match = FRONT_MATTER.match(read_text(folder / README))
        metadata = parse_yaml(match[1].encode(), README) if match else {}
    except (BenchmarkError, OSError):
        return NO_CARD
    authors = next((_lines(metadata[key]) for key in ("authors", "author", "developers") if key in metadata), ())
    return ModelCard(authors, _licence(metadata), _lines(metadata.get("datasets")))


def fetch_model_card(spec: ModelSpec) -> ModelCard:
    """The card of a model of the hub, from the hub's cache or the hub; empty if it cannot be had."""
    path = download_card(spec)
    return NO_CARD if path is None else read_model_card(path.parent)


def _lines(value: Any) -> tuple[str, ...]:
    """A text or a list of texts as texts of one line."""
    items = value if isinstance(value, list) else [value]
    texts = [" ".join(item.split()) for item in items if isinstance(item, str)]
    return tuple(text for text in texts if 0 < len(text) <= MAX_LINE)[:MAX_ITEMS]


def _licence(metadata: dict[str, Any]) -> str:
    name = next(iter(_lines(metadata.get("license"))), "")
    if name == OTHER_LICENCE:
        name = next(iter(_lines(metadata.get("license_name"))), "")
    for expression in (name, f"LicenseRef-{name}"):
        try:
            return str(canonicalize_license_expression(expression)) if name else ""
        except InvalidLicenseExpression:
            continue
    return ""
