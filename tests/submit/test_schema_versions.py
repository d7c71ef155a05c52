"""Files of another schema version: refused by what was received, before anything else in them is looked at."""

from __future__ import annotations

import json

import pytest

from benchmark.errors import BenchmarkError, SubmissionError
from benchmark.runner.record import read_record
from benchmark.submit.schema import Status, validate_schema
from benchmark.submit.sealed import Round


@pytest.mark.parametrize("version", [99, 0, -1, None, 4.5, "4"])
def test_a_record_of_an_unknown_version_is_refused_whatever_else_it_holds(version, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"schema_version": version, "an entry of later versions": 1}))
    with pytest.raises(
        BenchmarkError, match=r"schema_version: received .*; expected a whole number from 1 to \d"
    ) as raised:
        read_record(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("schema", "name"), [(Status, "status.json"), (Round, "round.yaml")])
def test_a_file_of_an_unknown_version_is_refused(schema, name):
    for version in (2, 0, True, "1", None):
        with pytest.raises(
            SubmissionError, match=rf"{name}: schema_version: received {version}; expected 1, what this"
        ):
            validate_schema(schema, {"schema_version": version}, name)
