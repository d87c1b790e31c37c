"""Hash of a plug-in's source code: it shows that the code was changed while its version was not.

The hash is stored beside images, checkpoints and scores, and is never part of a key: an edit must not by itself make them anew.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from srbench.catalog import plugins
from srbench.errors import SrbenchError, UsageError

DIGITS = 16
"""Hex digits of a source's hash."""
UNKNOWN = ""
"""In place of a hash where the code cannot be read, such as that of a class typed at a prompt."""


def source_of(kind: str, name: str) -> str:
    """Hash of a plug-in's code: its module and what that imports from its own package. Empty where it cannot be read.

    kind: `methods`, `scorers` or `attacks`. Comments, docstrings, METHOD's equation and empty lines do not
    count. For srbench's own plug-ins the files of their folder count, without the contract in `base`. Raises `UsageError` for an
    unknown name.
    """
    plugin = plugins.known(kind, name)
    return _of_module(kind, plugin.module) if plugin.module != plugins.SESSION else _of_class(plugins.load(kind, name))


@cache  # asked for every image and score; a class that is registered anew is another one
def _of_class(cls: type) -> str:
    try:
        return _hashed(_texts_of(cls))
    except (OSError, TypeError, SyntaxError):
        return UNKNOWN


def _texts_of(cls: type) -> dict[str, str]:
    """The source of a class defined in this process; in a notebook only that of its functions can be read.

    Raises `OSError` or `TypeError` where there is no source.
    """
    try:
        return {cls.__name__: inspect.getsource(cls)}
    except (OSError, TypeError):
        functions = {name: inspect.unwrap(getattr(cls, name)) for name in vars(cls) if inspect.isroutine(getattr(cls, name))}
        return {name: inspect.getsource(each) for name, each in functions.items() if inspect.isfunction(each)}


@cache
def _of_module(kind: str, module: str) -> str:
    home = f"srbench.{kind}" if module.startswith("srbench.") else module.partition(".")[0]
    try:
        return _hashed({each: path.read_text(encoding="utf-8") for each, path in _closure(module, home, f"{home}.base").items()})
    except (OSError, ValueError, SyntaxError, SrbenchError):
        return UNKNOWN


def _closure(module: str, home: str, without: str) -> dict[str, Path]:
    """Dotted name -> file of a module and of all that it imports below `home`, directly or not, also inside functions."""
    files: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name in files or name == without:
            continue
        with suppress(UsageError):  # a function or class that is imported from a module
            files[name] = plugins.file_of(name)
            todo += [each for each in _imported(name, files[name]) if each == home or each.startswith(f"{home}.")]
    return files


def _imported(module: str, path: Path) -> Iterator[str]:
    """Modules that a file imports; of `from a import b` also `a.b`, since that may be a module itself."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


def differs(kind: str, name: str, stored: object) -> bool:
    """Whether something was made by other code than the plug-in has now; False where either hash is unknown."""
    now = source_of(kind, name)
    return isinstance(stored, str) and stored != UNKNOWN and now not in (UNKNOWN, stored)


def changed(kind: str, name: str, count: int, what: str) -> str:
    """The warning that `count` stored things made by a plug-in's earlier code are used. what: the word for one of them."""
    plugin = plugins.known(kind, name)
    where = "its metadata" if plugin.module == plugins.SESSION else f"{plugins.KINDS[kind]} of {plugin.module}"
    things = f"{count} stored {what}{'s' if count != 1 else ''}"
    return (
        f"{name}: the code was changed since it made {things}, and its version ({plugin.meta['version']}) was not; they are used "
        f"as they are. If the change alters results, raise the version in {where}: then they are made anew"
    )


# --- what counts ------------------------------------------------------------------------------------------------------


def _hashed(texts: dict[str, str]) -> str:
    whole = hashlib.sha256()
    for name, text in sorted(texts.items()):
        whole.update(f"{name}\n{_without_prose(text)}\n".encode())
    return whole.hexdigest()[:DIGITS]


def _without_prose(text: str) -> str:
    """Python code without comments, docstrings, METHOD's equation, empty lines and trailing blanks.

    Raises `SyntaxError` for other text.
    """
    text = textwrap.dedent(text)
    tree, lines = ast.parse(text), text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and _is_alone(node, lines):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (1 + (node.end_lineno or node.lineno) - node.lineno)
    for first, last in _equations(tree, lines):
        lines[first - 1 : last] = [""] * (1 + last - first)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _equations(tree: ast.Module, lines: list[str]) -> Iterator[tuple[int, int]]:
    """First and last line of METHOD's equation, where it has lines of its own: a text for readers, like a docstring."""
    for node in tree.body:
        targets = [each.id for each in node.targets if isinstance(each, ast.Name)] if isinstance(node, ast.Assign) else []
        if not (isinstance(node, ast.Assign) and "METHOD" in targets and isinstance(node.value, ast.Dict)):
            continue
        for key, value in zip(node.value.keys, node.value.values, strict=True):
            if not (isinstance(key, ast.Constant) and key.value == "equation"):
                continue
            last = value.end_lineno or value.lineno
            before = lines[key.lineno - 1].encode()[: key.col_offset]
            behind = lines[last - 1].encode()[value.end_col_offset :]
            if not before.strip() and behind.strip() == b",":
                yield key.lineno, last


def _is_alone(node: ast.Expr, lines: list[str]) -> bool:
    """Whether a statement is a bare string (a docstring, or one below an attribute) with no other code on its lines."""
    if not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
        return False
    before = lines[node.lineno - 1].encode()[: node.col_offset]
    behind = lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset :]
    return not before.strip() and not behind.strip()
