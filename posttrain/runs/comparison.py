"""What `compare.json` holds, and what of it belongs into one table; `report.words` says it in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # the one that pydantic reads before Python 3.12

from posttrain.config.evaluation import MAIN_SUITE, RETENTION_SUITE
from posttrain.runs.files import read_object
from posttrain.runs.records import checked
from posttrain.stats import Estimate
from posttrain.types import InputError

RUNS_FILE = "runs.json"
"""Beside `compare.json`: where the runs are if they are not in its folder, name -> path relative to it."""
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
HEADLINES = ("accuracy", "greedy")
"""What a reward gave, by the names of values: over samples, and to the greedy answer."""
SHARES = ("accuracy", "greedy", "truncated", "knowledge", "reading", "instructions")


class Contrast(TypedDict):
    """`of` minus `against` over the tasks both have scored, with its 95% interval where there are FEW_TASKS of them."""

    of: str
    against: str
    evaluation: str
    value: float
    low: float | None
    high: float | None
    n: int


class Worth(Contrast):
    """A run on a reward minus its control, the same run paid by `control` in place of the reward."""

    control: str


class Lead(TypedDict):
    """The stage with the highest headline value of a suite, against every other. It was chosen by looking, so each
    interval covers 1 - 5%/`comparisons` (Bonferroni): all of them together hold with 95%, whichever stage was chosen.
    `comparisons` is the number of stages that it was chosen among, less one."""

    of: str
    comparisons: int
    others: list[Contrast]
    """`of` minus each stage that it can be compared with, the highest first."""
    gain: NotRequired[Contrast]
    """The highest stage that was trained here minus its start, where they can be compared."""


class Spent(TypedDict):
    """Time, tokens and floating-point operations."""

    seconds: float
    tokens: int
    flops: float


class StageResult(Spent):
    """What a stage cost by itself and for its data, and its evaluations by name."""

    parent: str | None
    evaluations: dict[str, Estimate]


class OtherStage(Spent):
    """What a stage that is not compared cost: a reward model, or data, which is in the cost of `charged_to` too."""

    parent: str | None
    charged_to: list[str]


class Apart(TypedDict):
    """A suite whose evaluations cannot be compared: which stages' can among themselves, and what differs, in words."""

    suite: str
    groups: list[list[str]]
    differences: list[str]


class Comparison(TypedDict):
    """The content of `compare.json`."""

    stages: dict[str, StageResult]
    contrasts: list[Contrast]
    others: NotRequired[dict[str, OtherStage]]
    total: NotRequired[Spent]
    """Of every stage, compared or not, once."""
    leads: NotRequired[dict[str, Lead]]
    """By suite, of those whose evaluations can all be compared; not of retention, where nothing is to be won."""
    worth: NotRequired[list[Worth]]
    """What the reward was worth: the headline of every suite, of each run that has a control, minus that control."""
    graded: NotRequired[dict[str, list[str]]]
    """Suite -> the stages in which its reward gave other values than 0 and 1."""
    apart: NotRequired[list[Apart]]
    """What `--loose` shows without a difference."""
    notes: NotRequired[list[str]]
    """Values of a suite that cannot be subtracted though the others can, in words."""


def root_of(stages: dict[str, StageResult], name: str) -> str:
    """The stage without a parent that `name` descends from."""
    for _ in stages:
        parent = stages[name]["parent"]
        if parent is None:
            return name
        name = parent
    raise ValueError(f"stage {name} descends from itself")


def suite_of(evaluation: str) -> str:
    """`retention` of `retention/reading`; `held_out` of `accuracy`."""
    suite, slash, _ = evaluation.partition("/")
    return suite if slash else MAIN_SUITE


@dataclass(frozen=True)
class Section:
    """The evaluations of one suite that may stand in one table. `names` are those of its values, the headline first;
    `apart` says that further sections hold the same suite of other stages."""

    comparison: Comparison
    suite: str
    stages: tuple[str, ...]
    names: tuple[str, ...]
    graded: bool
    shares: frozenset[str]
    apart: bool

    @property
    def title(self) -> str:
        """`Results`, or what else the suite is called, and whose they are where not all stages'."""
        known = {MAIN_SUITE: "Results", RETENTION_SUITE: "Retention"}
        return known.get(self.suite, self.suite) + (f" of {', '.join(self.stages)}" if self.apart else "")

    @property
    def headline(self) -> str | None:
        """The value that verdicts are about: what the reward gave the samples, else the greedy answer."""
        return next((name for name in self.names if _value_name(name) in HEADLINES), None)

    @property
    def lead(self) -> Lead | None:
        return self.comparison.get("leads", {}).get(self.suite)

    @property
    def ranked(self) -> list[str]:
        """The stages that have a headline value, the highest first."""
        values = {stage: e["value"] for stage in self.comparison["stages"] if (e := self.estimate(stage)) is not None}
        scored = {stage: value for stage, value in values.items() if value is not None}
        return sorted(scored, key=lambda stage: -scored[stage])

    def estimate(self, stage: str) -> Estimate | None:
        """The headline value of a stage."""
        return self.comparison["stages"][stage]["evaluations"].get(self.headline or "")

    def label(self, evaluation: str) -> str:
        return label(evaluation, self.graded)

    def label_of_suite(self, evaluation: str) -> str:
        """The label, with the suite where it is not one of ours: `accuracy on hard`."""
        named = self.suite not in (MAIN_SUITE, RETENTION_SUITE)
        return self.label(evaluation) + (f" on {self.suite}" if named else "")

    def holds(self, contrast: Contrast) -> bool:
        return contrast["evaluation"] in self.names and contrast["of"] in self.stages


