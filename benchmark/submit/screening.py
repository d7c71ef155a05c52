"""Screen files that come with a submission: configurations of the model, load options of the record, and images.

A submission selects device, dtype and attention from allowlists; neither its record nor a file of its model can enable
remote code. Files of a model on the Hub are screened like those in a folder. Images are PNG, or SVG without scripts and
external references: the page embeds none, but a reader may open one in a browser.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from benchmark.artifacts import ADAPTER, INDEX_FILE
from benchmark.errors import SubmissionError
from benchmark.files import decode_utf8, read_json, sanitize
from benchmark.models.checkpoint import EXCLUDED_FILES

ATTENTIONS = ("eager", "sdpa")
DTYPE_NAMES = ("float32", "bfloat16", "float16", "float64")
MAX_HUB_JSON_BYTES, MAX_HUB_FILES = 64_000_000, 1_000
CODE_ENTRIES = frozenset((
    "auto_map", "custom_pipelines", "custom_generate", "custom_tools", "trust_remote_code", "code_revision", "remote_code",
    "kernel_config", "use_kernels", "kernel_mapping",
))  # fmt: skip
"""Entries that make a loader import modules from a repository."""
FETCHING_ENTRIES = frozenset((
    "quantization_config", "compression_config", "adapter_config", "peft_config", "base_model_name_or_path", "gguf_file",
    "use_pretrained_backbone", "use_timm_backbone", "assistant_model", "pretrained_model_name_or_path",
))  # fmt: skip
"""Entries that select a library, or weights that the digest does not cover."""
FILE_ENTRIES = ("tokenizer_file", "vocab_file", "merges_file", "spm_file", "sentencepiece_model_file", "index_path")
IMPLEMENTATION_PATTERN = re.compile(r"\w*_implementation(_internal)?")
ALLOWED_IMPLEMENTATIONS = (*ATTENTIONS, "grouped_mm", "batched_mm", None)
CACHE_IMPLEMENTATION = "cache_implementation"
TOKENIZER_CLASS_PATTERN = re.compile(
    r"[A-Z][A-Za-z0-9]{0,60}Tokenizer(Fast)?|TokenizersBackend|PreTrainedTokenizerFast"
)
MODEL_TYPE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")
SPEC_PATTERN = re.compile(
    r"path:[^\0\r\n]{1,1000}|hf:[\w.-]{1,96}/[\w.-]{1,96}@[0-9a-f]{40}|baseline:[a-z][a-z0-9-]{0,60}", re.ASCII
)
DEVICE_PATTERN = re.compile(r"cpu|cuda(:\d{1,3})?", re.ASCII)
WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
LOADED_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", INDEX_FILE)
VOCABULARY_FILES = ("vocab.json", "added_tokens.json", "special_tokens_map.json")
"""Files with arbitrary words as keys."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 8000
SVG_ELEMENTS = {
    "svg", "metadata", "rdf", "work", "type", "date", "format", "creator", "agent", "title", "desc", "defs", "style",
    "g", "path", "use", "rect", "line", "polyline", "polygon", "circle", "ellipse", "text", "tspan", "image",
    "clippath", "lineargradient", "stop", "symbol", "marker", "pattern", "mask",
}  # fmt: skip
EMBEDDED_PNG = "data:image/png;base64,"
CSS_FUNCTIONS = {
    "url", "matrix", "translate", "scale", "rotate", "skewx", "skewy", "rgb", "rgba", "hsl", "hsla", "calc",
}  # fmt: skip
"""CSS functions that load nothing; `url` is limited to references within the image."""


