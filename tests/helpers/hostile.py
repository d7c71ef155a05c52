"""Hostile submissions: each is an honest one with one thing done to it, and the line that refuses it.

`CASES` maps a name to what is done to the folder and to what the message must say. Exit code 3 unless said otherwise.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

Deed = Callable[[Path], Any]
RECORD, SAMPLES, PROBES, DESCRIPTION = "record.json", "samples.jsonl.gz", "probes.data", "submission.yaml"


def write(name: str, content: str | bytes) -> Deed:
    """Put a file there."""
    whole = content.encode() if isinstance(content, str) else content

    def deed(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(whole)

    return deed


def append(name: str, content: str | bytes) -> Deed:
    """Add to the end of a file."""
    whole = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + whole)


def entry(place: str, value: Any, name: str = DESCRIPTION) -> Deed:
    """Set an entry of a YAML or JSON file; a dot leads inwards."""

    def deed(folder: Path) -> None:
        text = (folder / name).read_text()
        found = yaml.safe_load(text) if name == DESCRIPTION else json.loads(text)
        inner = found
        *way, last = place.split(".")
        for step in way:
            inner = inner[step]
        inner[last] = value
        (folder / name).write_text(yaml.safe_dump(found) if name == DESCRIPTION else json.dumps(found))

    return deed


def sample(change: Callable[[dict[str, Any]], Any], line: int = 0) -> Deed:
    """Change a line of the samples."""

    def deed(folder: Path) -> None:
        rows = gzip.decompress((folder / SAMPLES).read_bytes()).decode().splitlines()
        row = json.loads(rows[line])
        change(row)
        rows[line] = json.dumps(row)
        (folder / SAMPLES).write_bytes(gzip.compress("\n".join(rows).encode()))

    return deed


def lines(text: str) -> Deed:
    """Other samples altogether."""
    return write(SAMPLES, gzip.compress(text.encode()))


def link(name: str, target: str) -> Deed:
    """A symbolic link."""

    def deed(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return deed


def tensors(header: Any, data: bytes = b"", name: str = PROBES, length: int | None = None) -> Deed:
    """A safetensors file with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return write(name, struct.pack("<Q", len(text) if length is None else length) + text + data)


