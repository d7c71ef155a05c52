"""Every entry of a JSON value, and another value of its kind: what forgery tests put in place of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, (dict, list)) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def altered(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value + 0.01
        case str():
            return value + "x"
        case None:
            return 0.5
    return ["x"] if isinstance(value, list) else {"x": 1}
