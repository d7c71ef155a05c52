"""What the benchmark asks of a model, and how a model is named.

A model is any object with the methods of `LanguageModel`; a `Writer` has the first alone: it writes programs and has no
hidden states. Models know nothing of probes; what they return is
text and arrays. Letters: `B` prompts, `L` layers + 1, `D` hidden width, `R` rows of hidden states.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmark.errors import UsageError

SCHEMES = ("path", "hf", "baseline", "py")
SPEC_FORMS = "path:FOLDER, hf:org/name, hf:org/name@revision, baseline:NAME or py:package.module:factory"
ATTENTIONS = ("eager", "sdpa")
QUANTIZATIONS = ("int8",)


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


@dataclass(frozen=True)
class Decoding:
    """How a continuation is chosen, token by token.

    Attributes:
        constrained: only tokens that the language's grammar allows next.
        temperature: of the softmax that tokens are drawn from; 0 takes the most probable one.
        seeds: of the draws, one a prompt; empty at temperature 0.
    """

    constrained: bool = False
    temperature: float = 0.0
    seeds: tuple[int, ...] = ()


GREEDY = Decoding()


class ProgramGenerator(Protocol):
    """What writes programs: a language model, or a baseline that is no network."""

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """Continue each prompt greedily, as one batch, with room for a program of `max_new_words` words."""
        ...


class LanguageModel(Protocol):
    """A causal language model under test."""

    def generate(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding = GREEDY) -> list[Generation]:
        """Continue each prompt as one batch, with room for a program of `max_new_words` words."""
        ...

    def hidden_states(self, prompts: Sequence[str], programs: Sequence[str]) -> HiddenStates:
        """Read each program (canonical text without its header) behind its prompt, as one batch."""
        ...

    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """Of each program behind its prompt, the logarithm of its probability (nats) and its number of tokens."""
        ...


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded, where that can change what it computes.

    Attributes:
        attention: one of `ATTENTIONS`, empty for the one that transformers takes.
        quantization: one of `QUANTIZATIONS`, empty for none.
        remote_code: whether code that comes with a model's files may run.
        own_code: whether a module of the user's may run.
    """

    attention: str = ""
    quantization: str = ""
    remote_code: bool = False
    own_code: bool = False


DEFAULT_LOAD_OPTIONS = LoadOptions()


@dataclass(frozen=True)
class ModelSpec:
    """A model's name, taken apart.

    Attributes:
        scheme: one of `SCHEMES`.
        target: a folder, `org/name`, the name of a baseline, or `package.module:factory`.
        revision: of a hub model; empty for its default branch.
    """

    scheme: str
    target: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """From one of `FORMS`; raises `UsageError`."""
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


def expand_revisions(text: str) -> list[str]:
    """The models that `hf:org/name@{one,two}` names, in order; any other text names one. Raises `UsageError`."""
    if not text.startswith("hf:"):
        return [text]
    match = re.fullmatch(r"([^{}]*)\{([^{}]*)\}([^{}]*)", text)
    if match is None:
        if "{" in text or "}" in text:
            raise UsageError(f"--model {text}: expected one pair of braces, as in hf:org/name@{{step1,step2}}")
        return [text]
    before, revisions, after = match.groups()
    names = [part.strip() for part in revisions.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--model {text}: expected revisions that differ, parted by commas, within the braces")
    return [before + part + after for part in names]
