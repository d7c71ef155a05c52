"""Artifacts from folders, http and the hub: size and SHA-256 before use, any mirror, a cache that many processes share."""

from __future__ import annotations

import hashlib
import os
import stat
from multiprocessing import get_context
from pathlib import Path

import pytest
from file_server import FileServer, cut, redirect, serving_files
from hub_server import TOKEN, Repository, serving

from benchmark.errors import SubmissionError
from benchmark.submit.artifacts import cache, download, sources
from benchmark.submit.artifacts.listing import Artifact
from benchmark.submit.artifacts.sources import Sources, find_file, format_missing, missing_files, obtain

NAME, CONTENT = "probes.data", bytes(range(256)) * 700
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FETCHING = Sources(is_fetching=True)


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """A cache of the test's own, loopback accepted, no mirror and no proxy of the machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KAREL_BENCH_LOOPBACK_HTTP", "1")
    for name in ("KAREL_BENCH_ARTIFACTS", "KAREL_BENCH_ARTIFACT_BYTES", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache, "_session_folders", [])


@pytest.fixture
def server():
    with serving_files() as files:
        yield files


@pytest.fixture
def row(tmp_path) -> Path:
    """A folder that lists one artifact without an address."""
    folder = tmp_path / "2026-11-25_row"
    folder.mkdir()
    (folder / "submission.yaml").write_text(f"artifacts: {{{NAME}: {{sha256: {DIGEST}, size: {len(CONTENT)}}}}}\n")
    return folder


def listed(*urls: str, content: bytes = CONTENT) -> dict[str, Artifact]:
    return {NAME: Artifact(sha256=hashlib.sha256(content).hexdigest(), size=len(content), urls=list(urls))}


def cached_files() -> list[Path]:
    return [path for path in cache.cache_folder().rglob("*") if path.is_file()]


def reason(row: Path, *urls: str, places: Sources = FETCHING) -> str:
    """Why the artifact cannot be had; nothing of it is left in the cache."""
    text = obtain(row, listed(*urls), places)[NAME]
    assert cached_files() == []
    assert not find_file(row, NAME).exists()
    assert "\n" not in text
    return text


def test_nothing_is_requested_unless_it_is_asked_for(row, server):
    server.files["/x"] = CONTENT
    assert "not fetched" in reason(row, f"{server.url}/x", places=Sources())
    assert server.requests == []
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}
    assert find_file(row, NAME).read_bytes() == CONTENT
    assert find_file(row, NAME).name == NAME
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}
    assert server.requests == ["/x"], "the second time it is in the cache"
    assert [path.relative_to(cache.cache_folder()).as_posix() for path in cached_files()] == [f"{DIGEST}/{NAME}"]


def longer(handler):
    handler.send(200, CONTENT + b"x")


ANSWERS = {
    "missing": (lambda handler: handler.send(404, b""), "status 404", 1),
    "forbidden": (lambda handler: handler.send(403, CONTENT), "status 403", 1),
    "out of order": (lambda handler: handler.send(503, b""), "status 503", 2),
    "truncated": (cut(CONTENT, 100_000), "ended after 100,000 of 179,200 bytes", 2),
    "cut off at once": (cut(CONTENT, 0), "ended after 0 of 179,200 bytes", 2),
    "shorter": (lambda handler: handler.send(200, CONTENT[:-1]), "179,199 bytes, not 179,200", 1),
    "longer": (longer, "179,201 bytes, not 179,200", 1),
    "endless": (lambda handler: handler.send_unbounded(b"x" * 65536, 100_000), "more than 179,200 bytes", 1),
    "no length, shorter": (lambda handler: handler.send_unbounded(CONTENT[:-1], 1), "ended after 179,199", 2),
    "other bytes": (lambda handler: handler.send(200, CONTENT[::-1]), "another SHA-256", 1),
    "to a file": (redirect("file:///etc/passwd"), "status 302", 1),
    "to ftp": (redirect("ftp://127.0.0.1/x"), "redirected to", 1),
    "to plain http elsewhere": (redirect("http://example.org/x"), "redirected to", 1),
    "in a circle": (redirect("/x"), "status 302", None),
    "no answer": (lambda handler: setattr(handler, "close_connection", True), "RemoteDisconnected", 2),
    "no http": (lambda handler: handler.wfile.write(b"junk\r\n\r\n"), "BadStatusLine", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_not_the_artifact(name, row, server):
    answer, message, num_requests = ANSWERS[name]
    server.answers["/x"] = answer
    assert message in reason(row, f"{server.url}/x")
    assert num_requests is None or len(server.requests) == num_requests
    server.files["/y"] = CONTENT
    assert obtain(row, listed(f"{server.url}/x", f"{server.url}/y"), FETCHING) == {}, "the next address has it"


def test_a_redirect_on_loopback_is_followed(row, server):
    server.answers["/x"] = redirect("/y")
    server.files["/y"] = CONTENT
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}


def test_a_host_without_connection_is_tried_once_a_row(row, monkeypatch):
    with serving_files() as server:
        url = server.url
    calls = []
    read_web = download.read_web
    monkeypatch.setattr(download, "read_web", lambda *arguments: calls.append(arguments[0].url) or read_web(*arguments))
    other = {"rotation.data": listed(f"{url}/z")[NAME]}
    missing = obtain(row, listed(f"{url}/x", f"{url}/y") | other, FETCHING)
    assert calls == [f"{url}/x"]
    assert missing.keys() == {NAME, "rotation.data"}
    assert all("no connection (" in text for text in missing.values())


def test_every_missing_artifact_is_named_in_one_line():
    missing = {f"figures/{i}.png": f"reason {i}" for i in range(9)} | {NAME: "reason 0"}
    text = format_missing(missing)
    assert all(name in text for name in missing)
    assert text.endswith("could not be had (reason 0; reason 1; reason 2; and 6 more reasons)")


def test_a_slow_answer_ends(row, server, monkeypatch):
    monkeypatch.setattr(download, "START_SECONDS", -1e9)
    server.files["/x"] = CONTENT
    assert "slower than a download may be" in reason(row, f"{server.url}/x")


def test_a_submission_leads_to_no_address_inside_a_network(monkeypatch):
    """The connection is checked, so that a name that leads inside is refused like an address."""

    class Socket:
        def __init__(self, peer):
            self.peer = peer

        def getpeername(self):
            return (self.peer, 443)

        def close(self):
            self.peer = "closed"

    for peer, is_refused in (
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("93.184.215.14", False),
    ):
        connection = download._PublicConnection("example.org")
        monkeypatch.setattr(
            download.http.client.HTTPSConnection, "connect", lambda self, peer=peer: setattr(self, "sock", Socket(peer))
        )
        if is_refused:
            with pytest.raises(cache.UnavailableError, match="is no public address"):
                connection.connect()
            assert connection.sock is None
        else:
            connection.connect()


def test_an_address_of_a_submission_on_loopback_is_refused_before_a_request(row, server, monkeypatch):
    monkeypatch.delenv("KAREL_BENCH_LOOPBACK_HTTP")
    artifacts = {NAME: listed()[NAME].model_copy(update={"urls": [f"{server.url}/x"]})}
    assert "is not https" in obtain(row, artifacts, FETCHING)[NAME]
    assert server.requests == []


@pytest.mark.parametrize("form", ["digest", "row", "name", "listed path"])
def test_a_folder_as_a_mirror(form, row, tmp_path):
    mirror = tmp_path / "mirror"
    path = mirror / {"digest": DIGEST, "row": f"{row.name}/{NAME}", "name": NAME, "listed path": "a/b.data"}[form]
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert obtain(row, listed("a/b.data"), Sources((str(mirror),))) == {}
    assert find_file(row, NAME).read_bytes() == CONTENT


def test_an_address_as_a_mirror(row, server):
    server.files[f"/m/{DIGEST}"] = CONTENT
    assert obtain(row, listed(), Sources((f"{server.url}/m/",))) == {}
    assert server.requests == [f"/m/{DIGEST}"]


def test_a_mirror_in_the_environment(row, tmp_path, server, monkeypatch):
    """A folder is read by every command; an address only where the network may be used."""
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", server.url)
    server.files[f"/{DIGEST}"] = CONTENT
    assert missing_files(row) == [NAME]
    assert server.requests == []
    (tmp_path / DIGEST).write_bytes(CONTENT)
    monkeypatch.setenv("KAREL_BENCH_ARTIFACTS", f"{server.url};{tmp_path}")
    assert missing_files(row) == []
    assert server.requests == []


def test_a_damaged_mirror_and_a_good_one(row, tmp_path, server):
    damaged, good = tmp_path / "damaged", tmp_path / "good"
    for folder, content in ((damaged, CONTENT[:-1] + b"x"), (good, CONTENT)):
        folder.mkdir()
        (folder / DIGEST).write_bytes(content)
    assert "another SHA-256" in reason(row, places=Sources((str(damaged),)))
    assert obtain(row, listed(), Sources((str(damaged), str(good)))) == {}


def test_links_and_other_entries_are_not_followed(row, tmp_path):
    mirror = tmp_path / "mirror"
    (mirror / "inner").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(CONTENT)
    (mirror / DIGEST).symlink_to(tmp_path / "outside")
    assert "cannot be opened as a plain file" in reason(row, places=Sources((str(mirror),)))
    (mirror / DIGEST).unlink()
    os.mkfifo(mirror / DIGEST)
    assert "no plain file" in reason(row, places=Sources((str(mirror),)))
    (row / "figures").symlink_to(tmp_path)
    assert "cannot be opened as a plain file" in reason(row, "figures/outside", places=Sources())


def test_a_file_in_the_folder_is_used_if_it_is_the_listed_one(row):
    (row / NAME).write_bytes(CONTENT)
    assert obtain(row, listed()) == {}
    assert find_file(row, NAME) == row / NAME
    for content in (CONTENT[:-1], CONTENT[:-1] + b"x"):
        (row / NAME).write_bytes(content)
        with pytest.raises(
            SubmissionError, match=r"^probes.data: in the folder, .* not the file that submission.yaml lists"
        ):
            obtain(row, listed())


@pytest.mark.parametrize("damage", ["byte", "shorter", "longer", "empty", "link", "folder"])
def test_a_cached_file_that_changed_is_not_used(damage, row, tmp_path, server):
    server.files["/x"] = CONTENT
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}
    path = find_file(row, NAME)
    content = {"byte": b"x" + CONTENT[1:], "shorter": CONTENT[:-1], "longer": CONTENT + b"x", "empty": b""}
    if damage in content:
        times = path.stat()
        path.write_bytes(content[damage])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        path.unlink()
        (tmp_path / "copy").write_bytes(CONTENT)
        path.symlink_to(tmp_path / "copy") if damage == "link" else path.mkdir()
    assert missing_files(row) == [NAME]
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}
    assert find_file(row, NAME).read_bytes() == CONTENT
    assert not find_file(row, NAME).is_symlink()


@pytest.mark.parametrize("obstacle", ["a file", "no right to write"])
def test_a_cache_that_cannot_be_written_to(obstacle, row, tmp_path, server, monkeypatch):
    root = cache.cache_folder()
    if obstacle == "a file":
        root.parent.mkdir(parents=True)
        root.write_bytes(b"")
    else:
        root.mkdir(parents=True)
        root.chmod(stat.S_IRUSR | stat.S_IXUSR)
        if os.access(root, os.W_OK):  # root may write everywhere
            monkeypatch.setattr(cache.tempfile, "mkstemp", _refuse(cache.tempfile.mkstemp, root))
    server.files["/x"] = CONTENT
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}
    path = find_file(row, NAME)
    assert path.read_bytes() == CONTENT
    assert root not in path.parents
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}
    assert server.requests == ["/x"]


def _refuse(make, root):
    def mkstemp(**how):
        if how["dir"] == root:
            raise PermissionError(13, "Permission denied")
        return make(**how)

    return mkstemp


def test_the_cache_is_bounded(row, tmp_path, monkeypatch):
    """What was used longest ago goes first; what a row has at hand stays."""
    monkeypatch.setenv("KAREL_BENCH_ARTIFACT_BYTES", "2500")
    contents = [bytes([i]) * 1000 for i in range(4)]
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for content in contents:
        (mirror / hashlib.sha256(content).hexdigest()).write_bytes(content)
    for i, content in enumerate(contents[:2]):
        artifacts = listed(content=content)
        assert obtain(row, artifacts, Sources((str(mirror),))) == {}
        path = cache.locate(NAME, artifacts[NAME])
        os.utime(path, (1000 + i, 1000 + i))
    cache.locate(NAME, listed(content=contents[0])[NAME])
    assert obtain(row, listed(content=contents[2]), Sources((str(mirror),))) == {}
    at_hand = [cache.locate(NAME, listed(content=content)[NAME]) is not None for content in contents]
    assert at_hand == [True, False, True, False]
    assert sum(path.stat().st_size for path in cached_files()) <= 2500
    monkeypatch.setenv("KAREL_BENCH_ARTIFACT_BYTES", "10")
    assert obtain(row, listed(content=contents[3]), Sources((str(mirror),))) == {}
    assert [path.parent.name for path in cached_files()] == [hashlib.sha256(contents[3]).hexdigest()]
    partial = cache.cache_folder() / f"{cache.PARTIAL_PREFIX}x"
    partial.write_bytes(b"x")
    cache.prune()
    assert partial.exists(), "another process writes it"
    os.utime(partial, (1000, 1000))
    cache.prune()
    assert not partial.exists()


def _obtain_at_once(row, url, barrier, queue):
    barrier.wait()
    missing = obtain(row, listed(url), FETCHING)
    queue.put((missing, hashlib.sha256(find_file(row, NAME).read_bytes()).hexdigest()))


def test_several_processes_fetch_one_artifact(row, server):
    context = get_context("fork")
    server.files["/x"] = CONTENT
    barrier, queue = context.Barrier(4), context.SimpleQueue()
    processes = [
        context.Process(target=_obtain_at_once, args=(row, f"{server.url}/x", barrier, queue)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    answers = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    assert answers == [({}, DIGEST)] * 4
    assert [path.parent.name for path in cached_files()] == [DIGEST]


@pytest.fixture
def hub(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("KAREL_BENCH_LOOPBACK_HTTP")
        yield server


def test_the_hub(row, hub):
    repository = hub.repositories["org/name"] = Repository()
    commit = repository.commit({"evidence.data": CONTENT, DIGEST: CONTENT}, "main")
    assert obtain(row, listed(f"hf:org/name/evidence.data@{commit}"), FETCHING) == {}
    assert hub.got() == ["evidence.data"]
    for path in cached_files():
        path.unlink()
    assert obtain(row, listed(), Sources(("hf:org/name@main",))) == {}
    assert hub.got() == ["evidence.data", DIGEST]


def test_a_download_from_the_hub_that_breaks_is_tried_again(row, hub):
    commit = (repository := Repository()).commit({"x.data": CONTENT}, "main")
    hub.repositories["org/name"] = repository
    hub.broken["x.data"] = False
    assert obtain(row, listed(f"hf:org/name/x.data@{commit}"), FETCHING) == {}
    assert hub.got() == ["x.data"] * 2
    for path in cached_files():
        path.unlink()
    hub.cut.clear()
    hub.broken["x.data"] = True
    assert "status 503" in reason(row, f"hf:org/name/x.data@{commit}")


def test_a_gated_repository_needs_the_users_token(row, hub, monkeypatch):
    hub.repositories["org/name"] = Repository(gated=True)
    hub.repositories["org/name"].commit({"x.data": CONTENT}, "main")
    assert "status 401" in reason(row, "hf:org/name/x.data@main")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert obtain(row, listed("hf:org/name/x.data@main"), FETCHING) == {}


def test_the_token_goes_to_the_hub_only(row, server: FileServer, monkeypatch):
    """Also to where the hub leads on its own host, and to no other host."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.answers["/org/name/resolve/main/x.data"] = redirect("/inside")
    server.answers["/inside"] = redirect(f"http://localhost:{server.server_address[1]}/elsewhere")
    server.files["/elsewhere"] = server.files["/y"] = CONTENT
    assert obtain(row, listed("hf:org/name/x.data@main"), FETCHING) == {}
    for path in cached_files():
        path.unlink()
    assert obtain(row, listed(f"{server.url}/y"), FETCHING) == {}
    assert server.tokens == [f"Bearer {TOKEN}", f"Bearer {TOKEN}", None, None]


def test_without_a_home_folder(row, server, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    server.files["/x"] = CONTENT
    assert missing_files(row) == [NAME]
    assert obtain(row, listed(f"{server.url}/x"), FETCHING) == {}
    assert find_file(row, NAME).read_bytes() == CONTENT


def test_time_for_a_row_is_bounded(row, server, monkeypatch):
    monkeypatch.setattr(sources, "FETCH_SECONDS", -1.0)
    server.files["/x"] = CONTENT
    assert "not requested" in reason(row, f"{server.url}/x")
    assert server.requests == []
