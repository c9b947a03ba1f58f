"""What the program gives, kept from one commit and compared with another's, number by number.

A change that moves code must not move numbers. `make` runs every command on small inputs in a folder, two minutes on
one core; `compare` lists what differs between two such folders, clock, memory and paths aside. Bits hold on one machine
only: make the first folder anew where you continue.

    git worktree add /tmp/before COMMIT
    .venv/bin/python benchmarks/golden.py make /tmp/golden-before --source /tmp/before
    .venv/bin/python benchmarks/golden.py make /tmp/golden-after
    .venv/bin/python benchmarks/golden.py compare /tmp/golden-before /tmp/golden-after

`make DIR --only grpo average` makes these and what they start from; `compare` then leaves the others out.

The script stands on its own: it imports nothing of the package or its tests, which may move. Each entry runs in a
forked child, so that torch is imported once; the child imports the package.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import runpy
import shlex
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

JOBS = 2
"""Entries that run at once."""
DEADLINE_SECONDS = 900
MADE = "made.json"
"""What `make` says of itself: where it ran, and the processor's seconds of each entry."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "COLUMNS": "100",
    "NO_COLOR": "1",
}

WORDS = ("apple", "river", "stone", "cloud", "tiger", "lemon", "music", "paper", "garden", "window")
PROMPTS = [f"Say {' '.join(WORDS[(i + k) % 10] for k in range(1 + i % 4))} number {i}" for i in range(20)]
COMPLETIONS = [" ".join(WORDS[(3 * i + k) % 10] for k in range(1 + i % 5)) for i in range(20)]
PAIRS = list(zip(PROMPTS, COMPLETIONS, strict=True))
FILES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "sft.jsonl": [{"prompt": p, "completion": c} for p, c in PAIRS[:11]],
    "short.jsonl": [{"prompt": p, "completion": c} for p, c in PAIRS],
    "pairs.jsonl": [
        {"prompt": p, "chosen": c, "rejected": f"no {WORDS[i % 10]}" + "!" * (i % 3)}
        for i, (p, c) in enumerate(PAIRS[:11])
    ],
    "labels.jsonl": [{"prompt": p, "completion": c, "label": i % 2 == 0} for i, (p, c) in enumerate(PAIRS[:11])],
    "steps.jsonl": [
        {"prompt": p, "steps": c.split(), "labels": [(i + k) % 3 > 0 for k in range(len(c.split()))]}
        for i, (p, c) in enumerate(PAIRS[:11])
    ],
    "tasks.jsonl": [{"prompt": p} for p in PROMPTS[:11]],
    "sums.jsonl": [{"prompt": f"{a}+{a + 1}=", "answer": str(2 * a + 1)} for a in range(12)],
    "faulty.jsonl": [{"prompt": "a", "completion": "b"}, {"prompt": 3, "completion": "b"}, {"completion": "b"}],
}
"""11 rows and batches of 3 or 4: checkpoints fall inside passes."""
TEXTS = {
    "reward.py": "def length(response):\n    return (len(response) * 7 % 11) / 10\n",
    "said.txt": "Say apple\nSay river stone\n",
}

