"""The commands and code blocks of the documentation, and how each command is made small enough to run in a test.

What stands in the tables below is all that a test changes; everything else runs as it is printed.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
NOT_RUN: Mapping[str, str] = {
    "make": "long, or part of the tests; its target must be one of the Makefile",
    "python": "a script of the repository, which must be there and compile",
    "pip": "installs",
    "git": "clones",
    "cd": "moves about",
    "source": "enters an environment",
    "export": "sets a key",
    **dict.fromkeys(("accelerate", "axolotl", "trl", "vllm"), "is another project's"),
}
"""First words of commands that are not run, and why."""
HISTORY = {"docs/log.md": "a diary of what was run", "CHANGELOG.md": "says what was changed"}
"""Pages whose commands need not run any more."""
NEEDS_A_SERVER = re.compile(r"https?://|url=")
PARSED = {
    "revise": "the tiny model ends no answer, so that there is nothing to revise",
    "--replay": "needs the rollouts of an earlier run",
    "--train": "trains for minutes",
    "--suite": "its text alone takes seconds, whatever the model",
}
"""Commands, and options, with which a command's options are read and it is not run, as is any that asks a server."""
MODELS = ("--model", "--teacher", "--policy")
ANY_MODEL = "tiny-random"
WORDS: Mapping[str, str] = {
    "M": ANY_MODEL,
    "MODEL": ANY_MODEL,
    "FILE": "rows.jsonl",
    "R": "math",
    "NAME": "grpo",
    "mine.yaml": "recipe.yaml",
    "smollm2-135m": ANY_MODEL,
    "openai/gsm8k?config=main&split=train&revision=main": "gsm8k.jsonl",
    "chat.jsonl,math.jsonl*0.3,owner/name?split=test*2": "chat.jsonl,math.jsonl*0.3,gsm8k.jsonl*2",
    "train.jsonl": "sft.jsonl",
    "test.jsonl": "tasks.jsonl",
    "hard.jsonl": "tasks.jsonl",
    "runs/other/rollouts.jsonl": "rollouts.jsonl",
}
"""What stands for other words: placeholders, hub ids, and files of one kind under several names."""
REST: Mapping[str, str] = {
    "sft": "--model tiny-random --data sft.jsonl --out runs/rest",
    "dpo": "--model tiny-random --data pairs.jsonl --out runs/rest",
    "online-dpo": "--model tiny-random --data tasks.jsonl --out runs/rest --reward math",
    "reward-model": "--model tiny-random --data pairs.jsonl --out runs/rest",
    "rl": "--model tiny-random --data tasks.jsonl --out runs/rest --reward math",
    "rl --replay": "--model tiny-random --data tasks.jsonl --out runs/rest",
}
"""What `…` stands for in a command of that name, perhaps with an option; at its end it stands for nothing."""
SMALL: Mapping[str, str] = {
    "--max-steps": "1",
    "--batch-size": "4",
    "--group-size": "2",
    "--samples": "2",
    "--keep": "1",
    "--best-of": "4",
    "--members": "2",
    "--max-new-tokens": "8",
    "--eval-every": "1",
    "--epochs": "1",
    "--limit": "4",
    "--calls": "20",
}
"""Values of options that make a run long; a command that takes one of `ADDED` gets it where it has none."""
ADDED: Mapping[str, tuple[str, ...]] = {
    "sft": ("--max-steps", "--batch-size"),
    "dpo": ("--max-steps", "--batch-size"),
    "online-dpo": ("--max-steps", "--batch-size", "--group-size", "--max-new-tokens"),
    "reward-model": ("--max-steps", "--batch-size"),
    "rl": ("--max-steps", "--batch-size", "--group-size", "--max-new-tokens"),
    "distill": ("--max-steps", "--batch-size", "--max-new-tokens"),
    "sample": ("--samples", "--max-new-tokens"),
    "eval": ("--samples", "--max-new-tokens", "--limit"),
    "chat": ("--max-new-tokens",),
    "audit": ("--limit", "--calls"),
}
VARIED = 'regex(pattern="[a-z]", anywhere=true)'
"""Beside or in place of rewards that are all 0 for random text: without variance RL takes no step."""


@dataclass(frozen=True)
class Command:
    """A command as printed. `line` is where it begins; `block` whether it stands in a fenced block, and not in a
    sentence, where some of what it needs may be left out."""

    page: str
    line: int
    words: tuple[str, ...]
    block: bool

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


