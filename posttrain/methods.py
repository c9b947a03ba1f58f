"""The methods: what trains a model, makes data for it, or averages models.

Commands, stages of recipes, `check-data`, `--plan` and resuming follow from this table, so a new method is an entry
here, its configuration and its function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from posttrain import config
from posttrain.alerts import Observer
from posttrain.rows import Kind


@dataclass(frozen=True)
class Method:
    """A command and a method of recipe stages."""

    summary: str
    """What it does, for the list of commands."""
    config: type[config.Config]
    target: str
    """Its function, `module:name` in `posttrain.train`, which takes the configuration. It is imported when it runs: it
    needs torch."""
    reads: Mapping[Kind, str] = field(default_factory=dict)
    """The kinds of rows that it is the choice for, each with the options that such rows need."""
    also_reads: tuple[Kind, ...] = ()
    writes: Literal["model", "reward-model", "data"] = "model"
    title: str = ""
    """Its name on a page, where that is not the command's."""
    positional: Mapping[str, str] = field(default_factory=dict)
    """Options that the command line takes by place, with their names in the help."""
    counts_flops: bool = True
    observers: str = ""
    """What makes the observers that each of its runs has, `module:name` in `posttrain`; it takes the configuration."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All kinds of rows that it reads."""
        return (*self.reads, *self.also_reads)

    @property
    def averages(self) -> bool:
        """Whether it begins with several models, and has no data."""
        return "models" in self.config.model_fields

    @property
    def function(self) -> Callable[..., None]:
        return _named(f"train.{self.target}")

    def run(self, config: Any, observers: Sequence[Observer] = ()) -> None:
        """Run it, watched by its own observers and by these."""
        own = _named(self.observers)(config) if self.observers else []
        self.function(config, *([[*own, *observers]] if own or observers else []))


def _named(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"posttrain.{module}"), name)
    return found


MONITORS = "monitors.setup:monitors_for"
METHODS: Mapping[str, Method] = {
    "sft": Method(
        "train on example answers",
        config.SftConfig,
        "sft:train_sft",
        {"messages": "", "completion": "", "text": ""},
        title="SFT",
    ),
    "dpo": Method(
        "train on pairs of a better and a worse answer",
        config.DpoConfig,
        "dpo.stage:train_dpo",
        {"preference": "", "unpaired": "--loss kto"},
        title="DPO",
    ),
    "online-dpo": Method(
        "train on pairs of sampled answers that a reward or judge ranks",
        config.OnlineDpoConfig,
        "dpo.online:train_online_dpo",
        also_reads=("task",),
        title="online DPO",
        observers=MONITORS,
    ),
    "reward-model": Method(
        "train a score of answers on pairs, or on labels of their steps",
        config.RewardModelConfig,
        "reward_model.pairs:train_reward_model",
        {"preference": "", "stepwise": ""},
        writes="reward-model",
        title="reward model",
    ),
    "adversarial": Method(
        "train a reward model against answers that fool it",
        config.AdversarialConfig,
        "reward_model.adversarial:train_adversarial",
        also_reads=("preference",),
        writes="reward-model",
    ),
    "rl": Method(
        "train on sampled answers that a reward scores",
        config.RlConfig,
        "rl.setup:train_rl",
        {"task": ""},
        title="RL",
        observers=MONITORS,
    ),
    "distill": Method(
        "train on a teacher's distributions along sampled answers",
        config.DistillConfig,
        "distill:train_distill",
        {"completion": ""},
        also_reads=("task",),
    ),
    "sample": Method(
        "sample answers and write them as training data",
        config.SampleConfig,
        "generate.sample:sample_answers",
        also_reads=("task",),
        writes="data",
    ),
    "revise": Method(
        "let a model improve its answers by principles",
        config.ReviseConfig,
        "generate.revise:revise_answers",
        also_reads=("task",),
        writes="data",
    ),
    "average": Method(
        "average the weights of models",
        config.AverageConfig,
        "average:average_models",
        positional={"models": "MODEL..."},
        counts_flops=False,
    ),
}
WRITTEN: Mapping[str, Kind] = {"best": "completion", "all": "completion", "pairs": "preference"}
"""The kind of the rows that a method which writes data makes, by its option `write`."""


def commands_for(kind: Kind) -> list[str]:
    """The commands that rows of a kind are meant for, with the options they need there: `posttrain dpo --loss kto`."""
    return [
        f"posttrain {name} {method.reads[kind]}".rstrip() for name, method in METHODS.items() if kind in method.reads
    ]
