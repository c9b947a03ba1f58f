"""Understanding the names of other trainers: what stands here for an option or a command of theirs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from posttrain.config.algorithms import ALGORITHMS
from posttrain.config.preference import LOSSES

ALIKE = 0.7
"""From which likeness on an option is taken for a misspelt one: below it, `--streaming` would be `--strict`."""


@dataclass(frozen=True)
class Ours:
    """What stands for a name of another trainer, as `peers.yaml` explains."""

    fields: tuple[str, ...]
    words: str


@cache
def peers() -> tuple[Mapping[str, Mapping[str, Ours]], Mapping[str, str]]:
    """By trainer, what stands for each row of its names (separated by spaces); and what to say of each command."""
    found = yaml.safe_load(Path(__file__).with_name("peers.yaml").read_text(encoding="utf-8"))
    trainers = {
        trainer: {names: Ours(tuple(o.get("options", "").split()), o.get("words", "")) for names, o in rows.items()}
        for trainer, rows in found["trainers"].items()
    }
    return trainers, found["commands"]


@cache
def peer_options() -> Mapping[str, Ours]:
    """What stands for each name of another trainer."""
    trainers, _ = peers()
    return {name: ours for rows in trainers.values() for names, ours in rows.items() for name in names.split()}


def look_up(written: str) -> Ours | None:
    """What stands here for a name of another trainer, however it is written: `--num-generations`, `num_generations`,
    `trl.num_generations`, `actor_rollout_ref.rollout.n`, `rollout.n`, `--no-packing`. None where the name is not
    known."""
    key = written.lstrip("-+").replace("-", "_")
    known = peer_options()
    if key in known:
        return known[key]
    if "." in key or "_" in key:  # the end of a longer name, unless it is a plain word like `name`
        for name, ours in known.items():
            if name.endswith("." + key):
                return ours
    last = key.rpartition(".")[2]
    return known.get(last) or known.get(last.removeprefix("no_"))


def meant(name: str, options: Iterable[str]) -> str | None:
    """Which of `options` (the names of fields, as `batch_size`) another trainer calls `name`, or a sentence where it is
    none of them; None where the name is not known or stands for an option that is not among them."""
    ours = look_up(name)
    if ours is None:
        return None
    have = set(options)
    return next((field for field in ours.fields if field in have), None if ours.fields else ours.words)


def meant_command(name: str, commands: Sequence[str]) -> str:
    """What to say where `name` is no command: the one that other trainers call so, or that resembles it."""
    name = name.replace("_", "-").lower()
    _, said = peers()
    if name in said:
        return said[name]
    if name in ALGORITHMS:
        return f"did you mean posttrain rl --algorithm {name}?"
    if name in LOSSES:
        return f"did you mean posttrain dpo --loss {name}?"
    close = difflib.get_close_matches(name, commands, n=1)
    return f"did you mean {close[0]}?" if close else f"the commands are {', '.join(commands)}"
