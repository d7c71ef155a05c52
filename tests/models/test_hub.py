"""Models from a hub, with the real client over loopback: fetched, cached, resumed, pinned, refused, missing, offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import EXPIRED, TOKEN, HubServer, Repository, folder_files, serving
from huggingface_hub import constants, snapshot_download
from quick_protocol import SMALL_SUITE
from whole_runs import call

from benchmark.artifacts import INDEX_FILE
from benchmark.errors import ModelError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import LoadOptions, ModelSpec
from benchmark.runner.record import read_record
from benchmark.submit.audit import derive_audit_seed

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub with an empty cache, and no token."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def repository(hub: HubServer, tiny_folder: Path) -> Repository:
    """The tiny model, with two revisions and files that no one wants."""
    found = hub.repositories["org/tiny"] = Repository()
    files = folder_files(tiny_folder)
    extra = {"README.md": b"# tiny", "pytorch_model.bin": b"pickle", "code.py": b"x = 1", "onnx/config.json": b"{}"}
    extra |= {"consolidated.safetensors": files[WEIGHTS], "consolidated.safetensors.index.json": b"{}"}
    found.commit(changed(files), "step1000")
    found.commit(files | extra, "main", "v1")
    return found


def changed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same model with another last weight."""
    weights = files[WEIGHTS]
    return files | {WEIGHTS: weights[:-1] + bytes([weights[-1] ^ 1])}


def opened(text: str = "hf:org/tiny", **loading: bool):
    return open_checkpoint(ModelSpec.parse(text), LoadOptions(**loading))


def test_only_what_is_wanted_is_fetched_and_once(hub, repository, tiny_folder):
    found = opened()
    assert found.spec == f"hf:org/tiny@{repository.refs['main']}"
    assert found.digest == opened(f"path:{tiny_folder}").digest
    fetched = hub.got()
    assert fetched.count(WEIGHTS) == 1
    assert not {"README.md", "pytorch_model.bin", "code.py", "consolidated.safetensors"} & set(fetched)
    assert fetched.count("config.json") == 1
    hub.requests.clear()
    assert opened() == found
    assert hub.got() == []
    assert hub.requests


def test_what_another_program_has_fetched_besides_is_not_the_model(hub, repository):
    found = opened()
    snapshot_download("org/tiny", endpoint=hub.endpoint)
    assert (found.folder / "consolidated.safetensors").is_file()
    assert opened() == found


def test_a_broken_download_goes_on_where_it_broke(hub, repository, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    content = repository.commits[repository.refs["main"]][WEIGHTS]
    hub.broken[WEIGHTS] = False
    found = opened()
    first, again = [asked.range for asked in hub.requests if asked.method == "GET" and asked.file == WEIGHTS]
    assert first is None
    start = int(str(again).removeprefix("bytes=").removesuffix("-"))
    assert len(content) // 2 - 1000 <= start <= len(content) // 2
    assert (found.folder / WEIGHTS).read_bytes() == content


def test_after_a_failed_download_only_what_is_missing_is_fetched(hub, repository):
    hub.broken[WEIGHTS] = True
    with pytest.raises(ModelError, match=r"interrupted.*same command again") as caught:
        opened()
    assert "\n" not in str(caught.value)
    assert len(hub.got()) > 2
    hub.broken.clear()
    hub.requests.clear()
    found = opened()
    assert hub.got() == [WEIGHTS]
    assert (found.folder / WEIGHTS).read_bytes() == repository.commits[repository.refs["main"]][WEIGHTS]


def test_revisions_are_pinned_to_commits(hub, repository):
    main, early = repository.refs["main"], repository.refs["step1000"]
    one, two = opened("hf:org/tiny@v1"), opened("hf:org/tiny@step1000")
    assert (one.spec, two.spec) == (f"hf:org/tiny@{main}", f"hf:org/tiny@{early}")
    assert (one.name, two.name) == ("org/tiny@v1", "org/tiny@step1000")
    assert one.digest != two.digest
    assert opened(two.spec).digest == two.digest
    repository.commit(changed(repository.commits[main]), "v1")
    moved = opened("hf:org/tiny@v1")
    assert moved.spec != one.spec
    assert moved.digest == two.digest
    assert opened(one.spec).digest == one.digest


def test_the_code_of_a_model_is_fetched_and_digested_only_when_trusted(hub, repository):
    plain = opened()
    trusted = opened(remote_code=True)
    assert hub.got().count("code.py") == 1
    assert trusted.digest != plain.digest


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hf:org/absent", "no such model on the hub, or a private one"),
        ("hf:org/tiny@step9", "no revision step9"),
        ("hf:org/tiny@0123456789abcdef0123456789abcdef01234567", "no revision 0123456789"),
        ("hf:org/gated", "gated; accept its terms .* HF_TOKEN"),
        ("hf:org/pickled", r"only as pytorch_model\.bin, a format that can run code"),
        ("hf:org/empty", r"no \*\.safetensors weights"),
        ("hf:org/sharded", r"model-2\.safetensors is missing, one of 1 missing of the 2 shards"),
        ("hf:org/-bad-", "not a valid hub name"),
    ],
)
def test_each_refusal_has_its_line(hub, repository, tiny_folder, spec, said):
    files = folder_files(tiny_folder)
    gated = hub.repositories["org/gated"] = Repository(gated=True)
    gated.commit(files, "main")
    weights = files.pop(WEIGHTS)
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    for name, more in (
        ("pickled", {"pytorch_model.bin": b"pickle"}),
        ("empty", {"README.md": b""}),
        ("sharded", {"model-1.safetensors": weights, INDEX_FILE: index}),
    ):
        hub.repositories[f"org/{name}"] = Repository()
        hub.repositories[f"org/{name}"].commit(files | more, "main")
    with pytest.raises(ModelError, match=said) as caught:
        opened(spec)
    assert "\n" not in str(caught.value)
    assert "pytorch_model.bin" not in hub.got()


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("hf_someone_else", "gated; accept its terms"),
        (EXPIRED, "the hub refuses the access token; renew it"),
    ],
)
def test_a_gated_model_opens_with_the_right_token_only(hub, tiny_folder, monkeypatch, token, said):
    hub.repositories["org/gated"] = Repository(gated=True)
    hub.repositories["org/gated"].commit(folder_files(tiny_folder), "main")
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError, match=said):
        opened("hf:org/gated")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert opened("hf:org/gated").parameters > 0


