"""Sealed rounds: suites with a secret seed that the maintainer reveals at the end of the round.

    karel-bench sealed make 2026-12 --suite laptop --secret FILE
    karel-bench sealed seed 2026-12 --secret FILE
    karel-bench sealed reveal 2026-12 --secret FILE
    karel-bench sealed rotate 2026-12 2027-01 --secret FILE --next FILE
    karel-bench sealed check

`sealed/ROUND.yaml` in the repository holds the commitment: the SHA-256 of the salt (32 bytes) followed by the seed (decimal
digits). FILE, outside the repository, holds salt and seed. After they are revealed, anyone can check the commitment and
generate the tasks.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, StringConstraints

from benchmark.artifacts import known_version
from benchmark.cli.declare import argument, option, parse_options, subcommand
from benchmark.cli.fields import suite_option
from benchmark.command import run_command
from benchmark.errors import UsageError, VerificationError
from benchmark.files import read_json, read_yaml
from benchmark.installation.paths import SOURCE_ROOT, work_folder
from benchmark.submit.folder import NAME_PATTERN
from benchmark.submit.schema import Digest, Seed, validate_schema
from benchmark.tasks.suite import load_suite

Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]


class Secret(BaseModel, extra="forbid", frozen=True, strict=True):
    """Salt and seed of a commitment."""

    salt: Digest
    seed: Seed

    def commitment(self) -> str:
        """Compute the SHA-256 of salt and seed."""
        return hashlib.sha256(bytes.fromhex(self.salt) + str(self.seed).encode()).hexdigest()


class Round(BaseModel, extra="forbid", frozen=True, strict=True):
    """`sealed/ROUND.yaml`; `revealed` and `on` are set when the round is over."""

    schema_version: Annotated[Literal[1], known_version(1)] = 1
    suite: str
    suite_version: Annotated[int, Field(ge=1)]
    commitment: Digest
    made: Date
    revealed: Secret | None = None
    on: Date | None = None


def read_round(folder: Path, name: str) -> Round:
    """Read the file of a round; raises `SubmissionError` if it is invalid."""
    return validate_schema(Round, read_yaml(_round_path(folder, name)), f"{name}.yaml")


def read_secret(path: Path) -> Secret:
    """Read the file with salt and seed; raises `SubmissionError` if it is invalid."""
    return validate_schema(Secret, read_json(path), path.name)


def _round_path(folder: Path, name: str) -> Path:
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"{name!r}: a round's name has letters, digits, '.', '_' and '-'")
    return folder / f"{name}.yaml"


def seal_round(folder: Path, name: str, suite: str, secret: Path) -> Round:
    """Generate a secret, store it in a file with mode 0600, and write the commitment.

    Args:
        folder: folder of the commitments.
        name: name of the round.
        suite: name of the suite.
        secret: file to write salt and seed to, outside the repository.

    Raises:
        UsageError: the secret is inside the repository, or one of the files exists.
    """
    round_suite, path = load_suite(suite), _round_path(folder, name)
    is_in_repository = secret.resolve().is_relative_to(folder.resolve().parent)
    if is_in_repository or ((SOURCE_ROOT / ".git").exists() and secret.resolve().is_relative_to(SOURCE_ROOT)):
        raise UsageError(f"--secret {secret}: lies in the repository, where it could be published; keep it elsewhere")
    if path.exists() or secret.exists():
        raise UsageError(f"{path if path.exists() else secret}: there already; choose another name")
    new_secret = Secret(salt=secrets.token_hex(32), seed=secrets.randbits(62))
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(new_secret.model_dump(), file)
    new_round = Round(suite=suite, suite_version=round_suite.version, commitment=new_secret.commitment(), made=_today())
    _write_round(path, new_round)
    return new_round


def open_secret(folder: Path, name: str, secret: Path) -> Secret:
    """Read the secret of a round and check it against the commitment.

    Raises:
        VerificationError: the secret does not match the commitment.
    """
    opened = read_secret(secret)
    if opened.commitment() != read_round(folder, name).commitment:
        raise VerificationError(f"{secret}: not the secret of round {name}; its commitment is another")
    return opened


def reveal_round(folder: Path, name: str, secret: Path) -> Round:
    """Write the secret of a round into its file in the repository; errors as for `open_secret`."""
    revealed_round = read_round(folder, name).model_copy(
        update={"revealed": open_secret(folder, name, secret), "on": _today()}
    )
    _write_round(_round_path(folder, name), revealed_round)
    return revealed_round


def check_rounds(folder: Path) -> list[str]:
    """Describe each round in one line; raises `VerificationError` if a revealed secret does not match its commitment."""
    lines = []
    for path in sorted(folder.glob("*.yaml")):
        sealed_round = read_round(folder, path.stem)
        if sealed_round.revealed is not None and sealed_round.revealed.commitment() != sealed_round.commitment:
            raise VerificationError(f"{path.name}: the revealed salt and seed do not give the commitment")
        state = (
            "sealed"
            if sealed_round.revealed is None
            else f"revealed on {sealed_round.on}: --suite {sealed_round.suite} --seed {sealed_round.revealed.seed}"
        )
        lines.append(
            f"{path.stem}: {sealed_round.suite} v{sealed_round.suite_version}, made on {sealed_round.made}, {state}"
        )
    return lines


def _write_round(path: Path, sealed_round: Round) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(sealed_round.model_dump(exclude_none=True), sort_keys=False))


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True, kw_only=True)
class SecretOptions:
    """Options of the commands that need a round and its secret."""

    round: str = argument("name of the round")
    secret: Path = option(..., "name the file with salt and seed, outside the repository", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class MakeOptions(SecretOptions):
    """Create a round."""

    suite: str = suite_option()


@dataclass(frozen=True, kw_only=True)
class SeedOptions(SecretOptions):
    """Print the seed, for the option --seed of a run."""


@dataclass(frozen=True, kw_only=True)
class RevealOptions(SecretOptions):
    """Publish salt and seed."""


@dataclass(frozen=True, kw_only=True)
class RotateOptions(SecretOptions):
    """Reveal a round and create the next one."""

    following: str = argument("name of the next round")
    next: Path = option(..., "name the file for the secret of the next round", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Check every revealed round against its commitment."""


@dataclass(frozen=True, kw_only=True)
class SealedOptions:
    """Manage evaluation rounds with a secret seed."""

    folder: Path = option(
        lambda: work_folder() / "sealed", "use the commitments of this folder", metavar="FOLDER", default_text="sealed"
    )
    command: MakeOptions | SeedOptions | RevealOptions | RotateOptions | CheckOptions = subcommand(
        {
            "make": MakeOptions,
            "seed": SeedOptions,
            "reveal": RevealOptions,
            "rotate": RotateOptions,
            "check": CheckOptions,
        }
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(lambda: _run(parse_options(SealedOptions, arguments, "sealed")))


def _run(options: SealedOptions) -> int:
    folder, command = options.folder, options.command
    if isinstance(command, CheckOptions):
        print("\n".join(check_rounds(folder)) or "no rounds")
    elif isinstance(command, MakeOptions):
        print(f"{command.round}: {seal_round(folder, command.round, command.suite, command.secret).commitment}")
    elif isinstance(command, SeedOptions):
        print(open_secret(folder, command.round, command.secret).seed)
    else:
        sealed_round = read_round(folder, command.round)
        open_secret(folder, command.round, command.secret)
        if isinstance(command, RotateOptions):
            commitment = seal_round(folder, command.following, sealed_round.suite, command.next).commitment
            print(f"{command.following}: {commitment}")
        print(f"{command.round}: revealed {reveal_round(folder, command.round, command.secret).revealed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
