"""The records of a run folder: what a run cost, what it was made from, evaluations, findings. Each is read and written
in one place. Folders may come from somebody else, or be damaged: what is not of the form that we write is refused with
its file and line."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NotRequired, Self

from pydantic import AllowInfNan, BaseModel, ConfigDict, PlainValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # the one that pydantic reads before Python 3.12

from posttrain.config.evaluation import MAIN_SUITE, RETENTION_SUITE
from posttrain.runs.files import numbered_jsonl, read_object, write_atomic
from posttrain.runs.table import Table
from posttrain.types import InputError

if TYPE_CHECKING:
    from posttrain.runs.log import RunLog

PERPLEXITY = "retention/perplexity"
TEXT_NLL = "text_nll"
"""The value whose tasks are windows of a text, not questions."""
Finite = Annotated[float, AllowInfNan(False)]


def _number(value: Any) -> float:
    """The number as it is: a whole one stays whole, so that a file that is written again has the same bytes."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[float, PlainValidator(_number)]


class Record(BaseModel):
    """A JSON file of a run folder. Only fields that were given are written, in the order of the class."""

    FILE: ClassVar[str]
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The record of a run folder; None if its file is missing. Raises InputError for a damaged file."""
        file = folder / cls.FILE
        found = read_object(file)
        try:
            return cls.model_validate(found) if found else None
        except ValidationError as error:
            raise _damaged(error, file) from None

    def save(self, log: RunLog) -> None:
        log.write_json(self.FILE, self.model_dump(exclude_unset=True))


class Cost(Record):
    """What a run took: optimizer steps, seconds, tokens (not padding) and floating-point operations, its evaluations
    left out."""

    FILE: ClassVar[str] = "cost.json"
    steps: int = 0
    seconds: Number
    tokens: int
    flops: Number

    @classmethod
    def total(cls, costs: Iterable[Cost | None]) -> Cost:
        """The sum; None stands for a run that cost nothing."""
        known = [cost for cost in costs if cost is not None]
        return cls.model_validate({name: sum(getattr(cost, name) for cost in known) for name in cls.model_fields})

    @classmethod
    def sampled(cls, metrics: Sequence[Mapping[str, Any]]) -> Cost:
        """That of a run which trains nothing, from its `metrics.jsonl`, where `flops` grows from line to line."""
        seconds, tokens = (sum(row[name] for row in metrics) for name in ("step_seconds", "tokens"))
        return cls(steps=0, seconds=seconds, tokens=tokens, flops=metrics[-1]["flops"])


class Lineage(Record):
    """What a finished run was made from, and by what; which fields there are depends on the method (`stage`).

    Hashes are SHA-256: of weights, and of the data file."""

    FILE: ClassVar[str] = "lineage.json"
    stage: str | None = None
    parents: list[str] = []
    """The models that it began with."""
    parent_weights_hash: str | None = None
    parent_weights_hashes: list[str] = []
    """Of an average, in the order of its parents."""
    endpoint: str | None = None
    policy: str | None = None
    """The model that answers were sampled from, where it is not the parent."""
    model: str | None = None
    """The folder of the model that was made."""
    weights_hash: str | None = None
    data: str | None = None
    data_hash: str | None = None
    write: str | None = None
    principles: str | None = None
    rows: int | None = None
    """Rows of data that were made."""
    of_tasks: int | None = None
    dropped: dict[str, int] = {}
    """How many answers were left out, by why."""
    versions: dict[str, str] = {}
    threads: int | None = None
    device: str | None = None
    """`cpu`, `cuda` or `mps`, of the process that ended the run."""
    card: str | None = None
    """The GPU's own name."""
    dtype: str | None = None
    """The type of the inputs of matrix products and attention."""


@dataclass(frozen=True)
class Finding:
    """One thing that an audit of a run has found. `kind` names the check; `evidence` is what it saw, as JSON values."""

    kind: str
    severity: Literal["note", "warning", "fault"]
    text: str
    evidence: Mapping[str, Any]


# -- lines ------------------------------------------------------------------------------------------------------------


class StepLine(TypedDict):
    """Of `metrics.jsonl`, beside the numbers of the step."""

    step: int


class EventLine(TypedDict):
    """Of `events.jsonl`."""

    event: str


class AlarmAnswer(TypedDict):
    """An answer that an alarm points at: the step, the task and the place in its group, the beginning of its text, and
    what there is to say of it."""

    step: int
    task: str
    index: int
    excerpt: str
    note: NotRequired[str]


class AlarmLine(EventLine):
    """Of `events.jsonl`: the alarm of a monitor, such as `M1`, with what it measured, what that should not exceed, what
    the run did, and why in words."""

    monitor: str
    step: int
    value: float
    threshold: float
    action: str
    reason: str
    worst: list[AlarmAnswer]