def test_offline_what_is_cached_is_enough_and_what_is_not_is_said(hub, repository, monkeypatch):
    found = opened("hf:org/tiny@v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert opened("hf:org/tiny@v1") == found
    assert opened(found.spec).digest == found.digest
    with pytest.raises(ModelError, match="incomplete in the local hub cache, and HF_HUB_OFFLINE is set"):
        opened("hf:org/tiny@step1000")
    assert hub.requests == []


def test_a_hub_that_is_not_there(hub, repository, monkeypatch):
    found = opened()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert opened() == found
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        opened("hf:org/other")


@pytest.mark.usefixtures("quick")
def test_a_series_is_run_one_revision_after_the_other(hub, repository, tmp_path, capsys):
    words = ("--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path / "runs", "--json")
    assert call("--model", "hf:org/tiny@{step1000,step9,main}", *words) == 3
    printed = capsys.readouterr()
    assert "no revision step9" in printed.err
    names = [json.loads(line)["row"]["model"] for line in printed.out.splitlines()]
    assert names == ["org/tiny@step1000", "org/tiny@main"]
    records = [read_record(path) for path in sorted((tmp_path / "runs").glob("*/record.json"))]
    assert sorted(record.model.spec for record in records) == sorted(
        f"hf:org/tiny@{repository.refs[name]}" for name in ("main", "step1000")
    )


@pytest.mark.usefixtures("quick")
def test_each_revision_is_audited_on_tasks_of_its_own(hub, repository, tmp_path, capsys):
    words = ("--suite", "smoke", "--limit", 2, "--no-states", "--audit", "--out", tmp_path / "runs")
    assert call("--model", "hf:org/tiny@{step1000,main}", *words) == 0
    found = [read_record(path) for path in (tmp_path / "runs").glob("*/record.json")]
    assert len(found) == 2
    for record in found:
        assert record.suite.seed == derive_audit_seed(record.model.digest, "smoke")


OPENING = """
import sys
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
print(open_checkpoint(ModelSpec.parse("hf:org/tiny@v1")).spec)
print(*sorted({"torch", "transformers"} & sys.modules.keys()))
"""


def test_a_process_takes_the_clients_settings(repository, hub, tmp_path):
    """The client reads them when it is imported; what opens a model needs neither torch nor transformers for it."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint}
    opening = subprocess.run(
        [sys.executable, "-c", OPENING], env=environment, capture_output=True, text=True, check=False
    )
    assert opening.returncode == 0, opening.stderr
    assert opening.stdout.split("\n") == [f"hf:org/tiny@{repository.refs['v1']}", "", ""]
    assert (tmp_path / "home" / "hub" / "models--org--tiny").is_dir()


@pytest.mark.slow
def test_the_command_takes_the_clients_settings(repository, hub, tmp_path):
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint}
    words = ["--model", "hf:org/tiny@v1", "--suite", "smoke", "--limit", "4", "--no-states", "--workers", "0"]
    command = [sys.executable, "-m", "benchmark.run", *words, "--out", str(tmp_path / "runs"), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["record"]["model"]["spec"] == f"hf:org/tiny@{repository.refs['v1']}"
    assert (tmp_path / "home" / "hub" / "models--org--tiny").is_dir()


@pytest.mark.usefixtures("quick")
def test_a_whole_run_from_a_branch(hub, repository, tmp_path):
    assert call("--model", "hf:org/tiny@v1", "--suite", SMALL_SUITE, "--out", tmp_path / "runs") == 0
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = read_record(path)
    assert record.model.spec == f"hf:org/tiny@{repository.refs['v1']}"
    assert record.model.name == "org/tiny@v1"
    assert record.meaning is not None
