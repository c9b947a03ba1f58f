"""Rewards before anything runs. They are loaded once, so that a fault in one is reported then: files and functions,
options, the columns it asks for. What takes long is not done: models that rewards name are only looked for. And the
content behind what `--reward` names: two rewards of one expression are the same only if their files are."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.config import SampleConfig
from posttrain.config.model_names import local_model
from posttrain.expressions import Expression
from posttrain.functions import WRITTEN, contents
from posttrain.rewards.learned import check_model_reward
from posttrain.rewards.protocol import Needs
from posttrain.rewards.registry import BUILTINS, Spec, check_columns, local_models, references_read
from posttrain.rewards.scorer import SERVER, named_twice
from posttrain.types import InputError
from posttrain.workers.pool import WorkerPool
from posttrain.workers.process import START_SECONDS, Closing, WorkerLost


class RewardCheck(Closing):
    """Loads rewards one after the other: those with code of a user in a worker process, which has `seconds` for each,
    the others here."""

    def __init__(self, seconds: float = START_SECONDS) -> None:
        self._seconds = seconds
        self._here, self._worker = (
            WorkerPool(SERVER, size, lambda slot: [], closed="the check is over", not_started=str) for size in (0, 1)
        )

    def close(self) -> None:
        self._here.close()
        self._worker.close()

    def check(self, texts: Sequence[str], columns: Collection[str] | None, coming: Collection[str] = ()) -> None:
        """Check the rewards of one stage against the columns of its data, where they are known. Models in `coming` are
        yet to be trained. Raises InputError for the first thing that is wrong."""
        specs = [Spec.parse(text) for text in texts]
        named_twice(specs)
        for spec in specs:
            for part in spec.expression.walk():
                if part.models:
                    check_model_reward(part)
            for name in local_models([spec.expression]):
                if name not in coming:
                    check_named_model(spec.expression, name)
            needs = self._load(spec.expression)
            if columns is not None:
                check_columns(spec, needs, columns)

    def check_references(self, texts: Sequence[str], columns: Collection[str]) -> None:
        """Raise InputError where rewards that are right read no reference answer among these columns."""
        specs = [Spec.parse(text) for text in texts]
        references_read(specs, [self._load(spec.expression) for spec in specs], columns)

    def _load(self, expression: Expression) -> Needs:
        pool = self._here if all(part.target in BUILTINS for part in expression.walk()) else self._worker
        try:
            answer = pool.worker(0).ask(
                {"kind": "load", "expressions": [expression], "without_judges": "all"}, self._seconds
            )
        except WorkerLost as lost:
            raise InputError(f"reward {expression.text} could not be loaded: {lost}") from None
        if "error" in answer:
            raise InputError(answer["error"])
        return Needs.read(answer["needs"][-1])


def check_named_model(expression: Expression, name: str) -> None:
    """Raise InputError where a model that a reward names is a path that leads to none."""
    try:
        local_model(name)
    except InputError as error:
        raise InputError(f"reward {expression.text}: {str(error).removeprefix('--model ')}") from None


def check_soft_labels(config: SampleConfig) -> None:
    """Raises InputError where soft labels are asked for and the scores are no win rates."""
    specs = [Spec.parse(text) for text in config.reward]
    if config.soft_labels and not (len(specs) == 1 and specs[0].win_rate):
        raise InputError(
            f"soft_labels needs judge_pair(...) as the only reward, with weight 1, not {' + '.join(config.reward)}: "
            "other scores say which answer is better, and not how likely"
        )


def reward_contents(specs: Sequence[str]) -> dict[str, str]:
    """SHA-256 of what each reward reads beside the answers, by the name it has in its expression: the file of a
    function with the modules beside it that it imports, a file that an option names, the weights of a model.

    An installed package and data files that a function opens by itself are not looked at. Raises InputError for an
    expression that cannot be parsed and a model that cannot be found."""
    parts = [part for text in specs for part in Spec.parse(text).expression.walk()]
    return dict(found for part in parts for found in _contents(part))


def reward_functions(specs: Sequence[str]) -> dict[str, dict[str, str]]:
    """The parts of each function that Python handed over, by the hash in its name (see `functions.contents`)."""
    given = [part.function for text in specs for part in Spec.parse(text).expression.walk()]
    return {match[2]: contents(text.load()) for text in given if text and (match := WRITTEN.match(text))}


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