TINY = "--model tiny-random --learning-rate 1e-4 --max-steps 5 --save-every 2 --out {name}"
EIGHT = "--data tasks.jsonl --batch-size 8 --group-size 4"
ASKED = f"{TINY} {EIGHT} --max-new-tokens 6"
LENGTH = "--reward reward.py:length"
EVALUATED = f"eval {{name}} --data sums.jsonl {LENGTH} --samples 3 --max-new-tokens 6 --out {{name}}"
REPORT = "report {name}"
RUNS: Mapping[str, Sequence[str]] = {
    "short": ("sft --model tiny-random --data short.jsonl --max-steps 25 --learning-rate 2e-3 --out {name}",),
    "sft": (
        f"sft {TINY} --data sft.jsonl --batch-size 4 --warmup-steps 4 --eval-data sft.jsonl --eval-every 2 "
        "--patience 3 --keep 1",
        EVALUATED,
        REPORT,
    ),
    "longer": (
        "sft --model tiny-random --data sft.jsonl --batch-size 4 --max-steps 3 --keep 1 --out {name}",
        "sft --resume {name} --max-steps 5",
    ),
    "lora": (f"sft {TINY} --data sft.jsonl --batch-size 4 --lora-rank 4 --schedule cosine --save-dtype bfloat16",),
    "dpo": (f"dpo {TINY} --data pairs.jsonl --batch-size 3", REPORT),
    "tr-dpo": (f"dpo {TINY} --data pairs.jsonl --batch-size 3 --reference-every 3 --reference-mix 0.6",),
    "kto": (f"dpo {TINY} --data labels.jsonl --batch-size 4 --loss kto --loss sft=0.1",),
    "reward-model": (
        f"reward-model {TINY} --data pairs.jsonl --batch-size 4 --members 2 --centre-coefficient 0.01 --keep 1 "
        "--eval-data pairs.jsonl --eval-every 3 --best-of 4 --max-new-tokens 4",
        REPORT,
    ),
    "length-head": (f"reward-model {TINY} --data pairs.jsonl --batch-size 4 --length-head --lora-rank 4",),
    "process-model": (f"reward-model {TINY} --data steps.jsonl --batch-size 4", REPORT),
    "adversarial": (
        f"adversarial {TINY} --data pairs.jsonl --batch-size 4 --members 2 --rounds 1 --prompts 4 --samples 2 "
        "--max-new-tokens 4 --edit-steps 1 --edit-tries 2",
    ),
    "grpo": (
        f"rl {ASKED} {LENGTH} --updates-per-batch 2 --beta 0.05 --keep 1",
        EVALUATED,
        REPORT,
    ),
    "ppo": (f"rl {ASKED} {LENGTH} --algorithm ppo --minibatches 2 --kl-target 1 --reference-every 3 --keep 1", REPORT),
    "dapo": (f"rl {ASKED} {LENGTH} --algorithm dapo --constraint length>=0.9 --max-refills 1",),
    "gspo": (f"rl {ASKED} {LENGTH} --algorithm gspo --ptx-data sft.jsonl --ptx-batch-size 2",),
    "kept-tokens": (f"rl {ASKED} {LENGTH} --top-p 0.9 --top-k 20 --temperature 0.8", REPORT),
    "composed": (
        f"rl {ASKED} --aggregation gdpo --reward 'clip(reward.py:length, low=0.2)=0:1,4:0.5' "
        "--reward 'length(max_length=3) as brief=0.5' --reward 'gate(regex(pattern=\"[^q]*\"), reward.py:length) "
        "as gated' --reward 'learned(reward-model)=0.1'",
    ),
    "replayed": (f"rl {ASKED} --replay grpo/rollouts.jsonl",),
    "dry-run": (f"rl {ASKED} {LENGTH} --dry-run",),
    "env": (
        f"rl --model short --learning-rate 1e-4 --max-steps 3 {EIGHT} {LENGTH} --max-new-tokens 20 --out {{name}} "
        "--env 'guess_number(low=1,high=5)' --max-turns 3",
        REPORT,
    ),
    "online-dpo": (f"online-dpo {ASKED} {LENGTH} --max-refills 1 --reference-every 3",),
    "distill": (
        f"distill {TINY} --data sft.jsonl --batch-size 4 --max-new-tokens 6 --on-policy-share 0.7 --lora-rank 4 "
        "--teacher short",
    ),
    "sample-best": (
        f"sample --model tiny-random --data sums.jsonl {LENGTH} --samples 4 --max-new-tokens 6 --truncated keep "
        "--write best --out {name}",
    ),
    "sample-pairs": (
        f"sample --model short --data tasks.jsonl {LENGTH} --samples 4 --max-new-tokens 20 --write pairs "
        "--out {name}",
    ),
    "revise": (
        "revise --model short --data tasks.jsonl --limit 4 --principles honest --revisions 1 --max-new-tokens 60 "
        "--out {name}",
    ),
    "retention": ("eval tiny-random --suite retention --out {name}",),
    "average": ("average sft dpo --out {name}",),
    "compare": ("compare sft grpo --out {name}",),
    "score": (
        f"score {LENGTH} --data sft.jsonl",
        "score --list",
        "score --reward learned(reward-model) --data sft.jsonl",
    ),
    "check-data": (
        "check-data sft.jsonl",
        "check-data pairs.jsonl --model tiny-random --max-length 40",
        "check-data faulty.jsonl",
        "check-data sft.jsonl --against tasks.jsonl",
    ),
    "chat": ("chat short --temperature 0 --max-new-tokens 12",),
    "recipe-instructgpt": ("run instructgpt --size tiny --out {name}",),
    "recipe-tulu3": ("run tulu3 --size tiny --out {name}",),
    "recipe-deepseek-r1": ("run deepseek-r1 --size tiny --out {name}",),
    "recipe-llama3": ("run llama3 --size tiny --out {name}",),
    "bad-input": (
        "sft --model tiny-random --data sft.jsonl",
        "sft --model tiny-random --data sft.jsonl --out bad --bogus 3",
        "sft --model tiny-random --data sft.jsonl --out bad --max-steps many",
        "sft --model tiny-random --data nowhere.jsonl --out bad",
        "sft --model tiny-random --data faulty.jsonl --out bad",
        "sft --model ./nowhere --data sft.jsonl --out bad",
        "sft --model tiny-random --data tasks.jsonl --out bad",
        "dpo --model tiny-random --data pairs.jsonl --out bad --loss sigmoidal",
        "rl --model tiny-random --data tasks.jsonl --out bad --reward maths",
        "rl --model tiny-random --data tasks.jsonl --out bad --reward math",
        f"rl --model tiny-random --data tasks.jsonl --out bad {LENGTH} --batch-size 8 --group-size 3",
        "rl --model tiny-random --data tasks.jsonl --out bad --reward reward.py:breadth",
        "eval tiny-random --data tasks.jsonl",
        "compare nowhere --out bad",
        "report nowhere",
        "run instructgtp",
        "run instructgpt --plan --set ppo.rewards=['math']",
        "finetune",
    ),
}
"""Name: the commands that one child runs one after the other. A name among a command's words is a run that it needs."""
COMMANDS = (
    *("run", "sft", "dpo", "online-dpo", "reward-model", "adversarial", "rl", "distill", "sample", "revise"),
    *("average", "eval", "score", "compare", "check-data", "report", "chat"),
)
RECIPES = ("quickstart", "ppo-and-grpo")
SIZED_RECIPES = ("constitutional", "deepseek-r1", "instructgpt", "llama3", "tulu3")
SIZES = ("laptop", "paper", "tiny")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make", help="run everything in a new folder; exit code 1 if a command cannot run")
    make.add_argument("folder", type=Path)
    make.add_argument("--source", type=Path, default=Path(__file__).parents[1], help="the tree whose package runs")
    make.add_argument("--only", nargs="+", metavar="NAME", help="these entries, and the runs that they need")
    comparison = verbs.add_parser("compare", help="list what differs; exit code 1 if anything does")
    comparison.add_argument("before", type=Path)
    comparison.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "make":
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(arguments.source.resolve())}
        if environment != os.environ:  # hashes and threads are settled when Python starts
            os.execve(sys.executable, [sys.executable, *sys.argv], environment)
        return make_golden(arguments.folder.resolve(), arguments.source.resolve(), arguments.only)
    differences = list(differing(arguments.before, arguments.after))
    print("\n".join(differences) or "nothing differs")
    return int(bool(differences))


