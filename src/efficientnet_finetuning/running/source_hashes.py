"""The code that a function depends on, from its syntax tree. Comments and docstrings do not count."""

import ast
import gc
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT.name
# These affect a result only through parameter values, or not at all.
_WITHOUT_EFFECT = {"errors", "parameters", "storage", "device", "workers"}
# Libraries whose version can change a result: import name and distribution name.
_COMPUTING = {"PIL": "pillow", "imagehash": "imagehash", "keras": "keras"}


def sources_of(function: Callable[..., Any]) -> dict[str, str]:
    """Hashes of the function and of every module of this package that it imports, by file.

    In the function's own module only the definitions that it uses count, because many nodes share a module.
    """
    module = function.__module__
    hashes = {_file(name): _module_hash(name) for name in _reached(function)}
    own = _own_code(function)
    # Imported modules have their own hashes; an import line may also name things for other nodes.
    own.body = [node for node in own.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return dict(sorted((hashes | {f"{_file(module)}::{function.__name__}": _tree_hash(own)}).items()))


def libraries_of(function: Callable[..., Any]) -> dict[str, str]:
    """Versions of the libraries that compute a function's result."""
    imports = chain(_imports(_own_code(function)), *map(_imports_of, _reached(function)))
    imported = {name.partition(".")[0] for name in imports}
    used = {_COMPUTING[name] for name in imported & _COMPUTING.keys()}
    if "keras" in used:
        used.add(os.environ.get("KERAS_BACKEND", "tensorflow"))
    return {name: version(name) for name in sorted(used)}


def files_of(module: str) -> set[Path]:
    """Files of a module, of all modules of this package that it imports, and of their parent packages."""
    files = {path for name in _closure([module]) if (path := _path(name))}
    above = {folder / "__init__.py" for file in files for folder in file.parents if folder.is_relative_to(_ROOT)}
    return files | above


def _own_code(function: Callable[..., Any]) -> ast.Module:
    """The definitions of a module that a function uses, including itself and the imports."""
    tree = _tree(function.__module__)
    definitions = {name: node for node in tree.body for name in _defined(node)}
    wanted, used = [function.__name__], dict[str, ast.stmt]()
    while wanted:
        name = wanted.pop()
        if name in definitions and name not in used:
            used[name] = definitions[name]
            wanted += [node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)]
    return ast.Module([node for node in tree.body if any(node is kept for kept in used.values())], type_ignores=[])


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _reached(function: Callable[..., Any]) -> set[str]:
    reached = _closure(_imports(_own_code(function)))
    return {name for name in reached if name.split(".")[1] not in _WITHOUT_EFFECT}


def _closure(names: Iterable[str]) -> set[str]:
    """The modules of this package among some names, and all those that they import, directly or indirectly."""
    reached: set[str] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name not in reached and name.partition(".")[0] == _PACKAGE and _path(name):
            reached.add(name)
            wanted += _imports_of(name)
    return reached


@cache
def _imports_of(module: str) -> tuple[str, ...]:
    return tuple(_imports(_tree(module)))


def _imports(tree: ast.AST) -> Iterator[str]:
    """All names that a piece of code imports, at its top or inside. Some of them are functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _tree(module: str) -> ast.Module:
    """The syntax of a module of this package, without its docstrings."""
    path = _path(module)
    assert path is not None, f"{module} is not a module of this package"
    # CPython counts the depth of all threads' trees in one place (gh-106905). A garbage collection lets another thread
    # parse in the middle, which ends in "AST constructor recursion depth mismatch".
    gc.disable()
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return tree


@cache
def _path(name: str) -> Path | None:
    """The file of a module of this package. importlib would import its parent packages."""
    path = _ROOT.joinpath(*name.split(".")[1:])
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _file(module: str) -> str:
    """Path relative to the package: ``training/fit.py``."""
    return str(_path(module).relative_to(_ROOT).as_posix())  # type: ignore[union-attr]


@cache
def _module_hash(module: str) -> str:
    template = _path(module).with_suffix(".html")  # type: ignore[union-attr]
    filled_in = template.read_text(encoding="utf-8") if template.is_file() else ""
    return _tree_hash(_tree(module)) + (f" {hashlib.sha256(filled_in.encode()).hexdigest()}" if filled_in else "")


def _tree_hash(tree: ast.Module) -> str:
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
