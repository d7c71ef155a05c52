"""Every hostile submission is refused with its own line, and no reader is brought down by any bytes."""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import CASES, GOOD_STATUS, WITH_PROBES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.errors import BenchmarkError, SubmissionError
from benchmark.files import gunzip_bounded, read_json, read_rows, read_tensor_header, read_yaml
from benchmark.submit.check_record import read_submitted_record
from benchmark.submit.check_samples import read_samples
from benchmark.submit.command import main
from benchmark.submit.schema import read_status, read_submission
from benchmark.submit.verify import verify

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
HONEST, WITH_STATES = "2026-11-25_n-gram", "2026-11-26_gpt-large-laptop"
SECONDS = 5
"""Of the processor, not of a clock: another process may keep this one waiting."""


@pytest.fixture(scope="module")
def drawn():
    """The tasks of the suite are drawn once, so that times are those of the readers."""
    for name in (HONEST, WITH_STATES):
        assert not verify(SUBMISSIONS / name).mismatches


def refused(folder, capsys, says):
    began = time.process_time()
    assert main(["verify", str(folder), "--incoming"]) == 3
    assert time.process_time() - began < SECONDS
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.isascii()
    assert err[:-1].isprintable()
    assert says in err


@pytest.mark.parametrize("name", CASES)
def test_hostile_submissions_are_refused(name, tmp_path, capsys, drawn):
    folder = tmp_path / HONEST
    shutil.copytree(SUBMISSIONS / HONEST, folder, ignore=shutil.ignore_patterns("status.json"))
    attack, says = CASES[name]
    attack(folder)
    refused(folder, capsys, says)


@pytest.mark.parametrize("name", WITH_PROBES)
def test_hostile_arrays_are_refused(name, tmp_path, capsys, drawn):
    folder = tmp_path / WITH_STATES
    shutil.copytree(SUBMISSIONS / WITH_STATES, folder, ignore=shutil.ignore_patterns("status.json"))
    attack, says = WITH_PROBES[name]
    attack(folder)
    refused(folder, capsys, says)


def test_each_has_a_line_of_its_own():
    assert len(CASES) + len(WITH_PROBES) >= 40
    assert len({says for _, says in CASES.values()}) >= 40


READERS = {
    "submission.yaml": read_submission,
    "record.json": read_submitted_record,
    "samples.jsonl.gz": read_samples,
    "probes.data": lambda folder: read_tensor_header(folder / "probes.data"),
    "status.json": read_status,
}


def valid(name: str) -> bytes:
    """The content that the fuzzing starts from; of the samples what is packed, cut short."""
    if name == "status.json":
        return GOOD_STATUS.encode()
    source = WITH_STATES if name == "probes.data" else HONEST
    content = (SUBMISSIONS / source / name).read_bytes()
    if name == "samples.jsonl.gz":
        return b"\n".join(gunzip_bounded(content, name).split(b"\n")[:20])
    return content


def survives(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    began = time.process_time()
    assert "\n" not in said_by(lambda: READERS[name](folder))
    assert time.process_time() - began < SECONDS


def said_by(read: Callable[[], object]) -> str:
    """What a reader says in refusing; any other exception is raised."""
    try:
        read()
    except BenchmarkError as error:
        return str(error)
    return ""


FUZZED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"[", b"{", b'"', b"\\ud800", b"9" * 400, b"1e999", b"null", b"-", b": ", b"&a ", b"*a", b"!!x ",
                     b"\n- ", b"? ", b"<<: ", b"\x00", b"\xff", b"2026-99-99", b"1:1:1", b"0x", b"~", b"|\n", b"%YAML 9",
                     b"true", b".nan", b"[]", b"{}", b"99999999999999999999"]),
)  # fmt: skip
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), PIECES), min_size=1, max_size=4)


def edited(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for where, removed, put in edits:
        at = int(where * len(content))
        content = content[:at] + put + content[at + removed :]
    return content


@pytest.mark.parametrize("name", READERS)
@FUZZED
@given(content=st.binary(max_size=300))
def test_no_bytes_bring_a_reader_down(name, content, tmp_path):
    survives(tmp_path, name, content)


@pytest.mark.parametrize("name", READERS)
@FUZZED
@given(edits=EDITS)
def test_no_edit_brings_a_reader_down(name, edits, tmp_path):
    content = edited(valid(name), edits)
    survives(tmp_path, name, gzip.compress(content) if name == "samples.jsonl.gz" else content)


@FUZZED
@given(edits=EDITS)
def test_no_edit_of_the_packed_bytes_brings_the_unpacking_down(edits, tmp_path):
    survives(tmp_path, "samples.jsonl.gz", edited(gzip.compress(valid("samples.jsonl.gz")), edits))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@FUZZED
@given(value=JSON, variant=st.lists(st.integers(0, 30), min_size=1, max_size=4))
@pytest.mark.parametrize("name", ["record.json", "status.json"])
def test_no_value_in_the_place_of_another_brings_a_reader_down(name, value, variant, tmp_path):
    content = json.loads(valid(name))
    inner = content
    for step in variant[:-1]:
        key = sorted(inner)[step % len(inner)]
        if not isinstance(inner[key], dict) or not inner[key]:
            break
        inner = inner[key]
    inner[sorted(inner)[variant[-1] % len(inner)]] = value
    survives(tmp_path, name, json.dumps(content).encode())


@FUZZED
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"%@#,?~ \n01.", max_size=60))
def test_no_punctuation_brings_the_yaml_reader_down(text, tmp_path):
    path = tmp_path / "submission.yaml"
    path.write_text(text)
    assert "\n" not in said_by(lambda: read_yaml(path))


@pytest.mark.parametrize("read", [read_yaml, read_json, lambda path: read_rows(path, 10), read_tensor_header])
def test_what_is_no_plain_file_is_refused(read, tmp_path):
    (tmp_path / "target").write_text("{}")
    (tmp_path / "link").symlink_to("target")
    for name in ("link", "not there", "."):
        with pytest.raises(SubmissionError):
            read(tmp_path / name)
