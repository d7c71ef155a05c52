"""Addresses of artifacts: the forms that `submission.yaml` and the user may write, and where each leads.

    https://host/path                       a file on the web
    hf:org/name/file@REVISION               a file of a model repository on the Hugging Face Hub
    hf:datasets/org/name/file@REVISION      a file of a data set repository there
    folder/file                             a path below the submission's folder, or below a mirror

No other scheme is accepted. Plain http is accepted for a loopback address only, and only where the environment variable
`KAREL_BENCH_LOOPBACK_HTTP` is 1, for tests and for mirrors on one's own machine.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from benchmark.errors import SubmissionError, UsageError
from benchmark.files import sanitize

LOOPBACK_VARIABLE, ENDPOINT_VARIABLE = "KAREL_BENCH_LOOPBACK_HTTP", "HF_ENDPOINT"
DEFAULT_ENDPOINT = "https://huggingface.co"
HUB_SCHEME, DATASETS = "hf:", "datasets"
MAX_ADDRESS, MAX_SEGMENTS = 500, 8
EXPECTED = "expected https://HOST/PATH, hf:org/name/FILE@REVISION, or a path without .. in the submission's folder"
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,3}", re.ASCII)


@dataclass(frozen=True)
class WebAddress:
    """What is requested.

    Attributes:
        url: address with scheme https, or http on loopback.
        is_hub: whether it is on the hub, which gets the user's token.
    """

    url: str
    is_hub: bool = False


def check_location(text: str) -> str:
    """Return an address that a submission lists.

    Raises:
        ValueError: it has none of the accepted forms; the message says why.
    """
    if not _PRINTABLE.fullmatch(text) or len(text) > MAX_ADDRESS or "\\" in text:
        raise ValueError(f"an address of printable ASCII without spaces, at most {MAX_ADDRESS} characters; {EXPECTED}")
    if text.startswith(HUB_SCHEME):
        if not split_hub(text)[1]:
            raise ValueError(f"{sanitize(text)} names no file; {EXPECTED}")
    elif ":" in text or text.startswith("/"):
        check_web_url(text)
    else:
        path_segments(text)
    return text


def is_path(text: str) -> bool:
    """Whether an accepted address is a path."""
    return ":" not in text


def path_segments(text: str) -> tuple[str, ...]:
    """The names of a relative path.

    Raises:
        ValueError: it is absolute, leads upwards, or has other characters than letters, digits and `._+-`.
    """
    segments = tuple(text.split("/"))
    if len(segments) > MAX_SEGMENTS or not all(map(_SEGMENT.fullmatch, segments)):
        raise ValueError(f"{sanitize(text)} is no path below a folder; {EXPECTED}")
    return segments


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine, by a literal address or as `localhost`."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def accepts_loopback_http() -> bool:
    """Whether the user's environment accepts plain http on loopback."""
    return os.environ.get(LOOPBACK_VARIABLE) == "1"


def check_web_url(url: str, accepts_http: bool | None = None) -> str:
    """Return a URL that may be requested.

    Args:
        url: its text.
        accepts_http: whether plain http is accepted on loopback; by default as the environment says.

    Raises:
        ValueError: its scheme, host, port or path is not accepted.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.netloc.rpartition("@")[2]
    except ValueError as error:
        raise ValueError(f"{sanitize(url)} is no URL; {EXPECTED}") from error
    is_accepted = url.startswith("https://")
    if url.startswith("http://") and is_loopback(url):
        is_accepted = accepts_loopback_http() if accepts_http is None else accepts_http
    if not is_accepted:
        raise ValueError(f"{sanitize(url)} is not https; {EXPECTED}")
    if "@" in parts.netloc or parts.fragment or not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise ValueError(f"{sanitize(url)} has a user name, a fragment or unusual characters; {EXPECTED}")
    name = host if port is None else host.removesuffix(f":{port}")
    if not _HOST.fullmatch(name.lower()) or port == 0:
        raise ValueError(f"{sanitize(url)} has no host; {EXPECTED}")
    if any(unquote(segment) in (".", "..") for segment in parts.path.split("/")):
        raise ValueError(f"{sanitize(url)} leads upwards; {EXPECTED}")
    return url


def split_hub(text: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """The repository, the path in it (empty for the repository itself) and the revision of an `hf:` address.

    Raises:
        ValueError: it has another form.
    """
    path, at_sign, revision = text.removeprefix(HUB_SCHEME).partition("@")
    segments = tuple(path.split("/"))
    length = 3 if segments[0] == DATASETS else 2
    is_valid = len(segments) <= length + MAX_SEGMENTS and all(map(_SEGMENT.fullmatch, segments))
    if not is_valid or len(segments) < length or not at_sign or not _REVISION.fullmatch(revision):
        raise ValueError(f"{sanitize(text)} is no file of a repository; {EXPECTED}")
    return segments[:length], segments[length:], revision


def hub_endpoint() -> str:
    """The address of the hub: `HF_ENDPOINT` of the user's environment, or the public one.

    Raises:
        ValueError: it is neither https nor http on loopback.
    """
    return check_web_url((os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT).rstrip("/"), accepts_http=True)


def hub_address(text: str) -> WebAddress:
    """The request for an `hf:` address; raises `ValueError` if the endpoint of the environment is not accepted."""
    repository, path, revision = split_hub(text)
    url = f"{hub_endpoint()}/{'/'.join(repository)}/resolve/{quote(revision, safe='')}/{quote('/'.join(path))}"
    return WebAddress(url, is_hub=True)


def web_address(text: str) -> WebAddress:
    """The request for an accepted address that is no path; raises `ValueError` for others."""
    return hub_address(text) if text.startswith(HUB_SCHEME) else WebAddress(check_web_url(text))


def join_location(base: str, path: str) -> str:
    """The address of a path below a mirror: a URL, or a repository of the hub (`hf:org/name@REVISION`)."""
    if not base.startswith(HUB_SCHEME):
        return f"{base.rstrip('/')}/{path}"
    repository, folder, revision = split_hub(base)
    return f"{HUB_SCHEME}{'/'.join((*repository, *folder))}/{path}@{revision}"


def is_web(mirror: str) -> bool:
    """Whether a mirror is an address rather than a folder of this machine."""
    return mirror.startswith(HUB_SCHEME) or "://" in mirror


def check_mirror(text: str) -> str:
    """Return a mirror that the user names: an https URL, a repository of the hub, or an existing folder.

    Raises:
        UsageError: it is none of these.
    """
    try:
        if text.startswith(HUB_SCHEME):
            split_hub(text)
        elif is_web(text):
            check_web_url(text)
        elif not Path(text).is_dir():
            raise UsageError(
                f"{text}: no such folder; give a folder of artifacts, https://HOST/PATH or hf:org/name@REVISION"
            )
    except ValueError as error:
        reason = str(error).partition("; ")[0]
        raise UsageError(f"{reason}; give a folder of artifacts, https://HOST/PATH or hf:org/name@REVISION") from error
    return text


def open_below(root: Path, path: str) -> int | None:
    """Open a file below a folder for reading, without following links below it.

    Returns:
        A descriptor of whatever the path names; None if there is nothing.

    Raises:
        SubmissionError: a part of the path is a link, or cannot be opened.
    """
    *folders, name = path_segments(path)
    descriptor = -1
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        # Without O_NONBLOCK, opening a pipe would block until another process writes to it.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SubmissionError(f"{sanitize(path)}: cannot be opened as a plain file ({error.strerror})") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
