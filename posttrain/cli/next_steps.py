"""What a finished command leaves behind, and what to do next by commands that can be copied. Reads run folders."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain import config as configs
from posttrain.methods import METHODS
from posttrain.runs.comparison import read_comparison
from posttrain.runs.log import LINEAGE
from posttrain.runs.reader import Run

NOTABLE_STEPS = 5
"""Steps at the beginning and at the end over which the mean reward is taken."""
Lines = Iterator[tuple[str, str]]
"""What a line is about, and the line."""


def after(config: Any) -> list[tuple[str, str]]:
    """What to tell once the command of `config` has finished: what a line is about, and the line; `next` is a command.
    Raises InputError for damaged files of a run."""
    method = next((method for method in METHODS.values() if type(config) is method.config), None)
    if method is not None:
        return list(_after_sampling(config) if method.writes == "data" else _after_training(config, method.writes))
    if isinstance(config, configs.EvalConfig):
        return list(_after_eval(config))
    if isinstance(config, configs.RunConfig):
        return list(_after_recipe(config.folder))
    return [("next", _command("chat", config.runs[-1]))] if isinstance(config, configs.CompareConfig) else []


def formatted(lines: Iterable[tuple[str, str]]) -> str:
    """One aligned line for each text; a label that repeats is printed once."""
    out, before = [], ""
    for about, text in lines:
        out.append(f"{'' if about == before else about + ':':<10}{text}")
        before = about
    return "\n".join(out)


def _after_training(config: Any, made: str) -> Lines:
    run = config.out
    yield "model", str(run / "model")
    yield "report", str(run / "report.html")
    yield from _stopped(Run(run), config)
    yield from _progress(Run(run).metrics)
    if made == "reward-model":
        reward = ("--reward", f"learned({run})", "--out", _beside(run, "best"))
        model = config.policy or config.model
        note = "   # tasks.jsonl: rows with a prompt; --reward is as good in posttrain rl"
        yield "next", _command("sample", "--model", model, "--data", "tasks.jsonl", *reward, *_flags(config)) + note
        return
    rewards = getattr(config, "reward", ())
    if rewards and not any("judge_pair" in reward for reward in rewards):  # which compares answers with each other
        yield from _evaluation(config)
    elif not (run / "evaluations" / "retention.json").exists():
        yield "next", _command("eval", run, "--suite", "retention", "--out", run, *_flags(config))
    yield "next", _command("chat", run, *_flags(config, "trust_remote_code"))


def _evaluation(config: Any) -> Lines:
    """The run measured by its own reward, which needs the answers to be single turns."""
    run = config.out
    if getattr(config, "env", None) is not None or (run / "evaluations" / "held_out.json").exists():
        return
    rewards = [word for reward in config.reward for word in ("--reward", reward)]
    held_out = config.eval_data or _rest(config.data)
    words = ["eval", run, "--data", held_out or config.data, *_columns(config), *rewards]
    if config.max_new_tokens != 256:
        words += ["--max-new-tokens", config.max_new_tokens]
    note = "" if held_out else "   # better on tasks that were not trained on"
    yield "next", _command(*words, "--out", run, *_flags(config)) + note


def _stopped(run: Run, config: Any) -> Lines:
    """What ended the run before its last step, and when."""
    end = next((event for event in reversed(run.events) if event["event"] == "finished"), None)
    if end is None or (by := end.get("ended_by", "steps")) == "steps":
        return
    raised = [event["monitor"] for event in run.events if event["event"] == by and "monitor" in event]
    of = f" of {config.max_steps}" if config.max_steps else ""
    yield "stopped", f"by {raised[-1] if raised else by} at step {end['steps']}{of}"


def _progress(rows: Sequence[Mapping[str, Any]]) -> Lines:
    """The best step by the held-out data, and how the reward has changed."""
    if best := best_held_out(rows):
        step, last, name = best["step"], best["last_step"], best["metric"]
        word = "lowest" if name == "eval/loss" else "highest"
        then = "" if step == last else f"; {best['last_value']:.4g} at step {last}, the last that was evaluated"
        yield "held out", f"{name.removeprefix('eval/')} {best['value']:.4g} at step {step}, the {word}{then}"
    reward = "reward/true" if rows and "reward/true" in rows[-1] else "reward"  # a control is paid by something else
    for name, metric in (("reward", reward), ("sealed", "sealed_reward")):
        values = [row[metric] for row in rows if row.get(metric) is not None]
        if len(values) > 1:
            n = min(NOTABLE_STEPS, len(values) // 2)
            first, last = fmean(values[:n]), fmean(values[-n:])
            steps = "step" if n == 1 else f"{n} steps"
            yield name, f"mean {last:.3g} in the last {steps}, {last - first:+.3g} against the first {steps}"


def best_held_out(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The step with the lowest loss or the highest reward on held-out data, and the last one; {} without any."""
    for name, best in (("eval/loss", min), ("eval/reward", max)):
        if seen := {row["step"]: row[name] for row in rows if row.get(name) is not None}:
            step, last = best(seen, key=lambda n: seen[n]), max(seen)
            return {"metric": name, "step": step, "value": seen[step], "last_step": last, "last_value": seen[last]}
    return {}


