"""Download models of the Hugging Face hub to its cache, with one error message per cause of failure.

The settings of the hub client apply: HF_TOKEN, HF_HOME, HF_HUB_OFFLINE; HF_ENDPOINT is read at each call. Errors are
`ModelError`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import ModelError
from benchmark.models.interface import ModelSpec

DUPLICATE_PATTERN = "consolidated*"
"""Duplicates of the weights in the layout of their authors; never read."""
IGNORE_PATTERNS = ("*/*", DUPLICATE_PATTERN)
"""Never downloaded; subfolders hold other formats of the same model."""


def download(spec: ModelSpec, patterns: Sequence[str]) -> Path:
    """Download a model and return its folder in the cache, whose name is the commit.

    Args:
        spec: hub model with a branch, a tag, a commit or no revision.
        patterns: glob patterns of file names to download.

    Raises:
        ModelError: the model is missing, gated, or cannot be downloaded.
    """
    # Imported here, since most commands download nothing, and the hub client takes as long as they do.
    from httpx2 import HTTPError
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

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
    except HFValidationError as error:
        raise ModelError(f"{spec}: not a valid hub name; expected hf:org/name") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{spec}: gated; accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{spec}: no such model on the hub, or a private one; check the name, or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{spec}: the model has no revision {spec.revision or constants.DEFAULT_REVISION}; "
            "give a branch, a tag or a whole commit that its page lists"
        ) from error
    except LocalEntryNotFoundError as error:
        reason = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the hub cannot be reached"
        raise ModelError(
            f"{spec}: incomplete in the local hub cache, and {reason}; download it on a machine with a network, or use path:FOLDER"
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            raise ModelError(f"{spec}: the hub refuses the access token; renew it, or unset HF_TOKEN") from error
        raise ModelError(
            f"{spec}: the download was interrupted ({type(error).__name__}); run the same command again, complete files are kept"
        ) from error


def download_card(spec: ModelSpec) -> Path | None:
    """Download the card of a model, its `README.md`, and return its path in the cache; None if it cannot be had."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(spec.target, "README.md", revision=spec.revision or None, endpoint=_endpoint()))
    except (HfHubHTTPError, HTTPError, OSError, ValueError):
        return None


def list_remote_names(spec: ModelSpec, commit: str) -> list[str]:
    """List all files of a hub model at a commit, including subfolders; empty list if the hub cannot be asked."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return list(HfApi(endpoint=_endpoint()).list_repo_files(spec.target, revision=commit))
    except (HfHubHTTPError, HTTPError, OSError):
        return []


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None