class SampleText(TypedDict):
    """An answer with its score."""

    text: str
    score: Finite | None


class RolloutLine(SampleText):
    """Of `rollouts.jsonl`."""

    step: int
    task: str


# -- evaluations ------------------------------------------------------------------------------------------------------


class TaskLine(TypedDict):
    """Of `evaluations/SUITE.jsonl`."""

    task: str
    prompt: NotRequired[str]
    values: dict[str, Finite | None]
    samples: list[SampleText]


class SettingsPart(TypedDict):
    """Of the settings of an evaluation."""

    reward: NotRequired[list[str]]
    reward_contents: NotRequired[dict[str, str]]
    reward_functions: NotRequired[dict[str, dict[str, str]]]
    tasks_hash: NotRequired[str]
    prompts_hash: NotRequired[str]


class SuiteFile(TypedDict):
    """Of `evaluations/SUITE.json`."""

    model: NotRequired[str | None]
    weights_hash: NotRequired[str | None]
    settings: NotRequired[SettingsPart | None]


TaskKey = tuple[str, str, int]
"""A task, the same in every evaluation of it: its id, its prompt, and how many rows before it have both. Ids alone may
be row numbers of different files."""


@dataclass(frozen=True)
class Evaluation:
    """One suite of a run: what it was made with (`settings`), and a row a task with `task`, `prompt`, `values` and
    `samples`."""

    suite: str
    rows: Table
    model: str | None = None
    weights_hash: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Evaluation:
        """That of `SUITE.jsonl`, with the `SUITE.json` beside it. Raises InputError for a file that is damaged."""
        rows = Table(checked(row, TaskLine, where) for where, row in numbered_jsonl(file))
        meta = read_suite(file.with_suffix(".json"))
        return cls(file.stem, rows, meta.get("model"), meta.get("weights_hash") or None, meta.get("settings") or {})

    def write(self, run: Path, cost: Cost) -> None:
        """`RUN/evaluations/SUITE.jsonl` (a line a task) and, last, `SUITE.json` (what it was and what it cost)."""
        folder = run / "evaluations"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        write_atomic(folder / f"{self.suite}.jsonl", lines)
        about = {"suite": self.suite, "model": self.model, "weights_hash": self.weights_hash}
        spent = {"seconds": cost.seconds, "tokens": cost.tokens, "flops": cost.flops, "settings": self.settings}
        write_atomic(folder / f"{self.suite}.json", json.dumps(about | spent, indent=1) + "\n")

    @cached_property
    def values(self) -> dict[str, dict[TaskKey, float | None]]:
        """By the name of a value, that of each task; None where the task could not be scored."""
        found: dict[str, dict[TaskKey, float | None]] = {}
        for key, row in zip(self.keys, self.rows, strict=True):
            for name, value in row["values"].items():
                found.setdefault(name, {})[key] = value
        return found

    @cached_property
    def keys(self) -> list[TaskKey]:
        """The task of each row."""
        seen: Counter[tuple[str, str]] = Counter()
        keys = []
        for row in self.rows:
            task = str(row["task"]), str(row.get("prompt", ""))
            keys.append((*task, seen[task]))
            seen[task] += 1
        return keys

    @cached_property
    def tasks(self) -> set[TaskKey]:
        """All tasks but the windows of a text."""
        return {task for name, values in self.values.items() if name != TEXT_NLL for task in values}

    @cached_property
    def graded(self) -> bool:
        return is_graded(self.rows)

    def name(self, value: str) -> str:
        """The name of a value in `compare.json`: alone in the main suite, else after the suite's."""
        if self.suite == RETENTION_SUITE and value == TEXT_NLL:
            return PERPLEXITY
        return value if self.suite == MAIN_SUITE else f"{self.suite}/{value}"


def is_graded(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a reward gave any other value than 0 and 1, so that its mean is no share of right answers."""
    for row in rows:
        scores = [sample.get("score") for sample in row.get("samples", ())] + [row["values"].get("greedy")]
        mean = row["values"].get("accuracy")
        if any(score not in (None, 0, 1) for score in scores) or (mean is not None and not 0 <= mean <= 1):
            return True
    return False


def read_suite(file: Path) -> dict[str, Any]:
    """The `SUITE.json` of an evaluation."""
    return checked(read_object(file), SuiteFile, file)


def checked(value: Any, form: type, where: Path | str) -> dict[str, Any]:
    """The value, which has the form of a TypedDict; more keys may be there. Raises InputError for any other."""
    try:
        _adapter(form).validate_python(value, strict=True)
    except ValidationError as error:
        raise _damaged(error, where) from None
    return dict(value)


def _damaged(error: ValidationError, where: Path | str) -> InputError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "it"
    return InputError(f"{where}: damaged, {place}: {first['msg'].lower()}")


@cache
def _adapter(form: type) -> TypeAdapter[Any]:
    return TypeAdapter(form)