@dataclass(frozen=True)
class Block:
    """A fenced block, with the word behind the fence."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: str, text: str) -> Iterator[Block]:
    for found in re.finditer(r"^```(\S*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def commands(page: str, text: str) -> list[Command]:
    """All commands of a page, in order. A sentence's are those in backquotes that begin with the name of a program."""
    found = []
    for block in blocks(page, text):
        if block.language in ("bash", "sh", "console", ""):
            lines = re.sub(r"\\\n\s*", lambda match: " " * len(match[0]), block.text).splitlines()
            for number, line in enumerate(lines, start=block.line + 1):
                words = (
                    shlex.split(line.removeprefix("$ "), comments=True) if block.language or _is_command(line) else []
                )
                if words:
                    found.append(Command(page, number, tuple(words), True))
    outside = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    for inline in re.finditer(r"(?<!`)`([^`]+)`(?!`)", outside):
        if _is_command(inline[1]):
            words = shlex.split(inline[1].replace("\n", " "))
            found.append(Command(page, outside.count("\n", 0, inline.start()) + 1, tuple(words), False))
    return sorted(found, key=lambda command: command.line)


def _is_command(text: str) -> bool:
    """Whether a text, which may as well be something else, begins with the name of a program and has more words."""
    return " " in text and text.removeprefix("$ ").partition(" ")[0] in ("posttrain", *NOT_RUN)


def small(words: tuple[str, ...], folder: Path) -> list[str]:
    """The arguments of `posttrain` for a command that is run in `folder`, by the tables above. Models of earlier pages
    are the tiny one, held-out data is the data, a run has a folder of its own, and a recipe is planned."""
    name, *rest = words[1:]
    asks = NEEDS_A_SERVER.search(" ".join(words))
    if "…" in rest:
        at = rest.index("…")
        needed = next((REST[key] for word in rest if (key := f"{name} {word}") in REST), REST.get(name, ""))
        rest[at : at + 1] = needed.split() if rest[at + 1 :] else []
        if rest and rest[-1] == "--set":
            rest.pop()
    rest = [WORDS.get(word, word) for word in rest]
    if name == "run":
        return [name, *rest, *([] if "--plan" in rest else ["--plan"])]
    data = rest[rest.index("--data") + 1] if "--data" in rest else ""
    for i, word in enumerate(rest[1:], start=1):
        option = rest[i - 1]
        if option in SMALL:
            rest[i] = SMALL[option]
        elif option in MODELS:
            rest[i] = _model(word, folder)
        elif option == "--eval-data":
            rest[i] = data
        elif option == "--out" and name not in ("eval", "compare") and (folder / word).exists():
            rest[i] = next(f"{word}-{n}" for n in range(2, 100) if not (folder / f"{word}-{n}").exists())
        elif option == "--reward" and not asks and (name == "sample" or word == "runs/rm"):
            rest[i] = word if (folder / word).is_dir() else VARIED
    if name in ("eval", "average"):
        given = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
        rest[:given] = [_model(word, folder) for word in rest[:given]]
    if name == "sample" and "pairs" not in rest:
        rest += ["--truncated", "keep"]
    if "--suite" not in rest:
        missing = [option for option in ADDED.get(name, ()) if option not in rest]
        missing = [option for option in missing if option != "--max-steps" or "--epochs" not in rest]
        rest += [word for option in missing for word in (option, SMALL[option])]
    return [name, *rest]


def _model(word: str, folder: Path) -> str:
    return word if (folder / word / "model").is_dir() else ANY_MODEL


def write_data(folder: Path) -> None:
    """The files that documentation names and does not make, a few rows each."""
    sums = [(f"{i}+{i + 1}?", str(2 * i + 1)) for i in range(4)]
    rows: dict[str, list[dict[str, object]]] = {
        "sft": [{"prompt": q, "completion": a} for q, a in sums],
        "chat": [{"prompt": q, "completion": a} for q, a in sums],
        "math": [{"problem": q, "solution": a} for q, a in sums],
        "gsm8k": [{"question": q, "answer": a} for q, a in sums],
        "tasks": [{"prompt": q, "answer": a, "max_words": 9} for q, a in sums],
        "prompts": [{"prompt": q} for q, _ in sums],
        "rows": [{"prompt": q, "completion": a, "answer": a} for q, a in sums],
        "pairs": [{"prompt": q, "chosen": a, "rejected": "no"} for q, a in sums],
        "steps": [{"prompt": q, "steps": [a, "so"], "labels": [1, 0]} for q, a in sums],
        "examples": [{"prompt": q, "completion": a} for q, a in sums],
    }
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (folder / "alpaca.json").write_text(
        json.dumps([{"instruction": "Add them.", "input": q, "output": a} for q, a in sums] * 5)
    )
    (folder / "trl_rewards.py").write_text(
        "def right(completions, answer, **kwargs):\n"
        "    return [float(len(text) % 3) for text, wanted in zip(completions, answer)]\n"
    )
    (folder / "qa.csv").write_text("Frage,Antwort\n" + "".join(f"{q},{a}\n" for q, a in sums))
    (folder / "recipe.yaml").write_text(
        "model: tiny-random\nevaluate: {data: tasks.jsonl, reward: math}\n"
        "stages: {sft: {method: sft, parent: start, data: sft.jsonl}}\n"
    )
    (folder / "examples").symlink_to(ROOT / "examples")