# -- make -------------------------------------------------------------------------------------------------------------


def make_golden(folder: Path, source: Path, only: Sequence[str] | None) -> int:
    """Run the entries in `folder` with the package in `source`. The exit code is 1 if one has a fault of ours."""
    entries = entries_of(source)
    names = with_needs(entries, only or list(entries))
    folder.mkdir(parents=True)
    (folder / "printed").mkdir()
    for name, rows in FILES.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    sys.path[0] = str(source)
    os.chdir(folder)
    import torch  # noqa: F401  # the children have it from here
    import transformers  # noqa: F401

    seconds: dict[str, float] = {}
    failed: set[str] = set()
    running: dict[int, str] = {}
    waiting = list(names)
    while waiting or running:
        ready = [n for n in waiting if _needs(entries, n) <= seconds.keys()]
        if ready and len(running) < JOBS:
            waiting.remove(ready[0])
            running[_start(ready[0], entries[ready[0]])] = ready[0]
            continue
        child, status, usage = os.wait3(0)
        name = running.pop(child)
        seconds[name] = round(usage.ru_utime + usage.ru_stime, 1)
        print(f"{name}: {seconds[name]} s of the processor", flush=True)
        if status != 0:
            failed.add(name)
            print(f"  it failed, see {folder}/printed/{name}.txt", file=sys.stderr)
    paths = {"FOLDER": str(folder), "SOURCE": str(source), "PYTHON": sys.prefix}
    (folder / MADE).write_text(json.dumps({"paths": paths, "failed": sorted(failed), "seconds": seconds}, indent=1))
    return int(bool(failed))


