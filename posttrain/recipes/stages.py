"""The stages of a recipe: what each takes, where its rows come from, and the configuration of its method."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posttrain.config import read_columns
from posttrain.methods import METHODS, Method
from posttrain.recipes.load import Fault, RecipeFaults, about_key, problems

START = "start"
OTHER_MODELS = ("teacher", "policy")
"""Options that name a model beside the parent: of an earlier stage, or as on the command line."""
STAGE_MODEL = re.compile(r'(?P<quote>"?)\{(?P<stage>[A-Za-z0-9][A-Za-z0-9_-]*)\}(?P=quote)')
"""How a reward names the model of a stage, perhaps in quotes."""


@dataclass(frozen=True)
class DataSource:
    """Rows of an earlier stage, in its `file` and with a `weight` as `*0.3`, or of a source as on the command line,
    where `file` is None."""

    name: str
    file: str | None = None
    weight: str = ""

    def path(self, out: Path) -> str:
        return self.name if self.file is None else str(out / self.name / self.file) + self.weight


@dataclass(frozen=True)
class StageSpec:
    """One stage of a recipe, checked. `parent` is None for a stage that makes data with a model or endpoint of its
    own; that of an average is the first model it is `of`."""

    name: str
    method: str
    parent: str | None
    data: tuple[DataSource, ...]
    flops_of: str | None
    options: Mapping[str, Any]
    of: tuple[str, ...] = ()
    faulty: bool = False
    """Whether something is wrong with it, so that it says nothing about the stages that build on it."""

    @property
    def about(self) -> Method:
        return METHODS[self.method]

    @property
    def makes_model(self) -> bool:
        """Whether it makes a language model; else it makes data, or a reward model."""
        return self.about.writes == "model"

    @property
    def spends(self) -> bool:
        """Whether it takes operations that are counted: an average takes none, and an endpoint's are not known."""
        return self.about.counts_flops and "endpoint" not in self.options

    @property
    def columns(self) -> Mapping[str, str] | None:
        """The columns of its data that have other names, as its configuration reads them."""
        names: Mapping[str, str] | None = read_columns(self.options.get("columns"))
        return names

    @property
    def data_stages(self) -> tuple[str, ...]:
        """The earlier stages whose rows it reads, each once."""
        return tuple(dict.fromkeys(source.name for source in self.data if source.file is not None))

    def data_path(self, out: Path) -> str:
        """What the stage reads: its one source, or the file in which several are pooled. No stage has a name that
        begins with `_`."""
        return self.data[0].path(out) if len(self.data) == 1 else str(out / "_pooled" / f"{self.name}.jsonl")

    @property
    def renames(self) -> bool:
        """Whether what it reads is written in our columns, with the file in which its sources are pooled."""
        return len(self.data) > 1 and self.options.get("columns") is not None

    def held_out_path(self, out: Path) -> str:
        """Its held-out data in our columns, where it `renames`."""
        return str(out / "_pooled" / f"{self.name}-eval_data.jsonl")

    def config(self, out: Path, model: str | None, seed: int, max_flops: float | None) -> Any:
        """The method's configuration. Raises RecipeFaults naming stage and keys."""
        kind: Any = self.about.config
        options = dict(self.options)
        if self.data:
            options["data"] = self.data_path(out)
        if not self.of:
            options.setdefault("seed", seed)
            options |= {"model": model} if self.parent is not None else {}
        if max_flops is not None:
            options["max_flops"] = max_flops
        try:
            config: Any = kind(out=out / self.name, resume=True, **options)
        except ValidationError as error:
            raise RecipeFaults(self._faults(error)) from error
        if not self.renames:
            return config
        held_out = {} if config.eval_data is None else {"eval_data": self.held_out_path(out)}
        return config.model_copy(update={"columns": None, **held_out})

    def _faults(self, error: ValidationError) -> Iterator[Fault]:
        for place, text in problems(error):
            hint = about_key(place[0], stage_keys(self.method)) if "unknown key" in text else ""
            yield Fault(("stages", self.name, *place), f"stage {self.name}: {text}{hint}")


def stage_keys(method: str) -> set[str]:
    """What a stage of a method may set."""
    keys = set(METHODS[method].config.model_fields) - {"out", "resume"} | {"method", "parent", "flops_of"}
    return keys if METHODS[method].writes == "data" else keys - {"model"}
