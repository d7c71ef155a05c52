"""Sealed rounds: suites with a secret seed that the maintainer reveals at the end of the round.

    python -m benchmark.sealed make 2026-12 --suite laptop --secret FILE
    python -m benchmark.sealed seed 2026-12 --secret FILE
    python -m benchmark.sealed reveal 2026-12 --secret FILE
    python -m benchmark.sealed rotate 2026-12 2027-01 --secret FILE --next FILE
    python -m benchmark.sealed check

`sealed/ROUND.yaml` in the repository holds the commitment: the SHA-256 of the salt (32 bytes) followed by the seed (decimal
digits). FILE, outside the repository, holds salt and seed. After they are revealed, anyone can check the commitment and
generate the tasks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, StringConstraints

from benchmark.artifacts import known_version
from benchmark.command import run_command
from benchmark.errors import UsageError, VerificationError
from benchmark.files import read_json, read_yaml
from benchmark.installation.paths import SOURCE_ROOT, work_folder
from benchmark.submit.folder import NAME_PATTERN
from benchmark.submit.schema import Digest, Seed, validate_schema
from benchmark.tasks.suite import load_suite
from karel_env.command import CommandParser

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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m benchmark.sealed", description="Manage evaluation rounds with a secret seed."
    )
    parser.add_argument("--folder", type=Path, default=work_folder() / "sealed", help="folder of the commitments")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (("make", "create a round"), ("seed", "print the seed, for benchmark.run --seed"),
                       ("reveal", "publish salt and seed"), ("rotate", "reveal a round and create the next one")):  # fmt: skip
        command = commands.add_parser(name, help=help_text)
        command.add_argument("round")
        command.add_argument(
            "--secret", type=Path, required=True, metavar="FILE", help="file with salt and seed, outside the repository"
        )
        if name == "make":
            command.add_argument("--suite", default="laptop")
        if name == "rotate":
            command.add_argument("following")
            command.add_argument(
                "--next", type=Path, required=True, metavar="FILE", help="file for the secret of the next round"
            )
    commands.add_parser("check", help="check every revealed round against its commitment")
    return run_command(lambda: _run(parser.parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    folder = options.folder
    if options.command == "check":
        print("\n".join(check_rounds(folder)) or "no rounds")
    elif options.command == "make":
        print(f"{options.round}: {seal_round(folder, options.round, options.suite, options.secret).commitment}")
    elif options.command == "seed":
        print(open_secret(folder, options.round, options.secret).seed)
    else:
        sealed_round = read_round(folder, options.round)
        open_secret(folder, options.round, options.secret)
        if options.command == "rotate":
            print(
                f"{options.following}: {seal_round(folder, options.following, sealed_round.suite, options.next).commitment}"
            )
        print(f"{options.round}: revealed {reveal_round(folder, options.round, options.secret).revealed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
