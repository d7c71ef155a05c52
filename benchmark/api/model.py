"""Models of the API: files that a spec names, a transformers model in memory, or an object with methods of one's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmark.api.inputs import InputError
from benchmark.errors import ModelError
from karel_env.command import shown

if TYPE_CHECKING:
    from benchmark.models.checkpoint import Checkpoint
    from benchmark.models.devices.device_map import DeviceMap
    from benchmark.models.interface import Decoding, Generation, LanguageModel

CUSTOM_SPEC = "an object with methods of its own"
FORMS = "a folder, path:FOLDER, hf:org/name[@revision], baseline:NAME or py:package.module:factory"


@dataclass(frozen=True, eq=False)
class Model:
    """A model that the API can evaluate and read.

    Attributes:
        checkpoint: its files, or the objects in memory; None for an object with methods of its own.
        dtype: dtype of the forward pass, such as `float32`.
        device: torch device, such as `cpu`.
        threads: CPU threads of a forward pass; another number may change the last bits of states.
        custom: an object with the methods `hidden_states` and `generate` of `benchmark.models.interface`, or None.
        random_init: function of a seed that returns an untrained copy of `custom`, or None.
    """

    checkpoint: Checkpoint | None
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    custom: Any = None
    random_init: Callable[[int], Any] | None = None

    @property
    def spec(self) -> str:
        """The spec, with a hub revision resolved to a commit; `memory:NAME` for a model in memory."""
        return CUSTOM_SPEC if self.checkpoint is None else self.checkpoint.spec

    @property
    def digest(self) -> str:
        """SHA-256 of weights, configuration and tokenizer; empty for an object with methods of its own."""
        return "" if self.checkpoint is None else self.checkpoint.digest

    @property
    def parameters(self) -> int:
        """Number of parameters, tied ones counted once; 0 if unknown."""
        return 0 if self.checkpoint is None else self.checkpoint.parameters

    @contextmanager
    def opened(self, random_seed: int | None = None) -> Iterator[LanguageModel]:
        """The loaded model while the context lasts, in evaluation mode and with `threads` threads.

        Args:
            random_seed: None for the model itself; else the seed of an untrained copy of its architecture.

        Raises:
            ModelError: the model cannot be loaded, or has no untrained copy.
        """
        import torch

        from benchmark.models.memory import MemoryCheckpoint

        held = self.checkpoint
        mode = held.evaluation_mode() if isinstance(held, MemoryCheckpoint) else nullcontext()
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with mode:
                yield self._loaded(random_seed)
        finally:
            torch.set_num_threads(threads)

    def _loaded(self, random_seed: int | None) -> LanguageModel:
        from benchmark.models.loading import load_model as load_checkpoint
        from benchmark.models.validated import ValidatedModel

        if self.checkpoint is not None:
            if not self.checkpoint.has_hidden_states:
                raise ModelError(f"{self.spec}: has no hidden states; expected a network")
            return load_checkpoint(self.checkpoint, self.dtype, self.device, random_seed)
        if random_seed is None:
            return ValidatedModel(self.custom, self.spec)
        if self.random_init is None:
            raise ModelError(
                f"{self.spec}: no untrained copies; give wrap(..., random_init=function of a seed), or measure with "
                "controls of your own"
            )
        return ValidatedModel(self.random_init(random_seed), self.spec)

    def generate(
        self, prompts: Sequence[str], max_new_words: int, decoding: Decoding | None = None
    ) -> list[Generation]:
        """Continue each prompt as one batch, up to a program of `max_new_words` words.

        Args:
            prompts: texts that end with the header of a program.
            max_new_words: largest length of a program in words of the canonical text.
            decoding: how tokens are selected; None for the argmax.
        """
        from benchmark.models.interface import GREEDY

        with self.opened() as loaded:
            return loaded.generate(prompts, max_new_words, decoding or GREEDY)


def load_model(
    spec: str | Path,
    *,
    dtype: str = "float32",
    device: str = "auto",
    threads: int = 1,
    attention: str = "",
    quantization: str = "",
    device_map: str | Path | Mapping[str, int | str] | None = None,
    trust_remote_code: bool = False,
    allow_code: bool = False,
) -> Model:
    """Find, check and digest the files of a model; weights are loaded when they are used.

    Args:
        spec: `path:FOLDER` or a folder that `save_pretrained` wrote, `hf:org/name`, `hf:org/name@revision`,
            `py:package.module:factory`, or `baseline:NAME`.
        dtype: dtype of the forward pass: float32, bfloat16, float16 or float64.
        device: torch device; `auto` is cuda where there is a GPU.
        threads: CPU threads of a forward pass.
        attention: attention implementation, `eager` or `sdpa`; empty for the default of transformers.
        quantization: `int8`, or empty for none.
        device_map: devices that store the modules of a model that does not fit one: `auto`, a JSON file, or a mapping of
            names of modules to the number of a GPU, `cpu` or `disk`; see docs/cluster.md.
        trust_remote_code: whether code that comes with the files may run.
        allow_code: whether the module of a `py:` model may run.

    Raises:
        UsageError: the spec is none of these forms, or an option does not apply.
        ModelError: files are missing, damaged, or in another format.

    Source: docs/models.md.
    """
    from benchmark.models.architecture import DTYPES
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import LoadOptions, ModelSpec

    if dtype not in DTYPES:
        raise InputError(f"dtype: {shown(dtype)!r}; expected one of {', '.join(sorted(DTYPES))}")
    loading = LoadOptions(attention, quantization, trust_remote_code, allow_code)
    device = resolve_device(device)
    placement = None if device_map is None else read_device_map(device_map, device)
    return Model(open_checkpoint(ModelSpec.parse(spec_text(spec)), loading, placement), dtype, device, threads)


def read_device_map(device_map: str | Path | Mapping[str, int | str], device: str) -> DeviceMap:
    """The device map of an argument, checked against the device that computes.

    Raises:
        UsageError: it is none, or does not fit.
    """
    from benchmark.models.devices.device_map import DeviceMap

    if isinstance(device_map, Mapping):
        placement = DeviceMap.from_mapping(dict(device_map))
    else:
        placement = DeviceMap.parse(str(device_map))
    placement.check_device(device)
    return placement


def spec_text(spec: str | Path) -> str:
    """The spec of a model; a folder may be given as a path, and a model of the hub as `org/name`.

    Raises:
        InputError: neither.
    """
    text = str(spec)
    if re.match(r"(path|hf|baseline|py):", text):
        return text
    if isinstance(spec, Path) or Path(text).is_dir() or text.startswith((".", "/", "~")):
        return f"path:{Path(text).expanduser()}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", text):
        return f"hf:{text}"
    raise InputError(f"model: {shown(text, 200)!r}; expected {FORMS}")


def resolve_device(device: str) -> str:
    """The torch device of a name; `auto` is cuda where there is a GPU.

    Raises:
        InputError: no such device on this machine.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (re.fullmatch(r"cuda(:\d+)?", device) and torch.cuda.is_available()):
        raise InputError(f"device: {shown(device)!r}; expected auto, cpu, or cuda where there is a GPU")
    return device


