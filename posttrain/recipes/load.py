"""Recipes: a YAML file, at one of its sizes and with changes, as one checked `Recipe`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from posttrain.config import HeldOut, ModelShape, Recipe
from posttrain.config.base import close_choice
from posttrain.config.peer_names import look_up, meant
from posttrain.console import current_names
from posttrain.recipes.controls import arms, faults
from posttrain.runs.config import LENGTH
from posttrain.types import InputError

SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the recipes that come with posttrain, and of their files."""
MERGE = "tag:yaml.org,2002:merge"
"""What YAML calls the key `<<`, which takes over the keys of another mapping."""
Place = tuple[str, ...]
"""The keys that lead to a setting: `("stages", "sft", "data")`."""
HAS_KEYS: Mapping[str, tuple[str, ...]] = {
    "": (*Recipe.model_fields, "sizes"),
    "evaluate": tuple(HeldOut.model_fields),
    "shape": tuple(ModelShape.model_fields),
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with a recipe, and at which key."""

    place: Place
    text: str


class RecipeFaults(InputError):
    """Everything that was found to be wrong with a recipe."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("\n".join(fault.text for fault in self.faults))


class Findings:
    """Faults as they are found, so that one message lists all of them."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def add(self, place: Place, text: str) -> None:
        self.faults.append(Fault(place, text))

    @contextmanager
    def collect(self, place: Place, prefix: str = "") -> Iterator[None]:
        """Take an InputError that is raised in here for a fault at `place`."""
        try:
            yield
        except RecipeFaults as error:
            self.faults += error.faults
        except InputError as error:
            self.add(place, prefix + str(error))

    def check(self) -> None:
        """Raise RecipeFaults where there are some."""
        if self.faults:
            raise RecipeFaults(self.faults)


@dataclass(frozen=True)
class RecipeText:
    """A recipe as it is written: its settings at a size and with changes, and where each stands. `lines` has a line's
    number, or the option `--set` that gives the setting. `arms` has the stage of each control arm."""

    name: str
    raw: dict[str, Any]
    lines: dict[Place, int | str] = field(default_factory=dict)
    arms: dict[str, str] = field(default_factory=dict)

    @property
    def is_shipped(self) -> bool:
        return not _is_file(self.name)

    @property
    def folder(self) -> Path:
        """The folder of its file."""
        return SHIPPED if self.is_shipped else Path(self.name).parent

    def told(self, error: RecipeFaults) -> InputError:
        """The faults with the file and their lines, in the order of the file; what is wrong with a control arm too is
        told of its stage alone."""
        texts = {fault.text for fault in error.faults}
        own = [fault for fault in error.faults if self._of_stage(fault) not in texts]
        found = sorted(((self._line(fault.place), fault.text) for fault in own), key=_order)
        if len(found) == 1:
            line, text = found[0]
            return InputError(f"recipe {self.name}{f', {_shown(line)}' if line else ''}: {text}")
        listed = "\n".join(f"  {_shown(line)}: {text}" if line else f"  {text}" for line, text in found)
        return InputError(f"recipe {self.name} has {len(found)} faults:\n{listed}")

    def _of_stage(self, fault: Fault) -> str | None:
        """The text of a fault of a control arm, as it would be of its stage."""
        name = next(iter(fault.place[1:2]), "")
        return fault.text.replace(f"stage {name}", f"stage {self.arms[name]}") if name in self.arms else None

    def _line(self, place: Place) -> int | str:
        return next((self.lines[p] for n in range(len(place), 0, -1) if (p := place[:n]) in self.lines), 0)


def _shown(line: int | str) -> str:
    return line if isinstance(line, str) else f"line {line}"


def _order(found: tuple[int | str, str]) -> tuple[bool, int]:
    line = found[0]
    return (True, 0) if isinstance(line, str) else (False, line)


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that is given twice is an error: two stages of one name would be one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_recipe(name: str, overrides: tuple[str, ...] = (), size: str | None = None) -> Recipe:
    """A shipped recipe by name, or a YAML file, at one of its sizes (the first, if none is given), with
    `stage.key=value` overrides (`evaluate.key`, `model` and `seed` too; values are YAML). Paths in it are as they are
    written."""
    text = read_text(name, overrides, size)
    try:
        return checked_recipe(text.raw)
    except RecipeFaults as error:
        raise text.told(error) from error


def read_text(name: str, overrides: Sequence[str] = (), size: str | None = None) -> RecipeText:
    """See `load_recipe`; the stages and keys are not checked yet. Raises InputError for what is no YAML, has no stages,
    or lacks what a size or an override would change."""
    source = _recipe_source(name)
    try:
        loader = UniqueKeys(source)
        node = loader.get_single_node()
        lines: dict[Place, int | str] = dict(_lines(node))
        raw = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(f"recipe {name}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), dict):
        raise InputError(f"recipe {name}: {_no_recipe(raw)}")
    text = RecipeText(name, raw, lines)
    _to_size(text, size)
    for override in overrides:
        _override(text, override)
    for stage, options in raw["stages"].items():
        if isinstance(options, dict):
            raw["stages"][stage] = current_names(options)
    _add_controls(text)
    return text


def _add_controls(text: RecipeText) -> None:
    """Put the control arms of stages beside them; a setting of an arm stands where that of its stage does."""
    stages = text.raw["stages"]
    if found := list(faults(stages)):
        raise text.told(
            RecipeFaults(Fault(("stages", stage, "controls"), f"stage {stage}: {what}") for stage, what in found)
        )
    expanded = list(arms(stages))
    for arm in expanded:
        own = {place: line for place, line in text.lines.items() if place[:2] == ("stages", arm.of)}
        text.lines.update({("stages", arm.name, *place[2:]): line for place, line in own.items()})
    text.raw["stages"] = {arm.name: arm.settings for arm in expanded}
    text.arms.update({arm.name: arm.of for arm in expanded if arm.name != arm.of})


def _no_recipe(raw: Any) -> str:
    if isinstance(raw, dict) and raw.get("stages") is not None:
        return "stages is a mapping: the name of each stage, and under it method, parent and the rest"
    theirs = [str(key) for key in raw if look_up(str(key))] if isinstance(raw, dict) else []
    if theirs:
        return (
            f"has no stages, and {', '.join(theirs[:3])} as another trainer's files have; docs/from-trl.md says what "
            "stands for such names, docs/recipes.md how a recipe is written"
        )
    return "needs a mapping with model and stages"


def checked_recipe(raw: Mapping[str, Any]) -> Recipe:
    """Raises RecipeFaults."""
    try:
        return Recipe(**raw)
    except (ValidationError, TypeError) as error:
        if not isinstance(error, ValidationError):
            raise RecipeFaults([Fault((), "its keys must be words")]) from error
        found = Findings()
        for place, text in problems(error):
            above = ".".join(place[:-1])
            found.add(place, text + (about_key(place[-1], HAS_KEYS.get(above, ())) if "unknown key" in text else ""))
        raise RecipeFaults(found.faults) from error


def _lines(node: yaml.Node | None, above: Place = ()) -> Iterator[tuple[Place, int]]:
    """The line of each key of a document, four keys deep: `sizes` hold `stage.key`."""
    if not isinstance(node, yaml.MappingNode) or len(above) == 3:
        return
    for key, value in node.value:
        place = (*above, str(key.value))
        yield place, key.start_mark.line + 1
        yield from _lines(value, place)


def _to_size(text: RecipeText, size: str | None) -> None:
    """Make the changes of a size. Raises InputError for one that the recipe does not have."""
    name, sizes = text.name, text.raw.pop("sizes", None)
    if sizes is None:
        if size is not None:
            raise InputError(f"recipe {name}: has no sizes; leave --size {size} out")
        return
    if not isinstance(sizes, dict) or not sizes or not all(isinstance(s, dict | None) for s in sizes.values()):
        raise InputError(f"recipe {name}: sizes is a mapping of names to changes, stage.key: value")
    chosen = next(iter(sizes)) if size is None else size
    if chosen not in sizes:
        hint = did_you_mean(str(chosen), map(str, sizes)) or ";"
        raise InputError(f"recipe {name}: has no size {chosen!r}{hint} its sizes are {', '.join(map(str, sizes))}")
    for key, value in (sizes[chosen] or {}).items():
        line = text.lines.get(("sizes", str(chosen), str(key)), 0)
        _set(text, str(key), value, f"recipe {name}, size {chosen}", line)


def shipped_recipes() -> list[str]:
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml")


def _recipe_source(name: str) -> str:
    path = Path(name)
    if _is_file(name):
        if not path.is_file():
            shipped = f"; posttrain run {path.stem} runs the shipped recipe" if path.stem in shipped_recipes() else ""
            raise InputError(f"recipe {name}: no such file{shipped}")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"recipe {name}: not UTF-8 text ({error.reason})") from error
    if name not in shipped_recipes():
        raise InputError(
            f"recipe {name}: unknown{did_you_mean(name, shipped_recipes()) or ';'} shipped are "
            f"{', '.join(shipped_recipes())}, or give a .yaml file"
        )
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def _override(text: RecipeText, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write it as stage.key=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: the value is not valid YAML") from error
    _set(text, key, parsed, f"--set {override}", f"--set {override}")


def _set(text: RecipeText, key: str, value: Any, what: str, line: int | str) -> None:
    """Change one setting of a recipe. Raises InputError, beginning with `what`, for a key that it does not have."""
    raw = text.raw
    place: Place
    where, dot, option = key.partition(".")
    if not dot and where in ("model", "seed", "shape", "chat_template"):
        raw[where], place = value, (where,)
    elif dot and where == "evaluate" and isinstance(raw.get("evaluate"), dict):
        raw["evaluate"][option], place = value, (where, option)
    elif dot and where == "audits" and (name := option.partition(".")[0]) in raw.get("audits", {}):
        option = option.partition(".")[2]
        raw["audits"][name], place = {**raw["audits"][name], option: value}, (where, name, option)
    elif dot and isinstance(raw["stages"].get(where), dict):
        # a mapping that YAML shares between stages is changed for one of them
        stage = dict(raw["stages"][where])
        if option in LENGTH and value is not None:  # one stands for the other
            stage |= dict.fromkeys(LENGTH & stage.keys())
        raw["stages"][where] = {**stage, option: value}
        place = ("stages", where, option)
    else:
        parts = [*map(str, raw["stages"]), *(["evaluate"] if "evaluate" in raw else [])]
        close = did_you_mean(where, [*parts, "model", "seed"]) or ";"
        known = ", ".join([*(f"{part}.KEY" for part in parts), "model", "seed"])
        raise InputError(f"{what}: {key} is not in the recipe{close} it has {known}")
    text.lines[place] = line


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?`, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def about_key(key: str, known: Iterable[str]) -> str:
    """What to say of an unknown key: which of those that are known another trainer calls so, or is close to it."""
    keys = list(known)
    ours = meant(key, keys)
    if ours is None or ours in keys:
        return f"; did you mean {ours}?" if ours else did_you_mean(key, keys)
    return f"; {ours}"


def problems(error: ValidationError) -> Iterator[tuple[Place, str]]:
    """Everything that is wrong, each as its place and `key: what`."""
    for problem in error.errors():
        where = ".".join(str(p) for p in problem["loc"])
        what = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        if problem["type"].endswith(("_parsing", "_type")):
            rule = what.split(", unable to parse")[0].replace("Input should be", "must be").replace("tuple", "list")
            what = f"{rule}, not {problem['input']!r}"
        if problem["type"] == "literal_error":
            what = f"{what.replace('Input should be', 'must be')}, not {problem['input']!r}{close_choice(problem)}"
        yield tuple(map(str, problem["loc"])), f"{where}: {what}" if where else what