def check_loading(
    spec: str, dtype: str, device: str, attention: str, quantization: str, remote_code: bool, custom_code: bool
) -> None:
    """Check the load options of a record against the allowlists.

    Args:
        spec, dtype, device, attention, quantization, remote_code, custom_code: entries of `model` in the record.

    Raises:
        SubmissionError: an option is not allowed; the message names it.
    """
    field = "record.json: model"
    if remote_code or custom_code or spec.startswith("py:"):
        raise SubmissionError(
            f"{field}: loaded with code of its own, which is never run for a submission; submit a run of a model "
            "that loads without"
        )
    if quantization:
        raise SubmissionError(f"{field}.quantization: {sanitize(quantization)}; a submission's model is not quantized")
    if attention not in ("", *ATTENTIONS):
        raise SubmissionError(f"{field}.attention: {sanitize(attention)}; expected {', '.join(ATTENTIONS)} or none")
    if dtype not in DTYPE_NAMES:
        raise SubmissionError(f"{field}.dtype: {sanitize(dtype)}; expected one of {', '.join(DTYPE_NAMES)}")
    if not DEVICE_PATTERN.fullmatch(device):
        raise SubmissionError(f"{field}.device: {sanitize(device)}; expected cpu, cuda or cuda:N")
    if not SPEC_PATTERN.fullmatch(spec):
        raise SubmissionError(
            f"{field}.spec: {sanitize(spec)}; expected path:FOLDER, hf:org/name@(40 digits of a commit) or baseline:NAME"
        )


def screen_model_file(name: str, content: Any) -> None:
    """Screen a JSON file of a model for entries that make a loader run code, download files or select a library.

    Args:
        name: name of the file.
        content: parsed content of the file.

    Raises:
        SubmissionError: an entry is refused, at any depth; the message names the first one.
    """
    if not isinstance(content, dict):
        raise SubmissionError(f"{name}: expected an object, got {type(content).__name__}")
    if name == "tokenizer.json":
        # Its keys include the vocabulary; the format has no entry for code.
        content = {key: value for key, value in content.items() if key != "model"}
    for entry, value in _entries(content):
        if entry in CODE_ENTRIES:
            raise SubmissionError(f"{name}: {entry}: asks for code of its own, which is never run; remove it")
        if entry in FETCHING_ENTRIES and value not in (None, False, {}):
            raise SubmissionError(f"{name}: {entry}: chooses a library or other weights; remove it")
        if (
            IMPLEMENTATION_PATTERN.fullmatch(entry)
            and entry != CACHE_IMPLEMENTATION
            and not _is_builtin_implementation(value)
        ):
            raise SubmissionError(
                f"{name}: {entry}: {sanitize(value)} would fetch code from a hub or load a library; expected "
                f"{' or '.join(ATTENTIONS)}, or remove it"
            )
        if entry in FILE_ENTRIES and isinstance(value, str) and re.search(r"[/\\]", value):
            raise SubmissionError(
                f"{name}: {entry}: {sanitize(value)} lies elsewhere; expected a file's name, or remove it"
            )
        if entry == "tokenizer_class" and value is not None and not _matches(TOKENIZER_CLASS_PATTERN, value):
            raise SubmissionError(f"{name}: {entry}: {sanitize(value)} is no tokenizer of transformers")
        if entry == "model_type" and name == "config.json" and not _matches(MODEL_TYPE_PATTERN, value):
            raise SubmissionError(f"{name}: {entry}: {sanitize(value)} is no model type of transformers")
    if name == "config.json" and not isinstance(content.get("model_type"), str):
        raise SubmissionError(f"{name}: no model_type; expected what save_pretrained writes")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) for every object in a JSON value."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield from current.items()
            pending += current.values()
        elif isinstance(current, list):
            pending += current


def _is_builtin_implementation(value: Any) -> bool:
    """Whether a value is an allowed implementation, or maps the parts of a composite model to allowed ones."""
    if isinstance(value, dict):
        return all(isinstance(part, str | None) and part in ALLOWED_IMPLEMENTATIONS for part in value.values())
    return isinstance(value, str | None) and value in ALLOWED_IMPLEMENTATIONS


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def check_index(content: Any, names: set[str]) -> None:
    """Check that the index of a sharded checkpoint maps tensors to weight files in the same folder.

    Args:
        content: parsed `model.safetensors.index.json`.
        names: names of the files in the folder.

    Raises:
        SubmissionError: the index is malformed, or names another file.
    """
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise SubmissionError(f"{INDEX_FILE}: no weight_map of tensors to files; save the weights again")
    for tensor, shard in shards.items():
        if not _matches(WEIGHT_FILE, shard) or shard not in names:
            raise SubmissionError(
                f"{INDEX_FILE}: {sanitize(tensor)} lies in {sanitize(shard)}, no weight file of this folder"
            )


