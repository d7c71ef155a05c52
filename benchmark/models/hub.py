"""Models of the Hugging Face hub: found by name and revision, fetched to its cache, told apart when they are not there.

The client's own settings hold: HF_TOKEN, HF_HOME, HF_HUB_OFFLINE; HF_ENDPOINT is read at each call. Errors are `ModelError`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from benchmark.errors import ModelError
from benchmark.models.interface import ModelSpec

DUPLICATE_PATTERN = "consolidated*"
"""The same weights once more in their maker's layout; not read, wherever they lie."""
IGNORE_PATTERNS = ("*/*", DUPLICATE_PATTERN)
"""Never fetched; subfolders hold other formats of the same model."""


def download(spec: ModelSpec, patterns: Sequence[str]) -> Path:
    """The folder of a model's files in the cache; its name is the commit.

    Args:
        spec: a branch, a tag or a commit as its revision, or none.
        wanted: patterns of file names.
    """
    try:
        return Path(
            snapshot_download(
                spec.target,
                revision=spec.revision or None,
                allow_patterns=list(patterns),
                ignore_patterns=list(IGNORE_PATTERNS),
                endpoint=_endpoint(),
            )
        )
    except HFValidationError as problem:
        raise ModelError(f"{spec}: no name that the hub allows; expected hf:org/name") from problem
    except GatedRepoError as problem:
        raise ModelError(
            f"{spec}: gated; accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
        ) from problem
    except RepositoryNotFoundError as problem:
        raise ModelError(
            f"{spec}: no such model on the hub, or a private one; check the name, or set HF_TOKEN"
        ) from problem
    except RevisionNotFoundError as problem:
        raise ModelError(
            f"{spec}: the model has no revision {spec.revision or constants.DEFAULT_REVISION}; "
            "give a branch, a tag or a whole commit that its page lists"
        ) from problem
    except LocalEntryNotFoundError as problem:
        reason = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the hub cannot be reached"
        raise ModelError(
            f"{spec}: not whole in the local hub cache, and {reason}; download it where there is a network, or use path:FOLDER"
        ) from problem
    except (HfHubHTTPError, HTTPError, OSError) as problem:
        if isinstance(problem, HfHubHTTPError) and problem.response.status_code in (401, 403):
            raise ModelError(
                f"{spec}: the hub refuses the token that it was given; renew it, or unset HF_TOKEN"
            ) from problem
        raise ModelError(
            f"{spec}: the download broke off ({type(problem).__name__}); run the same command again, whole files are kept"
        ) from problem


def list_remote_names(spec: ModelSpec, commit: str) -> list[str]:
    """Names of all files of a model at a commit, subfolders included, fetched or not; empty where the hub does not say."""
    try:
        return list(HfApi(endpoint=_endpoint()).list_repo_files(spec.target, revision=commit))
    except (HfHubHTTPError, HTTPError, OSError):
        return []


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None