def entries_of(source: Path) -> dict[str, list[list[str]]]:
    """Name: command lines as words."""
    lines = {
        "help": [["--help"], *([command, "--help"] for command in COMMANDS)],
        "plans": [
            *(["run", name, "--plan", "--size", size] for name in SIZED_RECIPES for size in SIZES),
            *(["run", name, "--plan"] for name in RECIPES),
            *(["run", str(file), "--plan"] for file in sorted((source / "examples").glob("*.yaml"))),
        ],
    }
    for name, commands in RUNS.items():
        lines[name] = [shlex.split(command.replace("{name}", name)) for command in commands]
    return lines


def _needs(entries: Mapping[str, Sequence[Sequence[str]]], name: str) -> set[str]:
    words = {word for line in entries[name] for word in line[1:]}
    paths = {re.sub(r".*\((.*)\).*", r"\1", word).split("/")[0] for word in words}
    return paths & entries.keys() - {name}


def with_needs(entries: Mapping[str, Sequence[Sequence[str]]], names: Sequence[str]) -> list[str]:
    wanted: dict[str, None] = {}
    for name in names:
        if name not in entries:
            raise SystemExit(f"there is no entry {name}; there are {', '.join(entries)}")
        wanted.update(dict.fromkeys([*with_needs(entries, sorted(_needs(entries, name))), name]))
    return list(wanted)


def _start(name: str, lines: Sequence[Sequence[str]]) -> int:
    """Run the command lines in a child and return its process id. It exits with 1 if one had a fault of ours."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    failed = 1
    try:
        signal.alarm(DEADLINE_SECONDS)
        failed = int(any([_run(name, words) for words in lines]))  # noqa: C419  # all run
    except BaseException:
        traceback.print_exc()
    os._exit(failed)


def _run(name: str, words: Sequence[str]) -> bool:
    """Run a command, add what it prints to the entry's file, and say whether it had a fault of ours."""
    with (
        open("said.txt") as said,
        open(f"printed/{name}.out", "w+") as out,
        open(f"printed/{name}.err", "w+") as err,
    ):
        for stream, number in ((said, 0), (out, 1), (err, 2)):
            os.dup2(stream.fileno(), number)
        sys.argv = ["posttrain", *words]
        code = _exit_code()
        sys.stdout.flush()
        sys.stderr.flush()
    texts = [Path(f"printed/{name}.{kind}").read_text() for kind in ("out", "err")]
    expected = name in ("bad-input", "check-data")
    with open(f"printed/{name}.txt", "a") as stream:
        # progress goes to stderr and depends on the clock
        stream.write(f"$ posttrain {shlex.join(words)}\n{texts[0]}{texts[1] if code else ''}exit code {code}\n\n")
    for kind in ("out", "err"):
        Path(f"printed/{name}.{kind}").unlink()
    return code != 0 and not (expected and code in (1, 2))


