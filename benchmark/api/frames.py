"""Tables as DataFrames; pandas is imported here only, and only when a table is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

    DataFrame: TypeAlias = Any
    """A pandas.DataFrame; pandas is optional, so its types are not used."""


def to_frame(rows: Sequence[Mapping[str, Any]], index: str | None = None) -> DataFrame:
    """A DataFrame of rows.

    Args:
        rows: one mapping per row.
        index: column that becomes the index.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError("tables as DataFrames need pandas; pip install pandas") from error
    frame = pandas.DataFrame([dict(row) for row in rows])
    return frame if index is None else frame.set_index(index)
