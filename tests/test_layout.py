"""Imports point one way: the layers of DESIGN.md, held by reading the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    [
        "crew",
        "errors",
        "extraction",
        "lookalike",
        "markup",
        "memory_limit",
        "phases",
        "prompts",
        "protocol",
        "redaction",
        "simulation",
        "statistics",
    ],
    [
        "bounded",
        "charts",
        "command",
        "custom_code",
        "grid",
        "intake",
        "labels",
        "model_files",
        "models",
        "paired",
        "pool",
        "shards",
        "suites",
    ],
    [
        "bounds",
        "change",
        "chat_template",
        "contract",
        "decoding",
        "factory",
        "hub",
        "images",
        "prior",
        "probing",
        "recorder",
        "scoring",
        "screening",
        "tensors",
        "word_pieces",
    ],
    [
        "answers",
        "model_formats",
        "pseudo_models",
        "semantic_content",
        "submission",
        "tracks",
        "trained_pair",
        "weights",
    ],
    ["change_report", "checkpoint", "diagnostics", "fingerprint", "readings", "sealed", "sources"],
    ["architecture", "codelength"],
    ["tokenizers"],
    ["huggingface"],
    ["loading", "soundness"],
    ["evaluation", "frames"],
    ["content", "folder", "generation_bench", "legacy", "measurement", "patient", "player"],
    ["figures", "full_grid", "own_checks", "record", "work"],
    ["actor", "calibrate", "duplicates", "fits", "preflight", "record_check", "verified"],
    ["answer_check", "checks", "cluster", "draft", "reading_check", "stages"],
    ["driver", "options", "rerun", "trajectory", "verification"],
    ["audit", "compare", "curves", "doctor"],
    ["standings", "submit"],
    ["export", "leaderboard"],
    ["incoming", "rowpage", "run", "status"],
    ["cluster_bench", "emergence", "page", "sweep"],
    ["bench"],
]
TORCH_FREE = {
    "command",
    "custom_code",
    "errors",
    "protocol",
    "statistics",
    "paired",
    "suites",
    "prompts",
    "labels",
    "recorder",
    "prior",
    "pseudo_models",
    "scoring",
    "models",
    "checkpoint",
    "hub",
    "factory",
    "contract",
    "grid",
    "figures",
    "shards",
    "crew",
    "memory_limit",
    "pool",
    "simulation",
    "status",
    "phases",
    "tracks",
    "extraction",
    "answers",
    "intake",
    "images",
    "submission",
    "sealed",
    "word_pieces",
    "lookalike",
    "markup",
    "redaction",
    "change",
    "fingerprint",
    "change_report",
}
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "karel_env").glob("*.py")), ids=lambda p: p.stem)
def test_karel_env_knows_no_one_else(path: Path) -> None:
    heads = {name.split(".")[0] for name in imports(path)}
    assert not heads & {"torch", "ray", "transformers", "benchmark", "baselines"}


@pytest.mark.parametrize("path", sorted((ROOT / "benchmark").glob("*.py")), ids=lambda p: p.stem)
def test_benchmark_imports_downwards_only(path: Path) -> None:
    found = imports(path)
    heads = {name.split(".")[0] for name in found}
    assert "baselines" not in heads
    assert "ray" not in heads or path.stem in ("cluster", "actor")
    assert not (path.stem in TORCH_FREE and heads & {"torch", "transformers"})
    if path.stem == "__init__":
        return
    for name in found:
        if name.startswith("benchmark."):
            below = name.split(".")[1]
            assert RANK[below] < RANK[path.stem], f"{path.stem} imports {below}"