def screen_model_folder(folder: Path, is_hub: bool) -> None:
    """Screen every JSON file in the folder of a model.

    Args:
        folder: folder of the model.
        is_hub: whether the files are links into the Hub cache, which are followed.

    Raises:
        SubmissionError: a file is refused.
    """
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MAX_HUB_FILES:
        raise SubmissionError(f"{len(paths):,} JSON files; at most {MAX_HUB_FILES:,} are read")
    for path in paths:
        if path.name == ADAPTER:
            raise SubmissionError(f"{path.name}: an adapter loads the weights of another model; merge it into its own")
        if path.name in EXCLUDED_FILES or path.name in VOCABULARY_FILES:
            continue
        content = read_json(path.resolve() if is_hub else path, MAX_HUB_JSON_BYTES)
        if path.name == INDEX_FILE:
            check_index(content, {weights.name for weights in folder.glob("*.safetensors")})
        if not isinstance(content, dict) and path.name not in LOADED_FILES:
            # A file of another library, such as modules.json: screen its entries too.
            content = {path.name: content}
        screen_model_file(path.name, content)
    if any(folder.glob("*.py")) and not is_hub:
        raise SubmissionError(f"{sanitize(folder.name)}: modules beside the weights; they are never run, remove them")


def check_image(name: str, content: bytes) -> None:
    """Check a PNG or SVG image.

    Args:
        name: name of the file.
        content: bytes of the file.

    Raises:
        SubmissionError: the image is malformed, too large, or contains scripts or external references.
    """
    if name.endswith(".png"):
        if not content.startswith(PNG_SIGNATURE) or content[12:16] != b"IHDR" or len(content) < 33:
            raise SubmissionError(f"{name}: not a PNG file")
        width, height = struct.unpack(">II", content[16:24])
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
            raise SubmissionError(f"{name}: {width} by {height} pixels; at most {MAX_SIDE} by {MAX_SIDE}")
        return
    _SvgChecker(name).check(decode_utf8(content, name))


class _SvgChecker:
    """Event-based SVG parser that refuses every element, attribute and style that is not on the allowlist."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.elements: list[str] = []
        self.text: list[str] = []

    def check(self, text: str) -> None:
        parser = expat.ParserCreate(encoding="utf-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartElementHandler = self._element
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self.text.append
        try:
            parser.Parse(text.encode(), True)
        except expat.ExpatError as error:
            raise SubmissionError(f"{self.name}: not an SVG file ({error})") from error

    def _refuse(self, reason: str) -> None:
        raise SubmissionError(f"{self.name}: {reason}; a figure only draws")

    def _doctype(self, kind: str, system: str | None, public: str | None, internal: int) -> None:
        if internal or kind != "svg":
            self._refuse("a document type with declarations of its own")

    def _instruction(self, target: str, data: str) -> None:
        self._refuse(f"instruction {sanitize(target)}")

    def _element(self, element: str, attributes: dict[str, str]) -> None:
        self._check_text()
        self.elements.append(element.rpartition(":")[2].lower())
        if self.elements[-1] not in SVG_ELEMENTS:
            self._refuse(f"element {sanitize(element)}")
        for attribute, value in attributes.items():
            name = attribute.rpartition(":")[2].lower()
            if name.startswith("on") or name == "base":
                self._refuse(f"attribute {sanitize(attribute)}")
            if name in ("href", "src") and not value.startswith(("#", EMBEDDED_PNG)):
                self._refuse(f"reference {sanitize(value)}")
            self._style(value)

    def _end(self, element: str) -> None:
        self._check_text()
        self.elements.pop()

    def _check_text(self) -> None:
        """Check the text since the last tag as a whole: the parser may split it within a reference."""
        text = "".join(self.text)
        self.text.clear()
        if "style" in self.elements:
            self._style(text)
        else:
            self._no_address(text)

    def _style(self, text: str) -> None:
        self._no_address(text)
        for function in re.findall(r"([\w-]+)\(", text.lower()):
            if function not in CSS_FUNCTIONS:
                self._refuse(f"style {sanitize(text)}")

    def _no_address(self, text: str) -> None:
        plain = "".join(text.lower().split())
        if "@import" in plain or "\\" in plain or "url(" in plain.replace("url(#", ""):
            self._refuse(f"style {sanitize(text)}")