def _exit_code() -> int:
    """Of `python -m posttrain`, which stays where it is whatever moves inside."""
    try:
        runpy.run_module("posttrain", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


# -- compare ----------------------------------------------------------------------------------------------------------

CLOCK = re.compile(r"seconds|_per_second|_bytes|(^|_)(time|date|at)$|versions|machine")
"""Keys whose values depend on the clock, the machine or its memory."""
CLOCK_IN_TEXT = (
    r"(?s)<figure>\s*<figcaption><b>\w*(seconds|_per_second|_bytes)</b>.*?</figure>",
    r"&#34;\w*seconds&#34;: [\d.e-]+",
    r"(?<=</td><td>)\d+(?=</td><td>[^<]*</td><td>[^<]*</td><td class=\"left\">)",  # the seconds of a page's costs
    r"(?m) +\d+(?= +[\d.]+[kM]? +[\d.]+[kMGTP]?$)",  # and of a printed table's
    r"\b\d[\d.,]* ?(s|ms|min|h|seconds|minutes|[KMG]i?B)\b|\d{4}-\d\d-\d\d[T ][\d:.+Z]*",
)
"""The same in pages and in what is printed."""
SHOWN = 5
"""Differences of one file that are listed."""


def differing(before: Path, after: Path) -> Iterator[str]:
    """A line for each file that one folder lacks or that differs, and how it begins to. Entries that were made in one
    folder alone are left out."""
    made = [json.loads((folder / MADE).read_text()) for folder in (before, after)]
    entries = set(made[0]["seconds"]) & set(made[1]["seconds"])
    if not entries:
        yield "no entry was made in both folders"
    for side, folder in zip(made, (before, after), strict=True):
        yield from (f"{folder}: {name} failed" for name in side["failed"] if name in entries)
    names = {_relative(path, folder) for folder in (before, after) for path in _files(folder, entries)}
    yield from differing_files(before, after, names, [side["paths"] for side in made])


def differing_files(
    before: Path, after: Path, names: Iterable[str], paths: Sequence[Mapping[str, str]] = ({}, {})
) -> Iterator[str]:
    """A line for each of the files that one folder lacks or that differs, and how it begins to. `paths` are the names
    of places that stand in the files of the one and the other."""
    for name in sorted(names):
        first, second = before / name, after / name
        if not (first.exists() and second.exists()):
            yield f"{name}: only in {before if first.exists() else after}"
            continue
        found = list(_between(_comparable(first, paths[0]), _comparable(second, paths[1])))
        more = f"\n    … and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        if found:
            yield f"{name}:" + "".join(f"\n    {line}" for line in found[:SHOWN]) + more


def _files(folder: Path, entries: set[str]) -> Iterator[Path]:
    for name in entries:
        yield from (path for path in (folder / name).rglob("*") if path.is_file())
        yield folder / "printed" / f"{name}.txt"


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _comparable(path: Path, paths: Mapping[str, str]) -> Any:
    """The values of a file without what depends on the clock and on places; of a binary file its hash."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    for name, place in sorted(paths.items(), key=lambda item: -len(item[1])):  # one may lie in another
        text = text.replace(place, name)
    if path.suffix == ".json":
        return _timeless(json.loads(text))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in text.splitlines()]
    for pattern in CLOCK_IN_TEXT:
        text = re.sub(pattern, "…", text)
    return text.splitlines()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not CLOCK.search(key)}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return value


def _between(first: Any, second: Any, where: str = "") -> Iterator[str]:
    """Where two values differ and what stands there, cut."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys([*first, *second]):
            yield from _between(first.get(key, "nothing"), second.get(key, "nothing"), f"{where}/{key}")
    elif where == "" and isinstance(first, list) and all(isinstance(line, str) for line in [*first, *second]):
        lines = list(difflib.unified_diff(first, second, n=0, lineterm=""))[2:]  # without the names
        yield from (line[:200] for line in lines if not line.startswith("@@"))
    elif isinstance(first, list) and isinstance(second, list):
        for i, (a, b) in enumerate(zip_longest(first, second, fillvalue="nothing"), start=1):
            yield from _between(a, b, f"{where}/{i}")
    elif first != second and not (first != first and second != second):  # NaN equals NaN
        yield f"{where or 'hash'}: {str(first)[:200]} → {str(second)[:200]}"


if __name__ == "__main__":
    sys.exit(main())
