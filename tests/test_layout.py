"""Imports point one way: the layers of DESIGN.md, held by reading the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    ["errors", "protocol", "memory_limit", "crew", "redaction"],
    [
        "command",
        "custom_code",
        "statistics",
        "suites",
        "prompts",
        "simulation",
        "phases",
        "intake",
        "lookalike",
        "markup",
    ],
    ["labels", "scoring", "grid", "tracks", "extraction", "images", "paired", "change", "bounds"],
    ["recorder", "prior", "answers", "submission"],
    ["probing", "models", "pseudo_models", "trained_pair", "sealed", "fingerprint", "change_report"],
    ["hub", "factory", "contract", "semantic_content"],
    ["checkpoint"],
    ["decoding", "sources", "diagnostics", "word_pieces"],
    ["huggingface"],
    ["loading"],
    ["evaluation", "codelength", "shards", "pool", "readings"],
    ["folder", "measurement", "content"],
    ["full_grid", "figures", "work"],
    ["fits", "preflight", "record"],
    ["actor", "stages", "verified", "patient", "duplicates", "frames", "record_check"],
    ["cluster"],
    ["checks", "own_checks", "reading_check"],
    ["answer_check"],
    ["verification"],
    ["driver", "options", "trajectory", "rerun", "draft"],
    ["compare", "curves", "audit"],
    ["standings"],
    ["leaderboard"],
    ["player", "charts"],
    ["rowpage"],
    ["page"],
    ["run", "status", "calibrate", "legacy", "submit"],
    ["sweep", "cluster_bench", "emergence", "export", "incoming", "reread", "doctor", "generation_bench"],
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
