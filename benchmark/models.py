"""What the benchmark asks of a model, and how a model is named.

A model is any object with the two methods of `LanguageModel`. Models know nothing of probes; what they return is
text and arrays. Letters: `B` prompts, `L` layers + 1, `D` hidden width, `R` rows of hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmark.errors import UsageError

SCHEMES = ("path", "hf")


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt.

    Attributes:
        text: the continuation, up to and with the bracket that closes the program, if there is one.
        tokens: new tokens.
        finished: whether it stopped of its own accord, by the closing bracket or its end mark.
    """

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states at the words of programs, one program after the other.

    Attributes:
        values: float32 [R, L, D]; layer 0 is the input of the first block, layer L - 1 the output of the last
            block after the final norm, as in `output_hidden_states` of transformers.
        emit: int64 [words], row from which each word's first piece was predicted (the position before it).
        read: int64 [words], row of each word's last piece.
        offsets: int64 [B + 1], program b has words `offsets[b]` to `offsets[b + 1]`, its header left out.
    """

    values: np.ndarray
    emit: np.ndarray
    read: np.ndarray
    offsets: np.ndarray


class LanguageModel(Protocol):
    """A causal language model under test."""

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """Continue each prompt greedily, as one batch, with room for a program of `max_new_words` words."""
        ...

    def hidden_states(self, prompts: Sequence[str], programs: Sequence[str]) -> HiddenStates:
        """Read each program (canonical text without its header) behind its prompt, as one batch."""
        ...


@dataclass(frozen=True)
class ModelSpec:
    """A model's name, taken apart.

    Attributes:
        scheme: `path` or `hf`.
        target: a folder, or `org/name`.
        revision: of a hub model; empty for its default branch.
    """

    scheme: str
    target: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """From `path:FOLDER` or `hf:org/name@revision`; raises `UsageError`."""
        scheme, colon, target = text.partition(":")
        if not colon or scheme not in SCHEMES or not target:
            raise UsageError(f"--model {text}: expected path:FOLDER or hf:org/name@revision")
        revision = ""
        if scheme == "hf":
            target, _, revision = target.partition("@")
            if target.count("/") != 1:
                raise UsageError(f"--model {text}: expected hf:org/name or hf:org/name@revision")
        return cls(scheme, target, revision)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}" + (f"@{self.revision}" if self.revision else "")