def _rest(data: str) -> str | None:
    """The part of a file that training on `FILE?split=train[:90%]` has left; None for other data."""
    begins = re.fullmatch(r"([^,]*\?split=[^\[,]*)\[:(\d+%?)\]", data)
    return f"{begins[1]}[{begins[2]}:]" if begins else None


def _after_sampling(config: configs.SampleConfig | configs.ReviseConfig) -> Lines:
    file = config.out / config.file
    method = "dpo" if config.write == "pairs" else "sft"
    yield "data", str(file)
    if config.model is None:
        yield "next", _command("check-data", file)
        return
    out = _beside(config.out, method)
    yield "next", _command(method, "--model", config.model, "--data", file, "--out", out, *_flags(config))


def _after_eval(config: configs.EvalConfig) -> Lines:
    """A comparison with what the model was trained from, once both were evaluated alike."""
    if config.out is None:
        yield "note", "nothing was written; --out RUN keeps the result for posttrain compare"
        return
    yield "result", str(config.out / "evaluations" / f"{config.file}.json")
    lineage = Run(config.out).lineage
    start = lineage.parents[0] if lineage is not None and lineage.parents else ""
    if not start:
        yield "next", _command("compare", config.out, "--out", _beside(config.out, "comparison"))
        return
    folder = Path(start).parent if Path(start).name == "model" else Path(start)
    if (folder / "evaluations" / f"{config.file}.json").exists():
        yield "next", _command("compare", folder, config.out, "--out", _beside(config.out, "comparison"))
        return
    where = folder if (folder / LINEAGE).exists() else _beside(config.out, "start")
    yield "next", _command("eval", start, *_same_evaluation(config), "--out", where)
    yield "next", _command("compare", where, config.out, "--out", _beside(config.out, "comparison"))


def _same_evaluation(config: configs.EvalConfig) -> Iterator[str]:
    """The options of an evaluation that are not as they are by default, but for the model and the folder."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name in ("model", "out") or value == field.default:
            continue
        option = f"--{name.replace('_', '-')}"
        if name == "columns":
            yield from _columns(config)
        elif value is True:
            yield option
        else:
            for word in value if isinstance(value, tuple) else (value,):
                yield from (option, str(word))


def _after_recipe(out: Path) -> Lines:
    """The stage with the highest score, if it was measured, else the last one; never a control. Where the report is has
    been printed."""
    compared = read_comparison(out)
    lead = next(iter(compared.get("leads", {}).values()), None)
    ranked = [lead["of"], *(other["against"] for other in lead["others"])] if lead else []
    runs = (Run(out / name) for name in (*ranked, *reversed(compared["stages"])))
    models = (run for run in runs if run.model.exists() and not run.config.get("control"))
    if (run := next(models, None)) is not None:
        yield "model", str(run.model)
        yield "next", _command("chat", run.path)


def _columns(config: Any) -> list[str]:
    names = config.columns or {}
    return ["--columns", ",".join(f"{field}={column}" for field, column in names.items())] if names else []


def _flags(config: Any, *names: str) -> list[str]:
    """The flags of the config without which a run could not be read, or would be read otherwise."""
    wanted = names or ("raw", "trust_remote_code")
    return [f"--{name.replace('_', '-')}" for name in wanted if getattr(config, name, False)]


def _beside(run: Path, what: str) -> str:
    return str(run.parent / f"{run.name}-{what}")


def _command(*words: Any) -> str:
    return shlex.join(["posttrain", *map(str, words)])