def one_tensor(dtype: str, shape: list[int], offsets: list[int], data: int) -> Deed:
    """A safetensors file of one tensor."""
    return tensors({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, bytes(data))


def other_probes(name: str, value: Any, dtype: Any = np.float32) -> Deed:
    """`probes.data` of the right form with one array filled with a value, or of another shape."""

    def deed(folder: Path) -> None:
        arrays = {}
        for source in ("model", "random-init", "recorder"):
            arrays[f"{source}.probe"] = np.ones((22, 12, 500), np.float32)
            arrays[f"{source}.totals"] = np.ones((10, 22, 12), np.float32)
            arrays[f"{source}.pool"] = np.zeros((10, 22, 12), np.int64)
        arrays[name] = np.full_like(arrays[name], value) if np.isscalar(value) else np.asarray(value, dtype)
        save_file(arrays, folder / PROBES)

    return deed


def many_files(folder: Path) -> None:
    (folder / "figures").mkdir(exist_ok=True)
    for i in range(101):
        (folder / "figures" / f"{i}.png").write_bytes(b"")


def svg(inside: str, before: str = "") -> Deed:
    """A figure with something in it."""
    return write("figures/a.svg", f'{before}<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>')


def as_text(old: str, new: str) -> Deed:
    """Replace text in the description."""
    return lambda folder: (folder / DESCRIPTION).write_text((folder / DESCRIPTION).read_text().replace(old, new, 1))


BOMB = gzip.compress(bytes(80_000_000), 9)
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
LAUGHS = '<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
GOOD_STATUS = json.dumps(
    {"schema_version": 1, "status": "reproduced", "reason": None, "checked": [], "audit": None, "files": "0" * 64,
     "rerun": {"share": 1.0, "shards": 1, "samples": 1, "processor": "x"}, "source": "0" * 64,
     "at": "2026-11-25T00:00:00+00:00"}
)  # fmt: skip

CASES: dict[str, tuple[Deed, str]] = {
    # The folder
    "link to a secret": (link("README.md", "/etc/passwd"), "'README.md': a link"),
    "link out of the folder": (link("record.json", "../../outside.json"), "'record.json': a link"),
    "link to nothing": (link("training.json", "nowhere"), "'training.json': a link"),
    "linked figures": (link("figures", "/tmp"), "'figures': a link"),
    "pipe": (lambda folder: os.mkfifo(folder / "training.json"), "'training.json': neither a file nor a folder"),
    "folder within": (lambda folder: (folder / "code").mkdir(), "'code': a folder"),
    "folder in the figures": (lambda folder: (folder / "figures" / "x").mkdir(parents=True), "'figures/x': a folder"),
    "pickle": (write("pytorch_model.bin", b"\x80\x04."), "'pytorch_model.bin': no file of a submission"),
    "pickle under another name": (write("model.safetensors", b"\x80\x04.more"), "no safetensors file"),
    "script": (write("modeling_x.py", "import os"), "'modeling_x.py': no file of a submission"),
    "hidden file": (write(".gitattributes", "* filter=x"), "'.gitattributes': no file of a submission"),
    "page": (write("index.html", "<script>"), "'index.html': no file of a submission"),
    "name that draws on the terminal": (write("a\x1b[2Jb", ""), r"'a\x1b[2Jb': no file of a submission"),
    "many files": (many_files, "more than 100 files"),
    "large file": (write("training.json", b" " * 2_000_001), "training.json: 2,000,001 bytes; at most 2,000,000"),
    "status brought along": (write("status.json", GOOD_STATUS), "status.json: only the verification writes it"),
    # The model
    "remote code": (write("config.json", '{"model_type": "x", "auto_map": {"AutoModel": "a--b.C"}}'), "auto_map: asks for code"),
    "remote code deep down": (
        write("tokenizer_config.json", '{"a": [{"auto_map": 1}]}'), "tokenizer_config.json: auto_map: asks for code"),
    "trusting": (write("generation_config.json", '{"trust_remote_code": true}'), "trust_remote_code: asks for code"),
    "kernel from a hub": (
        write("config.json", '{"model_type": "x", "_attn_implementation": "evil/kernel"}'), "'evil/kernel' would fetch code"),
    "configuration that is a list": (write("config.json", "[]"), "config.json: expected an object, got list"),
    "configuration of nothing": (write("config.json", "{}"), "config.json: no model_type"),
    "header longer than the file": (tensors({}, length=10**15), "its header would have 1,000,000,000,000,000 bytes"),
    "header of nesting": (tensors(b"[" * 5000 + b"]" * 5000), "nested deeper than"),
    "overlapping tensors": (
        tensors({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)), "tensors overlap"),
    "tensor that is not there": (one_tensor("F32", [10**6], [0, 4 * 10**6], 8), "tensors of 4,000,000 bytes in 8"),
    "tensor of negative size": (one_tensor("F32", [-1], [4, 0], 0), "not whole numbers from 0"),
    "tensor of another size": (one_tensor("F32", [2], [0, 4], 4), "shape and offsets do not agree"),
    "tensor of objects": (one_tensor("O", [1], [0, 8], 8), "dtype 'O' is not read here"),
    # submission.yaml
    "object": (append(DESCRIPTION, "url: !!python/object/apply:os.system [id]\n"), "tag 'tag:yaml.org,2002:python/object"),
    "laughs": (write(DESCRIPTION, "a: &a [x]\nb: &b [*a, *a]\n"), "anchor &'a'"),
    "alias": (write(DESCRIPTION, "a: *b\n"), "alias *'b'"),
    "nested": (write(DESCRIPTION, "a: " + "[" * 30_000), "submission.yaml: nested deeper than"),
    "two documents": (append(DESCRIPTION, "---\nname: other\n"), "more than one document"),
    "key twice": (append(DESCRIPTION, "name: other\n"), "key 'name' comes twice"),
    "merge": (append(DESCRIPTION, "<<: {name: other}\n"), "key '<<' is not a word"),
    "long description": (append(DESCRIPTION, "#" * 64_000), "at most 64,000 are read"),
    "no mapping": (write(DESCRIPTION, "- a\n"), "expected entries such as"),
    "bytes that are no text": (write(DESCRIPTION, b"name: \xff\n"), "byte 6 is not UTF-8"),
    "direction turned": (as_text("name: n-gram", "name: n\u202e-gram"), "character U+202E"),
    "invisible character": (as_text("symbolic", "sym\u200bbolic"), "character U+200B"),
    "escape sequence": (as_text("symbolic", '"\\e[31mred"'), "character U+001B"),
    "escaped direction": (as_text("symbolic", '"\\u202ered"'), "character U+202E at 0"),
    "huge number": (as_text("parameters: 0", "parameters: " + "9" * 5000), "a value that YAML cannot read"),
    "infinity": (as_text("seconds: 8", "seconds: .inf"), "evaluation.seconds"),
    "unknown entry": (entry("status", "validated"), "status: Extra inputs are not permitted"),
    "long name": (entry("name", "x" * 81), "name: String should match"),
    "path as a name": (entry("name", "../../x"), "name: String should match"),
    "script as a link": (entry("url", "javascript:alert(1)"), "url: String should match"),
    "moving revision": (entry("model", "hf:org/name@main"), "model: expected path:."),
    "path of one's own": (entry("model", "path:/root"), "model: expected path:."),
    "no licence": (entry("licence", "do what you like"), "licence: expected an SPDX expression"),
    "too many authors": (entry("authors", ["a"] * 51), "authors: List should have at most 50"),
    "left to fill in": (entry("family", "FILL IN"), "family: still says FILL IN"),
    "truth as text": (entry("training.alternative_semantics_seen", "no"), "alternative_semantics_seen: Input should be"),
    # record.json
    "nested record": (write(RECORD, "[" * 100_000), "record.json: nested deeper than"),
    "record of a deep list": (write(RECORD, "[" * 30 + "]" * 30), "record.json: nested deeper than 24"),
    "not a number": (write(RECORD, '{"a": NaN}'), "NaN is no number"),
    "endless digits": (write(RECORD, '{"a": ' + "9" * 5000 + "}"), "not JSON that is read here"),
    "record key twice": (write(RECORD, '{"a": 1, "a": 2}'), "comes twice"),
    "half a pair": (entry("model.name", "\ud800", RECORD), "half of a surrogate pair"),
    "direction in the record": (entry("model.name", "\u202e", RECORD), "character U+202E"),
    "suite from a path": (entry("suite.name", "../../etc/x.yaml", RECORD), "suite '../../etc/x.yaml' is not one of"),
    "suite of seconds": (entry("suite.name", "laptop.yaml", RECORD), "suite 'laptop.yaml' is not one of"),
    "endless bootstrap": (entry("protocol.resamples", 10**12, RECORD), "not measured by protocol v3 as it stands"),
    "unofficial": (entry("unofficial", ["--limit 5"], RECORD), "not an official run ('--limit 5')"),
    "figure elsewhere": (entry("figures", ["../../../etc/passwd"], RECORD), "figure '../../../etc/passwd' is not in"),
    "large record": (append(RECORD, b" " * 4_000_000), "at most 4,000,000 are read"),
    # samples.jsonl.gz
    "gzip bomb": (write(SAMPLES, BOMB), "unpacks to more than 64,000,000 bytes"),
    "half a gzip file": (lambda f: (f / SAMPLES).write_bytes((f / SAMPLES).read_bytes()[:-9]), "ends too early"),
    "behind the gzip file": (append(SAMPLES, b"more"), "4 bytes after the end of the gzip file"),
    "no gzip file": (write(SAMPLES, b"PK\x03\x04"), "not a gzip file"),
    "empty lines": (lines("{}\n" * 10), "line 1: stage: Field required"),
    "more lines than are read": (lines("\n" * 50_000 + "{}"), "more than 50,000 lines"),
    "long line": (lines('{"a": "' + "x" * 20_000 + '"}'), "at most 20,000 are read"),
    "line that is a list": (lines("[1]"), "line 1: expected an object, got list"),
    "nested line": (lines("[" * 19_000), "line 1: nested deeper than"),
    "long program": (sample(lambda row: row.update(text="x" * 10_001)), "text: String should have at most 10000"),
    "half a pair in a program": (sample(lambda row: row.update(text="\udfff")), "half of a surrogate pair"),
    "task as text": (sample(lambda row: row.update(task="0")), "line 1: task: Input should be a valid integer"),
    "stage of its own": (sample(lambda row: row.update(stage="train")), "stage: Input should be 'test', 'generated', "),
    # README.md and figures
    "direction in the text": (append("README.md", "\u2066"), "README.md: character U+2066"),
    "escape in the text": (append("README.md", "\x1b[2J"), "README.md: character U+001B"),
    "long text": (append("README.md", "x" * 200_000), "at most 200,000 are read"),
    "figure that runs": (svg("<script>alert(1)</script>"), "element 'script'"),
    "figure with a page": (svg("<foreignObject/>"), "element 'foreignObject'"),
    "figure that listens": (svg('<g onload="x()"/>'), "attribute 'onload'"),
    "figure that fetches": (svg('<image href="https://evil.example/x.png"/>'), "reference 'https://evil.example/x.png'"),
    "figure that runs a reference": (svg('<use href="javascript:alert(1)"/>'), "reference 'javascript:alert(1)'"),
    "figure that fetches a style": (svg("<style>@import 'x.css'</style>"), "style"),
    "figure of entities": (svg("<text>&b;</text>", LAUGHS), "a document type with declarations"),
    "figure with a stylesheet": (svg("", '<?xml-stylesheet href="x"?>'), "instruction 'xml-stylesheet'"),
    "figure that is none": (write("figures/a.svg", "hello"), "not an SVG file"),
    "figure of another kind": (write("figures/a.html", "x"), "expected .png or .svg"),
    "picture that is none": (write("figures/a.png", b"GIF89a"), "not a PNG file"),
    "picture of a gigapixel": (
        write("figures/a.png", PNG + struct.pack(">II", 10**6, 10**6) + bytes(20)), "1000000 by 1000000 pixels"),
}  # fmt: skip

WITH_PROBES: dict[str, tuple[Deed, str]] = {
    "probes that are a pickle": (write(PROBES, b"\x80\x04." + bytes(30)), "no safetensors file"),
    "array that is not expected": (
        lambda f: save_file({"model.probe": np.zeros(3, np.float32)}, f / PROBES), "is missing or not expected"),
    "array of another shape": (other_probes("model.probe", np.zeros((1, 1, 1))), "model.probe is F32 [1, 1, 1]"),
    "array of another kind": (
        other_probes("model.pool", np.zeros((10, 22, 12)), np.int32), "model.pool is I32 [10, 22, 12]"),
    "no number among the arrays": (other_probes("model.totals", np.nan), "model.totals has entries that are no cross"),
    "below what can be": (other_probes("recorder.probe", -1.0), "recorder.probe has entries that are no cross"),
    "view that there is not": (other_probes("model.pool", 10**9), "model.pool names a view that there is not"),
    "negative view": (other_probes("model.pool", -1), "model.pool names a view that there is not"),
    "large arrays": (append(PROBES, bytes(4_000_000)), "at most 4,000,000 are read"),
}  # fmt: skip
