"""What `--reward` names, and whether the data has what the reward asks for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from posttrain.expressions import Expression, parse_entry, written
from posttrain.rewards.protocol import Needs
from posttrain.rows import told_columns
from posttrain.systems import EXTRAS, need_package
from posttrain.types import InputError
from posttrain.workers.user_code import close_match

BATCHED_NAMES = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
)
SAMPLE_NAMES = frozenset(("prompt", "response", "completion", "messages", "prompt_messages", "completion_ids"))
VERL_NAMES = frozenset(("data_source", "solution_str", "ground_truth", "extra_info"))
NOT_COLUMNS = BATCHED_NAMES | SAMPLE_NAMES
"""Names that mean something else than a column of that name."""
EDITS = ("strip_thinking", "normalised", "sanitised")
"""Wrappers that change what the reward inside sees, and not its value."""
JUDGES = ("judge", "judge_pair")
REFERENCES = ("answer", "solution", "ground_truth")
"""Columns that hold a reference answer, in the order in which they are looked for."""
REFERENCE_COLUMNS = (*REFERENCES, "reward_model", "entry", "dataset", "cases", "hidden_cases", "test")
"""All columns that say which answer is right, whichever reward reads them: no answer can depend on them."""


@dataclass(frozen=True)
class Builtin:
    """A reward that ships with posttrain. `needs`: it reads any one of these columns. `imports`: slow modules that a
    worker imports before the clock of the first sample starts. `wraps`: it is made of other rewards. `makes`: called
    with its options when it is loaded, it makes the reward; no column of the data can stand for an option. `models`:
    how many models it names in its brackets; they compute it (see `PrecomputedReward`)."""

    target: str
    needs: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    wraps: bool = False
    makes: bool = False
    models: int = 0


BUILTINS: Mapping[str, Builtin] = {
    "math": Builtin("posttrain.rewards.math.reward:math", REFERENCES, ("mpmath",)),
    "format": Builtin("posttrain.rewards.rules.format:format"),
    "code": Builtin("posttrain.rewards.code.reward:code", ("cases", "hidden_cases", "test")),
    "json": Builtin("posttrain.rewards.rules.format:json", imports=("jsonschema",)),
    "regex": Builtin("posttrain.rewards.rules.format:regex"),
    "markdown": Builtin("posttrain.rewards.rules.format:markdown"),
    "keywords": Builtin("posttrain.rewards.rules.format:keywords"),
    "language": Builtin("posttrain.rewards.rules.format:language", imports=("py3langid",)),
    "constraints": Builtin(
        "posttrain.rewards.rules.ifeval:constraints", ("constraints", "instruction_id_list"), ("py3langid",)
    ),
    "length": Builtin("posttrain.rewards.rules.length:length"),
    "overlong": Builtin("posttrain.rewards.rules.length:overlong"),
    "repetition": Builtin("posttrain.rewards.rules.length:repetition"),
    "judge": Builtin("posttrain.rewards.judge.reward:judge", makes=True),
    "judge_pair": Builtin("posttrain.rewards.judge.reward:judge_pair", makes=True),
    "learned": Builtin("posttrain.rewards.learned:learned", models=1),
    "implicit": Builtin("posttrain.rewards.learned:implicit", models=2),
    "reasoning-gym": Builtin("posttrain.rewards.libraries.reasoning_gym:reasoning_gym", ("entry",), ("reasoning_gym",)),
    **{
        name: Builtin(f"posttrain.rewards.compose:{name}", wraps=True)
        for name in ("weighted_sum", "product", "minimum", "gate")
    },
    **{
        name: Builtin(f"posttrain.rewards.wrappers:{name}", wraps=True)
        for name in (
            *("strip_thinking", "one_answer", "final_answer", "literal_only", "normalised", "sanitised"),
            *("clip", "par", "cosine_length", "length_residual", "length_normalised"),
            *("ensemble_min", "ensemble_uncertainty", "ensemble_zscored"),
        )
    },
}


@dataclass(frozen=True)
class Weight:
    """A weight over optimizer steps: piecewise linear between its points (step, weight), constant outside them."""

    points: tuple[tuple[float, float], ...]

    @staticmethod
    def parse(text: str) -> Weight:
        """`0.5`, or `0:1,200:0.5`. Raises ValueError for what is no finite number or steps that do not rise."""
        if ":" not in text:
            return Weight(((0.0, _finite(text)),))
        points = tuple((_finite(step), _finite(value)) for step, value in (p.split(":") for p in text.split(",")))
        if any(later[0] <= earlier[0] for earlier, later in pairwise(points)):
            raise ValueError("the steps must rise")
        return Weight(points)

    @property
    def varies(self) -> bool:
        return len(self.points) > 1

    def at(self, step: float | None) -> float:
        """The weight at a step; where there is none, such as in an evaluation, that of the end."""
        if step is None or step >= self.points[-1][0]:
            return self.points[-1][1]
        for (start, low), (end, high) in pairwise(self.points):
            if start <= step < end:
                return low + (high - low) * (step - start) / (end - start)
        return self.points[0][1]


@dataclass(frozen=True)
class Spec:
    """One `--reward EXPRESSION[=weight]`. `name` is the name of its part: that after `as`, else that of the built-in or
    function on the outside."""

    name: str
    weight: Weight
    expression: Expression

    @staticmethod
    def parse(text: str) -> Spec:
        """Raises InputError for a faulty expression, an unknown name, a missing package or a weight that is no finite
        number."""
        expression, weight_text = parse_entry(text)
        expression = _with_models(expression)
        for part in expression.walk():
            _check_target(part)
            for module in BUILTINS[part.target].imports if part.target in BUILTINS else ():
                if module in EXTRAS:
                    need_package(module, f"reward {part.target}")
        try:
            weight = Weight.parse(weight_text)
        except ValueError as why:
            raise InputError(
                f"reward {text!r}: the weight {weight_text!r} is not a number, nor points in order of their step "
                f"({why}); write NAME=0.5, or NAME=0:1,200:0.5 for a weight that goes from 1 to 0.5 in 200 steps"
            ) from None
        name = expression.target.split()[1] if expression.function else expression.target.rpartition(":")[2]
        return Spec(expression.renamed or name, weight, expression)

    @property
    def builtins(self) -> list[tuple[Expression, Builtin]]:
        return [(part, BUILTINS[part.target]) for part in self.expression.walk() if part.target in BUILTINS]

    @property
    def win_rate(self) -> bool:
        """Whether the score is the win rate of an answer, as `judge_pair` gives it: by itself, with weight 1."""
        inside = self.expression
        while inside.target in EDITS:
            inside = inside.arguments[0]
        return inside.target == "judge_pair" and self.weight == Weight.parse("1")


def check_columns(spec: Spec, needs: Needs, columns: Collection[str]) -> None:
    """Raise InputError, naming the argument and the function, for an argument that nothing can fill."""
    for part, builtin in spec.builtins:
        if builtin.needs and not set(builtin.needs) & {*columns, *part.options}:
            wanted = " or ".join(repr(name) for name in builtin.needs)
            raise InputError(f"reward {part.target} needs a column {wanted}; {told_columns(columns, builtin.needs)}")
    for function in needs.functions:
        where = f"reward {spec.expression.text}" + (f": {function.name}" if spec.expression.arguments else "")
        offered = {"batched": BATCHED_NAMES, "sample": SAMPLE_NAMES, "verl": VERL_NAMES}[function.kind]
        for name in function.required:
            if name not in offered and name not in columns:
                raise InputError(
                    f"{where} asks for {name!r}, which is no column of all rows; {told_columns(columns, [name])}; "
                    f"always available are: {', '.join(sorted(offered))}"
                )
        wants_truth = function.kind == "verl" and "ground_truth" in function.required
        if wants_truth and not (truths := {*REFERENCES, "reward_model"}) & set(columns):
            raise InputError(
                f"{where} asks for 'ground_truth', and there is no column ground_truth, reward_model, answer or "
                f"solution; {told_columns(columns, truths)}"
            )


def check_sealed(trained: Sequence[str], sealed: Sequence[str]) -> None:
    """Raise InputError for a sealed reward that is the trained one, whatever their weights (but 0) and names."""
    if sealed and _graders(trained) == _graders(sealed):
        raise InputError(
            f"the sealed reward {' + '.join(sealed)} is the one that is trained on, so their gap would always be 0; "
            "give another grader, such as a stricter one, a judge, or hidden tests"
        )


def reads_column(specs: Iterable[Spec], needs: Iterable[Needs], column: str) -> bool:
    """Whether one of the rewards reads a column, where the data has it."""
    by_name = [name for spec in specs for _, builtin in spec.builtins for name in builtin.needs]
    return column in by_name or any(function.reads(column) for each in needs for function in each.functions)


def references_read(specs: Sequence[Spec], needs: Sequence[Needs], columns: Collection[str]) -> list[str]:
    """The columns with a reference answer that the rewards read. Raises InputError where there are none."""
    present = [name for name in REFERENCE_COLUMNS if name in columns]
    if not (found := [name for name in present if reads_column(specs, needs, name)]):
        raise InputError(
            f"canaries: the reward reads no column with a reference answer ({', '.join(REFERENCE_COLUMNS)}; the data "
            f"has {', '.join(present) or 'none of them'}), so no answer can be graded by that of another task; leave "
            "canaries out"
        )
    return found


def _graders(texts: Sequence[str]) -> set[str]:
    specs = map(Spec.parse, texts)
    return {written(_unnamed(s.expression)) for s in specs if any(value for _, value in s.weight.points)}


def _unnamed(expression: Expression) -> Expression:
    """The expression without new names, its options and models in order and its file by its whole path."""
    file, colon, function = expression.target.rpartition(":")
    target = f"{Path(file).resolve()}:{function}" if colon and file.endswith(".py") else expression.target
    options = dict(sorted(expression.options.items())) | {"models": expression.models}
    return replace(
        expression, target=target, arguments=tuple(map(_unnamed, expression.arguments)), options=options, renamed=None
    )


def local_judges(expression: Expression) -> list[str]:
    """The models of this machine that judges among this reward and those inside it load: of those without a `url`."""
    judges = [part.options for part in expression.walk() if part.target in JUDGES and part.options.get("url") is None]
    return [options["model"] for options in judges if isinstance(options.get("model"), str)]


def local_models(expressions: Iterable[Expression]) -> list[str]:
    """The models of this machine that these rewards and those inside them load: of judges without a `url`, and of
    rewards that a model computes."""
    listed = list(expressions)
    computed = [name for expression in listed for part in expression.walk() for name in part.models]
    return [*(name for expression in listed for name in local_judges(expression)), *computed]


def _with_models(expression: Expression) -> Expression:
    """The expression with the arguments of rewards that models compute read as names of models; a folder by itself is
    that of a reward model. Raises InputError for another number of them."""
    builtin = BUILTINS.get(expression.target)
    if builtin is None and not expression.arguments and Path(expression.target).is_dir():
        return replace(expression, target="learned", models=(expression.target,))
    if builtin is None or not builtin.models:
        return replace(expression, arguments=tuple(map(_with_models, expression.arguments)))
    models = tuple(argument.target for argument in expression.arguments)
    if len(models) != builtin.models or any(a.arguments or a.options for a in expression.arguments):
        names = ", ".join(("MODEL", "REFERENCE")[: builtin.models])
        raise InputError(f"reward {expression.text!r}: write {expression.target}({names}) with a folder or hub id each")
    return replace(expression, arguments=(), models=models)


def _check_target(part: Expression) -> None:
    if part.function is not None:
        return
    if builtin := BUILTINS.get(part.target):
        if builtin.wraps and not part.arguments:
            raise InputError(f"reward {part.target} is made of other rewards; write {part.target}(REWARD, ...)")
        if part.arguments and not builtin.wraps:
            takes = [name for name, other in BUILTINS.items() if other.wraps]
            raise InputError(
                f"reward {part.target} takes no rewards in its brackets; those that do: {', '.join(takes)}"
            )
        return
    file, colon, function = part.target.rpartition(":")
    if not colon and part.target.endswith(".py"):
        raise InputError(f"reward {part.target!r} is a file; name the function in it: {part.target}:FUNCTION")
    if not colon and "/" in part.target:
        raise InputError(
            f"reward {part.target!r}: no such folder; a reward model is named by its folder, your own reward as "
            "file.py:function"
        )
    if not colon or not file or not function.isidentifier():
        raise InputError(
            f"unknown reward {part.target!r}{close_match(part.target, list(BUILTINS)) or ';'} built in are "
            f"{', '.join(BUILTINS)}; your own is named file.py:function or package.module:function, a reward model by "
            "its folder"
        )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value
