"""What an evaluation's numbers depend on beside the model, and where two evaluations differ in it.

`posttrain eval` and recipes write these settings beside the results, so that only what was measured alike is
subtracted. Not among them: seeds and speed, and whatever lies in the model's folder, such as its own chat template. One
that the user passes to an evaluation is a setting of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.functions import WRITTEN
from posttrain.rewards.check import reward_contents, reward_functions
from posttrain.rewards.scorer import Scorer
from posttrain.runs.records import Evaluation
from posttrain.types import Sampling, Task

Settings = Mapping[str, Any]

ALIKE = ("temperature", "top_p", "top_k", "samples", "max_new_tokens", "max_answer_words", "raw")
"""Settings that must be equal by value wherever both evaluations have them; tasks and rewards are compared by more."""
OF_ONE_VALUE = {
    "kl": ("reference", "the model it is measured from"),
    "text_nll": ("text_hash", "the tokens of the text"),
}
"""Settings that one value alone depends on, and what they are: another tokenizer cuts the text elsewhere."""
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def tasks_hash(tasks: Iterable[Task], reads: Callable[[str], bool]) -> str:
    """SHA-256 of ids, prompts, tools and the columns that `reads` accepts, in any order of the tasks."""
    seen: Counter[tuple[str, str]] = Counter()
    lines = []
    for task in tasks:
        prompt = task.prompt if isinstance(task.prompt, str) else [m.to_dict() for m in task.prompt]
        columns = {name: value for name, value in task.columns.items() if reads(name)}
        same = (task.id, _plain(prompt))
        lines.append(f"{_plain([task.id, prompt, list(task.tools), columns])} {seen[same]}")
        seen[same] += 1
    return hash_of("\n".join(sorted(lines)))


def task_settings(
    tasks: Sequence[Task], scorer: Scorer, sampling: Sampling, *, samples: int, raw: bool
) -> dict[str, Any]:
    """What the values of an evaluation depend on; the tasks are all that are given, whether or not they fit the
    model."""
    return {
        "reward": list(scorer.specs),
        "reward_contents": reward_contents(scorer.specs),
        **({"reward_functions": found} if (found := reward_functions(scorer.specs)) else {}),
        "samples": samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_new_tokens": sampling.max_new_tokens,
        "raw": raw,
        "tasks": len(tasks),
        "tasks_hash": tasks_hash(tasks, scorer.reads),
        "prompts_hash": tasks_hash(tasks, lambda column: False),
    }


def settings_differences(a: Settings, b: Settings) -> list[str]:
    """Each setting but tasks and reward that both have and that differs, with both values: `top_p (0.9 and 1.0)`."""
    found = [f"{name} {values}" for name in ALIKE if (values := setting_difference(name, a, b))]
    return found + _template_difference(a, b)


def _template_difference(a: Settings, b: Settings) -> list[str]:
    """The chat templates, where they are known and differ and one of them did not come with its model."""
    if not setting_difference("template_hash", a, b) or not (a.get("chat_template") or b.get("chat_template")):
        return []
    names = [f"{s.get('chat_template') or 'of the model'}, {_short(s['template_hash'])}" for s in (a, b)]
    return [f"chat_template ({' and '.join(names)})"]


def setting_difference(name: str, a: Settings, b: Settings) -> str | None:
    """Both values of a setting that both have and that differs: `(0.9 and 1.0)`."""
    if name not in a or name not in b or a[name] == b[name]:
        return None
    return f"({_short(a[name])} and {_short(b[name])})"


def reward_differences(a: Settings, b: Settings) -> list[str]:
    """What differs in the rewards, if both are known, with both values. Where both know what their rewards read, the
    folders before the files' names make no difference."""
    if "reward" not in a or "reward" not in b:
        return []
    known = "reward_contents" in a and "reward_contents" in b
    texts = [_without_folders(s) if known else list(s["reward"]) for s in (a, b)]
    if texts[0] != texts[1]:
        return _function_differences(texts, (a, b)) or [
            f"reward ({', '.join(a['reward'])} and {', '.join(b['reward'])})"
        ]
    mine, theirs = (_hashes(s["reward_contents"]) if known else {} for s in (a, b))
    changed = [n for n in sorted({*mine, *theirs}) if mine.get(n) != theirs.get(n)]
    return [f"reward, the content of {n} ({mine.get(n)} and {theirs.get(n)})" for n in changed]


def _function_differences(texts: Sequence[Sequence[str]], settings: Sequence[Settings]) -> list[str]:
    """What differs in each function that Python handed over, if the rewards are alike but for the functions' hashes."""
    alike = [[WRITTEN.sub(r"<\1>", text) for text in side] for side in texts]
    if alike[0] != alike[1]:
        return []
    pairs = zip(alike[0], zip(*texts, strict=True), strict=True)
    return [_function_difference(name, pair, settings) for name, pair in pairs if pair[0] != pair[1]]


