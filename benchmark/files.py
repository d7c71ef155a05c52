"""Reads files of a submission safely: as untrusted data, within size limits, never executed.

Every refusal is a `SubmissionError` of one line that names the file and the reason. Content of the files enters
it only through `sanitize`. Threats and countermeasures: docs/security.md.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from benchmark.errors import SubmissionError

MAX_YAML_BYTES, MAX_TEXT_BYTES, MAX_JSON_BYTES = 64_000, 200_000, 8_000_000
MAX_ROWS_BYTES, MAX_ROW_BYTES, MAX_ROWS, MAX_ROW_ENTRIES = 64_000_000, 20_000, 50_000, 32
"""Limits of a gzip file of JSON lines: unpacked bytes, bytes per line, lines, and entries per line."""
MAX_HEADER_BYTES, MAX_TENSORS = 1_000_000, 20_000
MAX_DEPTH = 24
MAX_JSON_VALUES = 4_000_000
"""Limit per JSON file, since an empty list takes 3 bytes in a file and 64 in memory."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
MAX_SHOWN = 60
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


def sanitize(value: object) -> str:
    """Short printable ASCII text of a value of a submission, for messages."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]}...{text[-1]}"


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; symbolic links are refused."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
        size = os.fstat(file.fileno()).st_size
    if len(content) > limit:
        raise SubmissionError(f"{path.name}: {size:,} bytes; at most {limit:,} are read")
    return content


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; symbolic links are refused."""
    try:
        # Without O_NONBLOCK, opening a pipe would block until another process writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise SubmissionError(f"{path.name}: not there; python -m benchmark.submit new makes it") from error
    except OSError as error:
        raise SubmissionError(f"{path.name}: cannot be opened as a plain file ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SubmissionError(f"{path.name}: not a plain file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text without control or bidirectional formatting characters."""
    return check_printable(decode_utf8(read_bytes(path, limit), path.name), path.name)


def decode_utf8(content: bytes, where: str) -> str:
    """Decode UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SubmissionError(f"{where}: byte {error.start} is not UTF-8; save it as UTF-8") from error


def check_printable(text: str, where: str) -> str:
    """Return the text if it has no control, formatting, surrogate or private-use character."""
    for position, char in enumerate(text):
        if char not in "\n\t\r" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co"):
            raise SubmissionError(
                f"{where}: character U+{ord(char):04X} at {position} is a control, direction or private character; remove it"
            )
    return text


_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""That of libyaml where PyYAML was built with it: ten times faster."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as `parse_yaml` does."""
    return parse_yaml(read_bytes(path, MAX_YAML_BYTES), path.name)


def parse_yaml(content: bytes, where: str) -> dict[str, Any]:
    """Parse a YAML mapping of plain values: no tags, anchors, aliases, merges, second documents or repeated keys."""
    text = check_printable(decode_utf8(content, where), where)
    try:
        _check_events(yaml.parse(text, _YAML_LOADER), where)
        node = yaml.compose(text, _YAML_LOADER)
        value = _construct_plain(node, where) if node is not None else None
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # libyaml's own limit, which comes before the first event
            raise SubmissionError(f"{where}: nested deeper than {MAX_DEPTH}") from error
        raise SubmissionError(f"{where}: not YAML: {sanitize(str(error))}") from error
    except (ValueError, OverflowError, RecursionError, TypeError, LookupError) as error:
        raise SubmissionError(f"{where}: a value that YAML cannot read: {sanitize(str(error))}") from error
    for word in _iter_strings(value):
        check_printable(word, where)
    if not isinstance(value, dict):
        raise SubmissionError(f"{where}: expected entries such as 'name: ...', got {type(value).__name__}")
    return value


def _check_events(events: Iterable[yaml.Event], where: str) -> None:
    depth = documents = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise SubmissionError(f"{where}: alias *{sanitize(event.anchor)}; write the value out")
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            raise SubmissionError(f"{where}: anchor &{sanitize(event.anchor)}; write plain values")
        if getattr(event, "tag", None):
            raise SubmissionError(f"{where}: tag {sanitize(getattr(event, 'tag', ''))}; write plain values")
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SubmissionError(f"{where}: nested deeper than {MAX_DEPTH}")
        if documents > 1:
            raise SubmissionError(f"{where}: more than one document")


def _construct_plain(node: yaml.Node, where: str) -> Any:
    """Construct the value of a node: string, number, boolean, null, list, or mapping with distinct string keys."""
    if isinstance(node, yaml.SequenceNode):
        return [_construct_plain(child, where) for child in node.value]
    if not isinstance(node, yaml.MappingNode):
        # A date stays a string.
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        loader = yaml.SafeLoader("")
        return loader.construct_object(node)
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag != "tag:yaml.org,2002:str":
            raise SubmissionError(f"{where}: key {sanitize(key.value)} is not a word; quote it, or remove it")
        if key.value in mapping:
            raise SubmissionError(f"{where}: key {sanitize(key.value)} comes twice")
        mapping[key.value] = _construct_plain(value, where)
    return mapping


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file; repeated keys, NaN, infinity, deep nesting and control characters are refused."""
    value = parse_json(read_bytes(path, limit), path.name)
    for text in _iter_strings(value):
        check_printable(text, path.name)
    return value


def parse_json(content: bytes, where: str) -> Any:
    """Parse JSON with the limits of `read_json`; strings may hold any characters except unpaired surrogates."""
    text = decode_utf8(content, where)
    count = _count_values(content)
    if count > MAX_JSON_VALUES:
        raise SubmissionError(f"{where}: {count:,} values; at most {MAX_JSON_VALUES:,} are read")
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise SubmissionError(f"{where}: nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise SubmissionError(f"{where}: not JSON that is read here: {sanitize(str(error))}") from error
    # The brackets bound the depth, also where some of them are in strings.
    level, depth = [value] if text.count("[") + text.count("{") >= MAX_DEPTH else [], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise SubmissionError(f"{where}: nested deeper than {MAX_DEPTH}")
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    # UTF-8 has no surrogates, so only an escape can be one.
    for part in _iter_strings(value) if "\\u" in text else ():
        if not part.isascii() and any("\ud800" <= char <= "\udfff" for char in part):
            raise SubmissionError(f"{where}: half of a surrogate pair, which is no character")
    return value


def _count_values(content: bytes) -> int:
    """Upper bound on the values of a JSON text, before parsing: brackets and commas outside strings, plus one."""
    if len(content) <= MAX_JSON_VALUES:
        return 0
    outside = _STRING.sub(b"", content)
    return 1 + sum(outside.count(sign) for sign in (b"[", b"{", b","))


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for name, value in pairs:
        if name in mapping:
            raise ValueError(f"key {name[:MAX_SHOWN]!r} comes twice")
        mapping[name] = value
    return mapping


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant)


def _iter_strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, including keys."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            stack += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            stack += node


def iter_entries(value: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield every (key, value) with one of these keys, at any depth of a JSON value."""
    keys, stack = set(names), [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield from ((name, inner) for name, inner in node.items() if name in keys)
            stack += node.values()
        elif isinstance(node, list):
            stack += node


def read_rows(path: Path, packed_limit: int, containing: bytes = b"") -> list[dict[str, Any]]:
    """Read a gzip file of JSON lines; see `stream_rows`."""
    return list(stream_rows(path, packed_limit, containing))


def stream_rows(path: Path, packed_limit: int, containing: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yield the objects of a gzip file of JSON lines, unpacked only up to the limits.

    An object holds only plain values, no lists or objects, so a row takes little more memory than its line. Lines without
    the bytes `containing` are skipped unread.
    """
    return _parse_rows(gunzip_bounded(read_bytes(path, packed_limit), path.name), path.name, containing)


def _parse_rows(content: bytes, name: str, containing: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_iter_lines(content), 1):
        where = f"{name} line {number}"
        if number > MAX_ROWS:
            raise SubmissionError(f"{name}: more than {MAX_ROWS:,} lines")
        if not line or containing not in line:
            continue
        if len(line) > MAX_ROW_BYTES:
            raise SubmissionError(f"{where}: {len(line):,} bytes; at most {MAX_ROW_BYTES:,} are read")
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise SubmissionError(f"{where}: expected an object, got {type(row).__name__}")
        if len(row) > MAX_ROW_ENTRIES:
            raise SubmissionError(f"{where}: {len(row):,} entries; at most {MAX_ROW_ENTRIES} are read")
        # A line with one bracket holds no value with another.
        has_brackets = line.count(b"{") + line.count(b"[") > 1
        nested = (
            next((key for key, value in row.items() if isinstance(value, dict | list)), None) if has_brackets else None
        )
        if nested is not None:
            raise SubmissionError(
                f"{where}: {sanitize(nested)}: expected a plain value, got {type(row[nested]).__name__}"
            )
        yield row


def _iter_lines(content: bytes) -> Iterator[bytes]:
    """Yield the lines of a text without their line ends, lazily."""
    start = 0
    while start <= len(content):
        stop = content.find(b"\n", start)
        stop = len(content) if stop < 0 else stop
        yield content[start:stop]
        start = stop + 1


def gunzip_bounded(content: bytes, where: str, limit: int = MAX_ROWS_BYTES) -> bytes:
    """Decompress one gzip member of at most `limit` bytes; trailing bytes are refused."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        unpacked = decompressor.decompress(content, limit + 1)
    except zlib.error as error:
        raise SubmissionError(f"{where}: not a gzip file ({error})") from error
    if len(unpacked) > limit:
        raise SubmissionError(f"{where}: unpacks to more than {limit:,} bytes")
    if not decompressor.eof:
        raise SubmissionError(f"{where}: the gzip file ends too early")
    if decompressor.unused_data:
        raise SubmissionError(f"{where}: {len(decompressor.unused_data):,} bytes after the end of the gzip file")
    return unpacked


def read_safetensors_header(file: BinaryIO, name: str, max_bytes: int = MAX_HEADER_BYTES) -> tuple[dict[str, Any], int]:
    """Read the header of an open safetensors file: 8 bytes of length (little-endian), then a JSON object.

    Args:
        file: binary file at position 0.
        name: file name for messages.
        max_bytes: largest length of the header that is read.

    Returns:
        The entries by tensor, without `__metadata__` and not yet checked, and the byte at which the data begin.

    Raises:
        SubmissionError: the length exceeds the file or `max_bytes`, or the header is not a JSON object.
    """
    header, data_start = _read_header_object(file, name, max_bytes)
    header.pop("__metadata__", None)
    return header, data_start


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, as text by key; empty if it has none.

    Raises:
        SubmissionError: see `read_safetensors_header`.
    """
    with open_regular(path) as file:
        entry = _read_header_object(file, path.name, MAX_HEADER_BYTES)[0].get("__metadata__")
    return {str(key): str(value) for key, value in entry.items()} if isinstance(entry, dict) else {}


def _read_header_object(file: BinaryIO, name: str, max_bytes: int) -> tuple[dict[str, Any], int]:
    size = os.fstat(file.fileno()).st_size
    first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else -1
    if not 2 <= length <= min(max_bytes, size - 8):
        raise SubmissionError(f"{name}: no safetensors file: its header would have {length:,} bytes")
    header = parse_json(file.read(length), f"{name} header")
    if not isinstance(header, dict):
        raise SubmissionError(f"{name} header: expected an object, got {type(header).__name__}")
    return header, 8 + length


def read_tensor_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file of a submission: `dtype`, `shape` and `data_offsets` by tensor.

    Raises:
        SubmissionError: see `read_safetensors_header`; or the tensors do not cover the data exactly.
    """
    with open_regular(path) as file:
        header, data_start = read_safetensors_header(file, path.name)
        data_bytes = os.fstat(file.fileno()).st_size - data_start
    if len(header) > MAX_TENSORS:
        raise SubmissionError(f"{path.name}: {len(header):,} tensors; at most {MAX_TENSORS:,} are read")
    spans = sorted(_tensor_span(entry, f"{path.name} tensor {sanitize(name)}") for name, entry in header.items())
    end = 0
    for start, stop in spans:
        if start != end:
            raise SubmissionError(f"{path.name}: tensors overlap or leave a gap at byte {min(start, end):,}")
        end = stop
    if end != data_bytes:
        raise SubmissionError(f"{path.name}: tensors of {end:,} bytes in {data_bytes:,} bytes of data")
    return header


def _tensor_span(entry: Any, where: str) -> tuple[int, int]:
    """Start and stop offset of a tensor, checked against its shape and dtype."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise SubmissionError(f"{where}: expected dtype, shape and data_offsets")
    shape, offsets, item = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(item, str) or item not in ITEM_BYTES:
        raise SubmissionError(f"{where}: dtype {sanitize(item)} is not read here")
    for numbers, max_length in ((shape, 8), (offsets, 2)):
        are_integers = isinstance(numbers, list) and len(numbers) <= max_length and all(type(n) is int for n in numbers)
        if not are_integers or any(not 0 <= n < 2**48 for n in numbers):
            raise SubmissionError(f"{where}: shape or offsets that are not whole numbers from 0")
    if len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * ITEM_BYTES[item]:
        raise SubmissionError(f"{where}: shape and offsets do not agree")
    return offsets[0], offsets[1]