def wrap(
    model: Any,
    tokenizer: Any = None,
    *,
    name: str = "",
    threads: int = 1,
    random_init: Callable[[int], Any] | None = None,
) -> Model:
    """A model object held in memory, evaluated as it is: with its dtype, on its device.

    Its training flags and generation settings are left as they are. Its identity is a digest of class, configuration,
    state dict and tokenizer, so code that was changed in memory is not part of it.

    Args:
        model: a transformers model with a language-modelling head; or, without a tokenizer, any object with the methods
            `hidden_states(prompts, programs)` and `generate(prompts, max_new_words)` of `benchmark.models.interface`.
        tokenizer: the fast tokenizer of a transformers model.
        name: short name for rows and run folders; by default the name of the class.
        threads: CPU threads of a forward pass.
        random_init: for an object with methods of its own: function of a seed that returns an untrained copy.

    Raises:
        ModelError: an object of another kind, a tokenizer that is not fast, or a dtype that is not evaluated.

    Source: docs/api.md, "A model held in memory".
    """
    if tokenizer is None:
        if hasattr(model, "state_dict") and hasattr(model, "config"):
            raise ModelError(
                f"wrap: a {type(model).__name__} of transformers needs its tokenizer: wrap(model, tokenizer)"
            )
        if not callable(getattr(model, "hidden_states", None)) or not callable(getattr(model, "generate", None)):
            raise ModelError(
                f"wrap: a {type(model).__name__} without a tokenizer; expected wrap(model, tokenizer) of transformers, or an "
                "object with the methods hidden_states and generate"
            )
        return Model(None, threads=threads, custom=model, random_init=random_init)
    from benchmark.models.memory import hold_in_memory

    held = hold_in_memory(model, tokenizer, name)
    return Model(held, held.dtype, str(model.device), threads)


def as_model(model: Any, tokenizer: Any = None, **options: Any) -> Model:
    """The model of a spec, a folder, an object of `load_model` or `wrap`, or a transformers model with its tokenizer."""
    if isinstance(model, Model):
        if tokenizer is not None or options:
            raise InputError("model: it was loaded already; give tokenizer and options to load_model or wrap")
        return model
    if isinstance(model, (str, Path)):
        return load_model(model, **options)
    if options:
        raise InputError(f"{', '.join(options)}: a model in memory is evaluated as it is; leave them out")
    return wrap(cast(Any, model), tokenizer)