def _function_difference(name: str, texts: Sequence[str], settings: Sequence[Settings]) -> str:
    """What differs in a function, as far as the parts of both were written down."""
    hashes = [match[2] for text in texts for match in WRITTEN.finditer(text)]
    mine, theirs = (s.get("reward_functions", {}).get(hash_, {}) for s, hash_ in zip(settings, hashes, strict=True))
    parts = dict.fromkeys([*mine, *theirs]) if mine and theirs else ()
    changed = "; ".join(filter(None, (_changed_part(part, mine, theirs) for part in parts)))
    what = changed or "its source, its defaults or a value that it reads"
    return f"reward {name} ({' and '.join(map(_short, hashes))}): {what}; give both evaluations the same function"


def _changed_part(name: str, mine: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """A part of a function, where it differs, with the versions of the library that made it where these do."""
    if mine.get(name) == theirs.get(name):
        return None
    makers = [parts.get(name, "").rpartition(" ")[0] for parts in (mine, theirs)]
    return name if makers[0] == makers[1] else f"{name} ({makers[0] or 'none'} and {makers[1] or 'none'})"


def value_difference(value: str, a: Settings, b: Settings) -> str | None:
    """The setting that this value alone depends on, where it differs."""
    name, words = OF_ONE_VALUE.get(value, ("", ""))
    values = setting_difference(name, a, b)
    return f"{words} {values}" if values else None


def tasks_words(settings: Settings, rows: int, hashed: str | None) -> str:
    """Which tasks these are: `240 of data.jsonl, limit 240`, with the hash of the name `hashed`."""
    words = f"{rows} of {settings['data']}" if settings.get("data") else str(rows)
    if settings.get("limit"):
        words += f", limit {settings['limit']}"
    return words + (f", hash {_short(settings[hashed])}" if hashed else "")


def differences(a: Evaluation, b: Evaluation) -> list[str]:
    """Every setting in which two evaluations differ, with both values; none if they may be compared.

    Tasks are the same if ids and prompts are, and hashes where both have one. Other settings are compared where both
    have them. Columns count by what a reward reads of them, so not where the rewards differ."""
    reward = reward_differences(a.settings, b.settings)
    name = "prompts_hash" if reward else "tasks_hash"
    hashed = name if name in a.settings and name in b.settings else None
    found = reward + settings_differences(a.settings, b.settings)
    if a.tasks == b.tasks and (hashed is None or a.settings[hashed] == b.settings[hashed]):
        return found
    words = [tasks_words(e.settings, len(e.tasks), hashed) for e in (a, b)]
    return [f"tasks ({words[0]} and {words[1]}; {len(a.tasks & b.tasks)} in both by id and prompt)", *found]


def grouped(evaluations: Mapping[str, Evaluation]) -> tuple[list[list[str]], list[str]]:
    """Runs whose evaluations of one suite may all be compared with each other, in groups, and what keeps the groups
    apart, in words. Each run joins the first group that it fits."""
    groups: list[list[str]] = []
    for name, evaluation in evaluations.items():
        fits = (g for g in groups if not any(differences(evaluations[other], evaluation) for other in g))
        group = next(fits, None)
        if group is None:
            groups.append(group := [])
        group.append(name)
    return groups, [
        words for i, later in enumerate(groups) for g in groups[:i] for words in _first_pair(g, later, evaluations)
    ]


def _first_pair(earlier: Sequence[str], later: Sequence[str], evaluations: Mapping[str, Evaluation]) -> list[str]:
    for a in earlier:
        for b in later:
            if found := differences(evaluations[a], evaluations[b]):
                return [f"{a} and {b} differ in {'; '.join(found)}"]
    return []


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _without_folders(settings: Settings) -> list[str]:
    texts = list(settings["reward"])
    for name in sorted(settings["reward_contents"], key=len, reverse=True):
        texts = [text.replace(name, Path(name).name) for text in texts]
    return texts


def _hashes(contents: Mapping[str, str]) -> dict[str, str]:
    """The content of every file by the last part of its name, which several may share: all, in the rewards' order."""
    found: dict[str, list[str]] = {}
    for name, hash_ in contents.items():
        found.setdefault(Path(name).name, []).append(hash_)
    return {name: ", ".join(map(_short, dict.fromkeys(hashes))) for name, hashes in found.items()}


def _short(value: Any) -> str:
    return value[:8] if isinstance(value, str) and len(value) == 64 else str(value)


def _plain(value: Any) -> str:
    """A text that is the same for equal values of whatever a task holds, in every process."""
    if isinstance(value, Mapping):
        return "{" + ",".join(sorted(f"{_plain(k)}:{_plain(v)}" for k, v in value.items())) + "}"
    if isinstance(value, set | frozenset):
        return "(" + ",".join(sorted(map(_plain, value))) + ")"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_plain, value)) + "]"
    if isinstance(value, str | int | float | bool | None):
        return json.dumps(value)
    return ADDRESS.sub("", repr(value))
