"""The content behind what `--reward` names: two rewards of one expression are the same only if their files are."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.expressions import Expression
from posttrain.rewards.registry import BUILTINS, Spec


def reward_contents(specs: Sequence[str]) -> dict[str, str]:
    """SHA-256 of what each reward reads beside the answers, by the name it has in its expression: the file of a
    function with the modules beside it that it imports, a file that an option names, the weights of a model.

    An installed package and data files that a function opens by itself are not looked at. Raises InputError for an
    expression that cannot be parsed and a model that cannot be found."""
    parts = [part for text in specs for part in Spec.parse(text).expression.walk()]
    return dict(found for part in parts for found in _contents(part))


def _contents(part: Expression) -> Iterator[tuple[str, str]]:
    where = part.target.rpartition(":")[0]
    if part.target not in BUILTINS and part.function is None and (file := _file_of(where)) is not None:
        yield where, _hash_of(_with_neighbours(file))
    for value in part.options.values():
        if isinstance(value, str) and os.path.isfile(value):
            yield value, _hash_of([Path(value)])
    for model in part.models:
        from posttrain.models import weights_hash
        from posttrain.models.load import model_folder

        yield model, weights_hash(Path(model_folder(model)))


def _file_of(where: str) -> Path | None:
    """The file of `file.py`, or of a module `package.module` that lies in the working folder."""
    if where.endswith(".py"):
        return Path(where)
    inside = Path(*where.split("."))
    return next((f for f in (inside.with_suffix(".py"), inside / "__init__.py") if f.is_file()), None)


def _with_neighbours(file: Path) -> list[Path]:
    """The file and, in the order they are found, the modules beside it that it or they import."""
    found = [file]
    for source in found:  # grows while it is read
        for name in _imported(source):
            inside = file.parent.joinpath(*name.split("."))
            found += [f for f in (inside.with_suffix(".py"), inside / "__init__.py") if f.is_file() and f not in found]
    return found


def _imported(source: Path) -> Iterator[str]:
    """Every name that stands in an import, of what is imported from a package too, since it may be a module."""
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from filter(None, (base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)))


def _hash_of(files: Sequence[Path]) -> str:
    digest: Any = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}\n{len(content)}\n".encode(errors="replace") + content)
    return str(digest.hexdigest())
