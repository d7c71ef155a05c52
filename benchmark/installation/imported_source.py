"""The source that a module runs: itself and every module of the project that it imports, transitively.

Results that take hours are kept under the digest of the code that computes them, so that an edit elsewhere in the project
throws none of them away. Imports are read from the source: those inside of functions count, those for type checkers only do
not. A package's `__init__` counts where a name of its own is imported from it; its other modules count only where they are
imported.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmark.installation.paths import PACKAGES, SOURCE_ROOT


def imported_modules(module: str, root: Path = SOURCE_ROOT) -> list[str]:
    """Names of the modules of the project that a module imports, transitively, with its own; sorted.

    Args:
        module: its name, such as `benchmark.calibrate.rotation_draw`.
        root: folder of the packages.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    if _source_file(module, root) is None:
        raise ModuleNotFoundError(f"{module}: no such module; expected one of {', '.join(PACKAGES)}")
    reached: set[str] = set()
    open_modules = [module]
    while open_modules:
        name = open_modules.pop()
        if name not in reached:
            reached.add(name)
            open_modules += _resolve(_read(name, root).imports, root)
    return sorted(reached)


def imported_source_digest(module: str, root: Path = SOURCE_ROOT) -> str:
    """SHA-256 over the code of `imported_modules`, without comments, docstrings and layout."""
    digest = hashlib.sha256()
    for name in imported_modules(module, root):
        digest.update(f"{name}\0{_read(name, root).code}\0".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Source:
    """What counts of a file.

    Attributes:
        code: its syntax tree without docstrings, as text.
        imports: module and name (empty for `import module`) of each import at run time.
    """

    code: str
    imports: tuple[tuple[str, str], ...]


def _source_file(module: str, root: Path) -> Path | None:
    """The file of a module or of a package's `__init__`; None if it is none of the project."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    files = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in files if path.is_file()), None)


def _read(module: str, root: Path) -> _Source:
    path = _source_file(module, root)
    assert path is not None, module
    return _parse(path.read_bytes())


@lru_cache(maxsize=1024)
def _parse(content: bytes) -> _Source:
    tree = ast.parse(content)
    imports: list[tuple[str, str]] = []
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "the project has absolute imports only"
            assert node.module
            imports += [(node.module, alias.name) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return _Source(ast.dump(tree), tuple(imports))


def _resolve(imports: Sequence[tuple[str, str]], root: Path) -> Iterator[str]:
    """The modules of the project among imports: a package's module by name, else the module that the name is in."""
    for module, name in imports:
        submodule = f"{module}.{name}"
        if name and _source_file(submodule, root):
            yield submodule
        elif _source_file(module, root):
            yield module


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, except of blocks that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for branch in child.orelse:
                yield from (branch, *_runtime_nodes(branch))
        else:
            yield from (child, *_runtime_nodes(child))


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