def sections(comparison: Comparison) -> list[Section]:
    """What belongs together, in the order to show it in: the main suite, others by name, retention."""
    order = {MAIN_SUITE: 0, RETENTION_SUITE: 2}
    suites = {suite_of(e) for stage in comparison["stages"].values() for e in stage["evaluations"]}
    apart = {entry["suite"]: entry["groups"] for entry in comparison.get("apart", ())}
    return [
        _section(comparison, suite, group, suite in apart)
        for suite in sorted(suites, key=lambda s: (order.get(s, 1), s))
        for group in apart.get(suite, [list(comparison["stages"])])
    ]


def _section(comparison: Comparison, suite: str, stages: Sequence[str], apart: bool) -> Section:
    found = [comparison["stages"][stage]["evaluations"] for stage in stages]
    names = dict.fromkeys(e for evaluations in found for e in evaluations if suite_of(e) == suite)
    graded = bool(set(comparison.get("graded", {}).get(suite, ())) & set(stages))
    values = {name: [e[name]["value"] for e in found if name in e] for name in names}

    def is_share(name: str) -> bool:
        value = _value_name(name)
        by_name = value.startswith("pass@") or (value in SHARES and not (graded and value in HEADLINES))
        return by_name and all(v is None or 0 <= v <= 1 for v in values[name])

    def place(name: str) -> int:
        value = _value_name(name)
        return HEADLINES.index(value) if value in HEADLINES else len(HEADLINES)

    ordered = tuple(sorted(names, key=place))
    return Section(comparison, suite, tuple(stages), ordered, graded, frozenset(filter(is_share, ordered)), apart)


def _value_name(evaluation: str) -> str:
    return evaluation.rpartition("/")[2]


def label(evaluation: str, graded: bool) -> str:
    """How a value is called on a page: `retention/knowledge` is `knowledge`; of a graded reward `accuracy` is
    `mean reward`."""
    name = _value_name(evaluation)
    if graded and name in HEADLINES:
        return {"accuracy": "mean reward", "greedy": "greedy reward"}[name]
    return {"kl": "KL", "text_nll": "negative log-likelihood"}.get(name, name.replace("_", " "))


def label_note(graded: bool) -> str:
    """Why `accuracy` and `greedy` are called as they are, or otherwise (see `label`)."""
    if graded:
        return (
            "mean reward is the mean score (accuracy where all are 0 or 1), greedy reward that of the likeliest answer"
        )
    return "accuracy is the mean score (mean reward where one is not 0 or 1), greedy that of the likeliest answer"


def read_comparison(folder: Path) -> Comparison:
    """The `compare.json` of a folder. Raises InputError where it is not of the form that we write."""
    file = folder / "compare.json"
    found: Comparison = checked(read_object(file), Comparison, file)  # type: ignore[assignment]
    stages = found["stages"]
    try:
        for name in stages:
            root_of(stages, name)
    except (KeyError, ValueError) as error:
        raise InputError(f"{file}: damaged, the parents of its stages lead nowhere ({error})") from None
    contrasts: list[Contrast] = [*found["contrasts"], *found.get("worth", ())]
    named = [stage for c in contrasts for stage in (c["of"], c["against"])]
    if unknown := [name for name in named if name not in stages]:
        raise InputError(f"{file}: damaged, a contrast is of {unknown[0]!r}, which is no stage")
    for part in sections(found):
        if part.lead is not None and part.headline is not None and not _is_lead(part.lead, part.ranked):
            raise InputError(f"{file}: damaged, the lead of {part.suite} is not over the stages that have its values")
    return found


def run_folders(folder: Path, comparison: Comparison) -> dict[str, Path]:
    """Where the runs of a folder's comparison are, by name; some may be gone. Raises InputError for a name that is a
    folder's and would lead out of this one."""
    places = read_object(folder / RUNS_FILE)
    for name in (*(n for n in comparison["stages"] if n not in places), *comparison.get("others", {})):
        if not FOLDER_NAME.fullmatch(name):
            raise InputError(f"{folder / 'compare.json'}: damaged, a stage has the name {name!r}")
    return {name: folder / str(places.get(name, name)) for name in comparison["stages"]}


def _is_lead(lead: Lead, scored: list[str]) -> bool:
    over = [c["against"] for c in lead["others"]]
    named = {lead["of"], *over, *(c["of"] for c in lead["others"])}
    if "gain" in lead:
        named |= {lead["gain"]["of"], lead["gain"]["against"]}
    return named <= set(scored) and lead["of"] not in over and len(set(over)) == len(over)
