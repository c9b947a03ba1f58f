"""What `--reward` names, and whether the data has what the reward asks for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from posttrain.types import InputError

BATCHED_NAMES = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
)
SAMPLE_NAMES = frozenset(("prompt", "response", "completion", "messages"))
VERL_NAMES = frozenset(("data_source", "solution_str", "ground_truth", "extra_info"))
NOT_COLUMNS = BATCHED_NAMES | SAMPLE_NAMES
"""Names that mean something else than a column of that name."""
REFERENCES = ("answer", "solution", "ground_truth")
"""Columns that hold a reference answer, in the order in which they are looked for."""


@dataclass(frozen=True)
class Builtin:
    """A reward that ships with posttrain. `needs`: it reads any one of these columns. `imports`: slow modules that a
    worker imports before the clock of the first sample starts."""

    target: str
    needs: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()


BUILTINS: Mapping[str, Builtin] = {
    "math": Builtin("posttrain.rewards.math:math", REFERENCES, ("math_verify",)),
    "format": Builtin("posttrain.rewards.rules:format"),
    "code": Builtin("posttrain.rewards.code:code", ("cases", "hidden_cases", "test")),
    "reasoning-gym": Builtin("posttrain.rewards.gym:reasoning_gym", ("entry",), ("reasoning_gym",)),
}


@dataclass(frozen=True)
class Signature:
    """How a function wants to be called: `kind` is batched, sample or verl; see `calls`."""

    kind: str
    names: tuple[str, ...]
    required: tuple[str, ...]
    takes_all: bool


@dataclass(frozen=True)
class Spec:
    """One `--reward NAME[=weight]`. `name` is the name of its part: that of the built-in or of the function."""

    name: str
    weight: float
    target: str
    builtin: Builtin | None = None

    @staticmethod
    def parse(text: str) -> Spec:
        """Raises InputError for an unknown name or a weight that is no finite number."""
        where, equals, weight_text = text.rpartition("=")
        if not equals:
            where, weight_text = text, "1"
        try:
            weight = float(weight_text)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise InputError(f"reward {text!r}: the weight {weight_text!r} is not a number; write NAME=0.5")
        if where in BUILTINS:
            return Spec(where, weight, BUILTINS[where].target, BUILTINS[where])
        file, colon, function = where.rpartition(":")
        if not colon or not file or not function.isidentifier():
            raise InputError(
                f"unknown reward {where!r}; built in are {', '.join(BUILTINS)}; your own is named file.py:function or "
                "package.module:function"
            )
        return Spec(function, weight, where)


def check_columns(spec: Spec, signature: Signature, columns: Collection[str]) -> None:
    """Raise InputError, naming the argument and the function, for an argument that nothing can fill."""
    available = ", ".join(sorted(columns)) or "none"
    if spec.builtin and spec.builtin.needs and not set(spec.builtin.needs) & set(columns):
        wanted = " or ".join(repr(name) for name in spec.builtin.needs)
        raise InputError(f"reward {spec.name} needs a column {wanted}; the data's columns are: {available}")
    offered = {"batched": BATCHED_NAMES, "sample": SAMPLE_NAMES, "verl": VERL_NAMES}[signature.kind]
    for name in signature.required:
        if name not in offered and name not in columns:
            raise InputError(
                f"reward {spec.target} asks for {name!r}, which is no column; the data's columns are: {available}; "
                f"always available are: {', '.join(sorted(offered))}"
            )
    wants_truth = signature.kind == "verl" and "ground_truth" in signature.required
    if wants_truth and not {*REFERENCES, "reward_model"} & set(columns):
        raise InputError(
            f"reward {spec.target} asks for 'ground_truth', and there is no column ground_truth, reward_model, answer "
            f"or solution; the data's columns are: {available}"
        )
