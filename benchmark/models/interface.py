"""The model interface, load options and model specs.

A model is any object with the methods of `LanguageModel`; a `ProgramGenerator` has `generate` only and no hidden
states. Models return text and arrays and know nothing about probes. Letters: `B` prompts, `L` layers + 1, `D` hidden
width, `R` rows of hidden states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmark.errors import UsageError
from karel_env.syntax.dialects import KAREL

SCHEMES = ("path", "hf", "baseline", "py")
SPEC_FORMS = "path:FOLDER, hf:org/name, hf:org/name@revision, baseline:NAME or py:package.module:factory"
ATTENTIONS = ("eager", "sdpa")
QUANTIZATIONS = ("int8",)
DTYPE_NAMES = ("bfloat16", "float16", "float32", "float64")
"""Keys of `architecture.DTYPES`, for whoever only names a dtype."""
STRICT_DTYPE = "float64"
"""Results computed in this dtype and rounded to float32 do not depend on the batch."""


@dataclass(frozen=True)
class Generation:
    """The continuation of one prompt.

    Attributes:
        text: generated text, up to the end of the program, if there is one: the bracket that closes it, or in Python the line
            break before a line that is not indented.
        tokens: number of new tokens.
        finished: whether generation ended with the end of the program or an end-of-sequence token.
    """

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states at the items (tokens of the canonical text) of programs, concatenated over programs.

    Attributes:
        values: float32 [R, L, D]; layer 0 is the input of the first block, layer L - 1 the output of the last
            block after the final norm, as in `output_hidden_states` of transformers.
        emit: int64 [items], row at the position that predicts the first subword of each item (the position before it).
        read: int64 [items], row at the last subword of each item.
        offsets: int64 [B + 1], program b has the items `offsets[b]` to `offsets[b + 1] - 1`, without its header.
    """

    values: np.ndarray
    emit: np.ndarray
    read: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class Decoding:
    """How each next token is selected.

    Attributes:
        constrained: whether only tokens that the grammar of the language allows are considered.
        temperature: sampling temperature; 0 is greedy decoding.
        seeds: sampling seed per prompt; empty at temperature 0.
        dialect: one of `DIALECTS`, which determines where a program ends, and its grammar.
    """

    constrained: bool = False
    temperature: float = 0.0
    seeds: tuple[int, ...] = ()
    dialect: str = KAREL


GREEDY = Decoding()


class ProgramGenerator(Protocol):
    """Generates programs: a language model, or a baseline without a network."""

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """Continue each prompt greedily as one batch, up to a program of `max_new_words` items."""
        ...


class LanguageModel(Protocol):
    """A causal language model under test."""

    def generate(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding = GREEDY) -> list[Generation]:
        """Continue each prompt as one batch, up to a program of `max_new_words` items."""
        ...

    def hidden_states(self, prompts: Sequence[str], programs: Sequence[str]) -> HiddenStates:
        """Hidden states of each program (its body, see `karel_env.syntax.dialects`) after its prompt, as one batch."""
        ...

    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """Log-likelihood in nats and number of tokens of each program after its prompt, as one batch."""
        ...


@dataclass(frozen=True)
class LoadOptions:
    """Options of loading a model that can change its outputs.

    Attributes:
        attention: one of `ATTENTIONS`; empty for the default of transformers.
        quantization: one of `QUANTIZATIONS`; empty for none.
        remote_code: whether code in the model's files may run.
        own_code: whether a custom module of the user (`py:`) may run.
    """

    attention: str = ""
    quantization: str = ""
    remote_code: bool = False
    own_code: bool = False


DEFAULT_LOAD_OPTIONS = LoadOptions()


@dataclass(frozen=True)
class ModelSpec:
    """A parsed model spec.

    Attributes:
        scheme: one of `SCHEMES`.
        target: a folder, `org/name`, the name of a baseline, or `package.module:factory`.
        revision: revision of a hub model; empty for its default branch.
    """

    scheme: str
    target: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Parse one of `SPEC_FORMS`.

        Raises:
            UsageError: any other text.
        """
        scheme, colon, target = text.partition(":")
        if not colon or scheme not in SCHEMES or not target:
            raise UsageError(f"--model {text}: expected {SPEC_FORMS}")
        revision = ""
        if scheme == "hf":
            target, at, revision = target.partition("@")
            if target.count("/") != 1 or bool(at) != bool(revision):
                raise UsageError(f"--model {text}: expected hf:org/name or hf:org/name@revision")
        if scheme == "py" and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", target):
            raise UsageError(f"--model {text}: expected py:package.module:factory")
        return cls(scheme, target, revision)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}" + (f"@{self.revision}" if self.revision else "")


def expand_series(text: str) -> list[str]:
    """The specs that one text names, in order; text without braces or wildcards is one spec.

    `hf:org/name@{first,second}` names one spec per revision, `path:FOLDER/checkpoint-{100,200}` one per folder,
    `py:module:{first,second}` one per factory; `path:FOLDER/checkpoint-*` names all folders that match, by their numbers.
    A folder whose own name has braces or wildcards is one spec.

    Raises:
        UsageError: unbalanced braces, empty or equal names within them, or no folder that matches.
    """
    scheme, _, target = text.partition(":")
    if scheme not in ("hf", "path", "py") or (scheme == "path" and Path(target).exists()):
        return [text]
    if scheme == "path" and any(sign in target for sign in "*?["):
        folders = sorted((path for path in _glob(Path(target)) if path.is_dir()), key=folder_order)
        if not folders:
            raise UsageError(
                f"--model {text}: no folder matches; expected folders such as {target.replace('*', '100')}"
            )
        return [f"path:{folder}" for folder in folders]
    match = re.fullmatch(r"([^{}]*)\{([^{}]*)\}([^{}]*)", text)
    if match is None:
        if "{" in text or "}" in text:
            raise UsageError(f"--model {text}: expected one pair of braces, as in hf:org/name@{{step1,step2}}")
        return [text]
    before, names, after = match.groups()
    parts = [part.strip() for part in names.split(",")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--model {text}: expected distinct names, separated by commas, within the braces")
    return [before + part + after for part in parts]


def _glob(pattern: Path) -> Iterator[Path]:
    """Paths that match a pattern with wildcards in any of its parts."""
    first = next(i for i, part in enumerate(pattern.parts) if any(sign in part for sign in "*?["))
    return Path(*pattern.parts[:first]).glob(str(Path(*pattern.parts[first:])))


def folder_order(path: Path) -> tuple[list[int], str]:
    """Sort key of checkpoint folders: the numbers in the name, then the name."""
    return [int(number) for number in re.findall(r"\d+", path.name)], path.name
