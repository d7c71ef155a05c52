"""A commitment binds: only its own salt and seed open it, and the secret stays out of the repository."""

from __future__ import annotations

import hashlib
import json
import stat

import pytest
import yaml

from benchmark.installation.paths import SOURCE_ROOT
from benchmark.submit.sealed import main, read_round
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as drawn


@pytest.fixture
def sealed(tmp_path):
    """(folder, secret file) of a round `one`."""
    folder, secret = tmp_path / "repository" / "sealed", tmp_path / "secret.json"
    folder.parent.mkdir()
    assert main(["--folder", str(folder), "make", "one", "--suite", "smoke", "--secret", str(secret)]) == 0
    return folder, secret


def test_the_commitment_is_the_hash_of_salt_and_seed_and_tells_neither(sealed):
    folder, secret = sealed
    output = json.loads(secret.read_text())
    text = (folder / "one.yaml").read_text()
    expected = hashlib.sha256(bytes.fromhex(output["salt"]) + str(output["seed"]).encode()).hexdigest()
    assert read_round(folder, "one").commitment == expected
    assert output["salt"] not in text
    assert str(output["seed"]) not in text
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_its_seed_draws_other_tasks(sealed, capsys):
    folder, secret = sealed
    capsys.readouterr()
    assert main(["--folder", str(folder), "seed", "one", "--secret", str(secret)]) == 0
    suite = load_suite("smoke", int(capsys.readouterr().out))
    assert not suite.official
    public = {key.tobytes() for key in drawn(load_suite("smoke")).key}
    assert sum(key.tobytes() in public for key in drawn(suite).key) < len(public) / 4


def test_only_the_secret_opens_it(sealed, tmp_path, capsys):
    folder, secret = sealed
    output = json.loads(secret.read_text())
    other_secret = tmp_path / "other.json"
    other_secret.write_text(json.dumps(output | {"seed": output["seed"] ^ 1}))
    for command in ("seed", "reveal"):
        assert main(["--folder", str(folder), command, "one", "--secret", str(other_secret)]) == 4
    assert "its commitment is another" in capsys.readouterr().err
    assert read_round(folder, "one").revealed is None


def test_a_reveal_can_be_checked_and_a_false_one_is_found(sealed, capsys):
    folder, secret = sealed
    words = ["--folder", str(folder)]
    assert main([*words, "check"]) == 0
    assert "sealed" in capsys.readouterr().out
    assert main([*words, "rotate", "one", "two", "--secret", str(secret), "--next", str(secret.with_name("next"))]) == 0
    assert main([*words, "check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "one: smoke v2" in lines[-2]
    assert f"--seed {json.loads(secret.read_text())['seed']}" in lines[-2]
    assert lines[-1].endswith("sealed")
    altered = yaml.safe_load((folder / "one.yaml").read_text())
    altered["revealed"]["seed"] ^= 1
    (folder / "one.yaml").write_text(yaml.safe_dump(altered))
    assert main([*words, "check"]) == 4


def test_a_secret_is_not_kept_in_the_repository(tmp_path, capsys):
    folder = tmp_path / "sealed"
    for secret in (tmp_path / "secret.json", SOURCE_ROOT / "secret.json"):
        assert main(["--folder", str(folder), "make", "one", "--secret", str(secret)]) == 2
        assert not secret.exists()
    assert not folder.exists()
    assert "keep it elsewhere" in capsys.readouterr().err


def test_nothing_is_overwritten(sealed):
    folder, secret = sealed
    before = secret.read_bytes()
    for name in ("one", "two"):
        assert main(["--folder", str(folder), "make", name, "--secret", str(secret)]) == 2
    assert secret.read_bytes() == before
    assert main(["--folder", str(folder), "make", "../x", "--secret", str(secret.with_name("x"))]) == 2
