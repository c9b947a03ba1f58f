"""The runs that a comparison is about: their names, and which was trained from which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.runs.log import LINEAGE
from posttrain.runs.records import Lineage, read_suite
from posttrain.types import InputError

if TYPE_CHECKING:
    from posttrain.config import EvalConfig


def check_free(config: EvalConfig) -> None:
    """Raise InputError where the folder of an evaluation already holds one of its name."""
    if config.out is not None and (config.out / "evaluations" / f"{config.file}.json").exists():
        raise InputError(
            f"--out {config.out}: already holds an evaluation {config.file}; give another "
            f"{'--name or ' if config.suite == 'tasks' else ''}folder"
        )


def name_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Runs by the name of their folder; where two share it, with the folder above: `a/sft` and `b/sft`; where that is
    not enough, by their whole path. Raises InputError for a run given twice."""
    paths = [folder.resolve() for folder in folders]
    for path, count in Counter(paths).items():
        if count > 1:
            raise InputError(f"{path}: given twice; give each run once")
    names = [path.name for path in paths]
    for longer in (lambda p: f"{p.parent.name}/{p.name}", str):
        counts = Counter(names)
        names = [longer(p) if counts[n] > 1 else n for n, p in zip(names, paths, strict=True)]
    return dict(zip(names, paths, strict=True))


def check_run(run: Path) -> None:
    """Raise InputError for a folder that is missing, is no run, is not finished, or whose evaluations are of other
    weights than the run's."""
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; give run folders, such as runs/quickstart/sft")
    if (run / "recipe.yaml").exists() or (run / "compare.json").exists():
        stages = sorted(str(p.parent) for p in run.glob("*/evaluations"))
        raise InputError(f"{run}: holds several runs; give them one by one: {' '.join(stages) or 'none is finished'}")
    if (run / "config.yaml").exists() and not (run / LINEAGE).exists():
        raise InputError(f"{run}: the run is not finished; continue it with --resume first")
    if not any((run / name).exists() for name in ("config.yaml", "lineage.json", "evaluations")):
        raise InputError(f"{run}: not a run folder (no config.yaml, lineage.json or evaluations in it)")
    weights: dict[str, str] = {}
    for place, hash_ in _weights(run).items():
        if weights and hash_ not in weights.values():
            raise InputError(
                f"{run}: {place} is of other weights than {next(iter(weights))}; a run folder holds evaluations of one "
                "model, so evaluate this one into another --out"
            )
        weights[place] = hash_


def other_weights(run: Path, weights_hash: str) -> str | None:
    """What in the folder is of other weights than these: `lineage.json` or an evaluation."""
    return next((place for place, hash_ in _weights(run).items() if hash_ != weights_hash), None)


def _weights(run: Path) -> dict[str, str]:
    """The weights that the run made and that its evaluations are of, as far as they are known."""
    lineage = Lineage.read(run)
    known = {LINEAGE: lineage and lineage.weights_hash}
    for file in sorted((run / "evaluations").glob("*.json")):
        known[str(file.relative_to(run))] = read_suite(file).get("weights_hash")
    return {place: hash_ for place, hash_ in known.items() if hash_}


@dataclass(frozen=True)
class _Origin:
    """What a folder says of its weights. `parents` are the models it was trained from by name, `model` the one that
    was evaluated, where there is no lineage."""

    parents: tuple[str, ...]
    start: str | None
    weights: str | None
    model: str | None

    @property
    def changed(self) -> bool:
        """Whether training moved the weights: if not, they do not tell the run from its parent."""
        return self.weights != self.start


def find_parents(runs: Mapping[str, Path]) -> dict[str, str | None]:
    """For every run the one among `runs` it was trained from, by the names in its lineage; a copy of what is named
    stands for it.

    Where these name no folder that is here (none was written, or it was moved), the run whose weights it began with,
    unless that one's training changed nothing or began with the same model: such a run is a sibling."""
    origins = {name: _origin(folder) for name, folder in runs.items()}
    places = {place: name for name, folder in runs.items() for place in (folder, folder / "model")}
    for name, origin in origins.items():
        if origin.model is not None:
            for place in (Path(origin.model).resolve(), (Path(origin.model) / "model").resolve()):
                places.setdefault(place, name)
    copies = {lineage: name for name, folder in runs.items() if (lineage := _lineage(folder))}
    parents: dict[str, str | None] = {}
    for name, origin in origins.items():
        named = [places.get(Path(p).resolve()) or copies.get(_lineage(Path(p))) for p in origin.parents]
        found = next((p for p in named if p not in (None, name)), None)
        if found is None and not any(Path(p).exists() for p in origin.parents):
            found = next((n for n, other in origins.items() if n != name and _began_with(origin, other)), None)
        parents[name] = None if found is None or _descends(parents, found, name) else found
    return parents


def _lineage(folder: Path) -> str:
    """What `lineage.json` of a run, given as its folder or its model's, says: no other run's says the same. "" where
    there is none."""
    lineage = Lineage.read(folder.parent if folder.name == "model" else folder)
    return lineage.model_dump_json(exclude_unset=True) if lineage else ""


def _began_with(run: _Origin, other: _Origin) -> bool:
    if run.start is None or other.weights != run.start:
        return False
    if other.model is not None and run.parents:  # evaluations of a model whose name the lineage does not give
        return False
    return other.changed and not set(other.parents) & set(run.parents)


def _descends(parents: Mapping[str, str | None], name: str | None, ancestor: str) -> bool:
    return name is not None and (name == ancestor or _descends(parents, parents.get(name), ancestor))


def _origin(folder: Path) -> _Origin:
    lineage = Lineage.read(folder)
    suites = [read_suite(file) for file in sorted((folder / "evaluations").glob("*.json"))]
    weights = [lineage and lineage.weights_hash, *(suite.get("weights_hash") for suite in suites)]
    models = [suite["model"] for suite in suites if suite.get("model")]
    return _Origin(
        parents=tuple(lineage.parents) if lineage else (),
        start=(lineage and lineage.parent_weights_hash) or None,
        weights=next((w for w in weights if w), None),
        model=str(models[0]) if models and not lineage else None,
    )
