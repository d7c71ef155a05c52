"""The subcommands `submit fetch` and `submit publish`, and the options that say where artifacts may be had from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import argument, option, program_name
from benchmark.cli.fields import output_dir_option
from benchmark.errors import UsageError
from benchmark.submit.artifacts.locations import DATASETS, HUB_SCHEME, split_hub
from benchmark.submit.artifacts.publish import MAX_LIGHT_BYTES, Publication, publish
from benchmark.submit.artifacts.sources import Sources, copy_complete, format_missing, obtain
from benchmark.submit.folder import screen_folder
from benchmark.submit.report import IncompleteVerificationError, raise_on_missing
from benchmark.submit.schema import read_submission
from benchmark.submit.verify import verify

LARGEST_FILES = 3


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where artifacts may be had from."""

    artifacts: tuple[str, ...] = option(
        (),
        "take artifacts from this folder or address; repeatable, see docs/artifacts.md",
        metavar="DIR_OR_URL",
        many=True,
    )
    fetch: bool = option(False, "request artifacts from the addresses that a submission lists")

    def sources(self) -> Sources:
        """The sources, with those of the environment."""
        return Sources.of_user(self.artifacts, self.fetch)


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Fetch the artifacts of submissions into the cache."""

    name: str | None = argument("name or path of a submission", None)
    all: bool = option(False, "fetch those of all submissions")
    artifacts: tuple[str, ...] = option(
        (), "take artifacts from this folder or address first; repeatable", metavar="DIR_OR_URL", many=True
    )
    output_dir: Path | None = output_dir_option(None, "also write complete folders below this folder")


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """Split a submission into a light folder and artifacts to upload."""

    name: str = argument("name or path of the submission")
    output_dir: Path = output_dir_option(..., "write artifacts/ and submissions/NAME/ below this folder")
    url: tuple[str, ...] = option(
        (), "list this address, below which the artifacts will be: https://HOST/PATH or hf:org/name@REVISION; repeatable",
        metavar="BASE", many=True,
    )  # fmt: skip
    artifacts: tuple[str, ...] = option(
        (),
        "take artifacts that it already lists from this folder or address; repeatable",
        metavar="DIR_OR_URL",
        many=True,
    )


def describe_fetched(folder: Path, options: FetchOptions) -> str:
    """Fetch the artifacts of a submission, and write its complete folder if that is asked for; returns a line.

    Raises:
        UsageError: the complete folder exists.
        IncompleteVerificationError: an artifact cannot be had.
    """
    target = options.output_dir / folder.resolve().name if options.output_dir else None
    if target is not None and target.exists():
        raise UsageError(f"{target}: there already; remove it, or give another --output-dir")
    screen_folder(folder)
    artifacts = read_submission(folder).artifacts
    missing = obtain(folder, artifacts, Sources.of_user(options.artifacts, is_fetching=True))
    if missing:
        raise IncompleteVerificationError(f"{format_missing(missing)}; name a copy with --artifacts")
    if target is not None:
        copy_complete(folder, artifacts, target)
        screen_folder(target)
    size = sum(artifact.size for artifact in artifacts.values())
    where = f", complete in {target}" if target is not None else ""
    return f"{len(artifacts)} artifacts at hand, {size / 1e6:.1f} MB{where}"


def run_publish(find_folder: Callable[[str], Path], options: PublishOptions) -> int:
    """Publish a submission, verify what was written, and print what to upload; returns the exit code.

    Raises:
        BenchmarkError: as of `publish`; or the light folder does not verify.
    """
    from benchmark.submit.command import raise_on_mismatch

    folder = find_folder(options.name)
    publication = publish(folder, options.output_dir, options.url, Sources.of_user(options.artifacts))
    report = verify(publication.folder, sources=Sources((str(publication.artifacts_folder),)))
    raise_on_mismatch(report)
    raise_on_missing(report)
    print(format_publication(publication, options.url))
    return 0


def format_publication(publication: Publication, bases: tuple[str, ...]) -> str:
    """What was written, what to upload where, and what to call then."""
    num_files = sum(path.is_file() for path in publication.folder.rglob("*"))
    artifacts = publication.artifacts
    total = sum(artifact.size for artifact in artifacts.values())
    lines = [
        f"wrote {publication.folder}: {publication.light_bytes / 1e6:.3f} MB in {num_files} files, of "
        f"{publication.full_bytes / 1e6:.3f} MB; it verifies with its artifacts",
        f"wrote {publication.artifacts_folder}: {len(artifacts)} artifacts, {total / 1e6:.3f} MB, named by SHA-256",
        *(f"  {artifact.sha256}  {artifact.size:>10,}  {name}" for name, artifact in artifacts.items()),
    ]
    if publication.light_bytes > MAX_LIGHT_BYTES:
        files = sorted(publication.folder.rglob("*"), key=lambda path: -path.stat().st_size if path.is_file() else 1)
        names = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.3f} MB" for path in files[:LARGEST_FILES])
        lines.append(f"more than {MAX_LIGHT_BYTES / 1e6:g} MB, the most for a new row; largest: {names}")
    verify_command = f"{program_name('submit')} verify {publication.folder}"
    if bases:
        lines += [f"upload them: {_upload_command(base, publication.artifacts_folder)}" for base in bases]
        lines.append(f"then: {verify_command} --fetch")
    else:
        lines.append(
            "no address is listed: upload them under their names, and publish again with --url BASE; from the folder: "
            f"{verify_command} --artifacts {publication.artifacts_folder}"
        )
    return "\n".join(lines)


def _upload_command(base: str, folder: Path) -> str:
    """How the files of a folder come to an address."""
    if not base.startswith(HUB_SCHEME):
        return f"the files of {folder} under their names to {base}/"
    repository, path, revision = split_hub(base)
    kind = "--repo-type dataset " if repository[0] == DATASETS else ""
    return f"hf upload {kind}{'/'.join(repository[-2:])} {folder} {'/'.join(path) or '.'} --revision {revision}"
