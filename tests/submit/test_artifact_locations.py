"""Which addresses and entries of `artifacts` a submission may list, and which mirrors a user may name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.artifacts import MAX_BYTES, MAX_FOLDER_BYTES
from benchmark.errors import SubmissionError, UsageError
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.submit.artifacts.locations import check_location, check_mirror, join_location, web_address
from benchmark.submit.artifacts.sources import Sources, environment_mirrors

DIGEST = "7" * 64
ACCEPTED = [
    "https://example.org/a/b.data", "https://example.org:8443/x?download=1", "https://example.org/a%20b",
    "https://[2001:db8::1]/x", "hf:org/name/probes.data@main", "hf:org/name/sub/folder/x.data@" + "0" * 40,
    "hf:datasets/org/name/x.data@v1.0", "hf:org/na.me_-1/x@refs/pr/1", "probes.data", "figures/features.png", "a/b/c.data",
]  # fmt: skip
REFUSED = [
    "", "http://example.org/x", "HTTP://example.org/x", "http://127.0.0.1/x", "http://localhost/x", "file:///etc/passwd",
    "file:x", "ftp://example.org/x", "data:text/plain,x", "javascript:x", "ssh://example.org/x", "git+https://example.org/x",
    "/etc/passwd", "//example.org/x", "../x", "a/../x", "a/./x", "./x", "a//b", "a/", "~/x", "-x", ".hidden", "a\\b", "C:x", "C:/x",
    "a b", "a\nb", "a\0b", "https://", "https:///x", "https:example.org/x", "https:/example.org/x", "https://user@example.org/x",
    "https://user:word@example.org/x", "https://example.org/x#part", "https://example.org/a/../b", "https://example.org/%2e%2e/b",
    "https://example.org/a\\b", "https://exa mple.org/x", "https://example.org:0/x", "https://example.org:99999/x",
    "https://example.org:x/x", "https://ex\u00e4mple.org/x", "https://-/x", "https://[::1/x", "https://example.org/\u202ex",
    "hf:org/name@main", "hf:org/name/x", "hf:org/x@main", "hf:org/name/x@", "hf:org/name/../x@main", "hf:../name/x@main",
    "hf:org/name/x@../main", "hf:org/name/x@a@b", "hf:org/name/x@main?y", "hf:org/na me/x@main", "hf:/org/name/x@main",
    "hf:org//x@main", "hf:datasets/org/name@main", "hf://org/name/x@main", "HF:org/name/x@main", "s3://bucket/x",
    "https://example.org/" + "x" * 500, "/".join("abcdefghi"),
]  # fmt: skip


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted_addresses(text):
    assert check_location(text) == text


@pytest.mark.parametrize("text", REFUSED)
def test_refused_addresses(text):
    with pytest.raises(ValueError, match="expected https://HOST/PATH, hf:org/name/FILE@REVISION, or a path"):
        check_location(text)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/x", "http://localhost/x", "http://[::1]:80/x"])
def test_plain_http_on_loopback_needs_the_setting(url, monkeypatch):
    with pytest.raises(ValueError, match="is not https"):
        check_location(url)
    monkeypatch.setenv("KAREL_BENCH_LOOPBACK_HTTP", "1")
    assert check_location(url) == url
    for other in (
        "http://example.org/x",
        "http://127.0.0.1.example.org/x",
        "http://10.0.0.1/x",
        "http://localhost@example.org/",
    ):
        with pytest.raises(ValueError, match=r"is not https|has a user name"):
            check_location(other)


def test_addresses_of_the_hub(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    commit = "0" * 40
    assert web_address(f"hf:org/name/a/b@{commit}").url == f"https://huggingface.co/org/name/resolve/{commit}/a/b"
    assert web_address("hf:datasets/org/name/b@refs/pr/1").url == (
        "https://huggingface.co/datasets/org/name/resolve/refs%2Fpr%2F1/b"
    )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    assert web_address("hf:org/name/b@main").url == "http://127.0.0.1:9/org/name/resolve/main/b"
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")
    assert check_location("hf:org/name/b@main"), "what a submission may list does not depend on the user's endpoint"
    with pytest.raises(ValueError, match="is not https"):
        web_address("hf:org/name/b@main")


def test_a_file_below_a_mirror():
    assert join_location("https://example.org/a/", DIGEST) == f"https://example.org/a/{DIGEST}"
    assert join_location("hf:org/name@main", DIGEST) == f"hf:org/name/{DIGEST}@main"
    assert join_location("hf:datasets/org/name/sub@main", "x/y") == "hf:datasets/org/name/sub/x/y@main"


def test_mirrors_that_a_user_names(tmp_path, monkeypatch):
    for mirror in (str(tmp_path), "https://example.org/a", "https://10.0.0.1/a", "hf:org/name@main"):
        assert check_mirror(mirror) == mirror
    for mirror in (str(tmp_path / "none"), "http://example.org", "ftp://example.org", "hf:org/name", "file:///tmp"):
        with pytest.raises(UsageError, match="give a folder of artifacts, https://HOST/PATH or hf:org/name@REVISION"):
            check_mirror(mirror)
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", f" {tmp_path} ; https://example.org/a;")
    assert environment_mirrors() == (str(tmp_path), "https://example.org/a")
    assert Sources.of_user(["hf:org/name@v1"]).mirrors == ("hf:org/name@v1", str(tmp_path), "https://example.org/a")
    assert Sources.of_machine() == Sources((str(tmp_path),))
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"^KAREL_BENCH_ARTIFACTS: .*no such folder"):
        environment_mirrors()


def listing(folder: Path, **entries: object) -> Path:
    (folder / "submission.yaml").write_text(json.dumps({"artifacts": entries}))
    return folder


def test_names_sizes_and_digests(tmp_path):
    entry = {"sha256": DIGEST, "size": 5}
    names = ["probes.data", "model.safetensors", "model-00001-of-00002.safetensors", "figures/a.svg", "tokenizer.json"]
    assert list(listed_artifacts(listing(tmp_path, **dict.fromkeys(names, entry)))) == names
    for name in (
        "record.json", "submission.yaml", "status.json", "README.md", "config.json", "uses.json", "frame.json", "../probes.data",
        "figures/../probes.data", "figures/a.py", "figures/.png", "x/probes.data", "/probes.data", "probes.data/", "run.py", "",
    ):  # fmt: skip
        with pytest.raises(SubmissionError, match=r"is no artifact; expected weights, samples, evidence"):
            listed_artifacts(listing(tmp_path, **{name: entry}))
    limit = MAX_BYTES["probes.data"]
    for fault in (
        {"size": 0}, {"size": -1}, {"size": limit + 1}, {"size": 10**15}, {"size": "5"}, {"size": 5.0}, {"size": True}, {"size": None},
        {"sha256": "7" * 63}, {"sha256": "7" * 65}, {"sha256": "A" * 64}, {"sha256": "g" * 64}, {"sha256": DIGEST + "\n"}, {"sha256": 7},
        {"urls": "https://example.org/x"}, {"urls": ["https://example.org/x"] * 51}, {"urls": [1]}, {"urls": [None]},
        {"urls": ["http://example.org/x"]}, {"mode": "0755"},
    ):  # fmt: skip
        with pytest.raises(SubmissionError, match=r"^submission.yaml: artifacts[.:]") as refusal:
            listed_artifacts(listing(tmp_path, **{"probes.data": entry | fault}))
        assert "\n" not in str(refusal.value)
    half = {"sha256": DIGEST, "size": MAX_FOLDER_BYTES // 2 + 1}
    two = {"model-00001-of-00002.safetensors": half, "model-00002-of-00002.safetensors": half}
    with pytest.raises(SubmissionError, match="bytes in all; at most 64,000,000"):
        listed_artifacts(listing(tmp_path, **two))
    for text in (
        "artifacts: []",
        "artifacts: x",
        "artifacts: [probes.data]",
        "artifacts: {probes.data: x}",
        "artifacts: null",
    ):
        (tmp_path / "submission.yaml").write_text(text)
        with pytest.raises(SubmissionError, match=r"^submission.yaml: artifacts"):
            listed_artifacts(tmp_path)


def test_a_folder_without_a_listing_has_no_artifacts(tmp_path):
    assert listed_artifacts(tmp_path) == {}
    (tmp_path / "submission.yaml").write_text("name: artifacts of a row\n")
    assert listed_artifacts(tmp_path) == {}
