"""The command line: a subcommand is a config class and the function that takes it.

Nothing heavy is imported before the options are known to be right, so that `--help` and mistakes answer at once.
Exit codes: 0 done, 1 a finding or a failed run, 2 bad input, 3 a fault of ours, 4 paused, 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from io import StringIO, UnsupportedOperation
from pathlib import Path
from textwrap import indent
from types import FrameType
from typing import Any

from pydantic_core import to_jsonable_python

from posttrain import config as configs
from posttrain.cli import results
from posttrain.cli.next_steps import after, formatted
from posttrain.cli.option_help import command_help, help_data
from posttrain.config import Config
from posttrain.config.peer_names import meant_command
from posttrain.methods import METHODS, Method
from posttrain.runs.config import began_elsewhere, own_settings
from posttrain.text import printable, printable_json
from posttrain.threads import configure_threads
from posttrain.types import InputError, RunFailed, RunPaused

DONE, FAILED, BAD_INPUT, OUR_FAULT, PAUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130
JSON = "--json"


@dataclass(frozen=True)
class Done:
    """How a command has ended. `result` makes data for `--json` from what was printed and written; `next` are commands
    that can be copied."""

    code: int = DONE
    result: Callable[[str], Mapping[str, Any]] = lambda printed: {}
    error: str | None = None
    next: Sequence[str] = ()


@dataclass(frozen=True)
class Command:
    """A subcommand. `positional` maps the fields given by place to their name in the help."""

    summary: str
    config: type[Config]
    run: Callable[[Any], Done]
    positional: Mapping[str, str] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` is without the program's name; the default is the process's."""
    args = list(sys.argv[1:] if argv is None else argv)
    with _interrupted_by_sigterm():
        return _guarded(_answer if JSON in args else _dispatch, args).code


def _guarded(work: Callable[[list[str]], Done], args: list[str]) -> Done:
    try:
        return work(args)
    except InputError as error:
        return _ended(BAD_INPUT, str(error), "error: ")
    except RunFailed as error:
        return _ended(FAILED, str(error), "failed: ")
    except RunPaused as pause:
        return _ended(PAUSED, str(pause), "paused: ")
    except KeyboardInterrupt:
        return _ended(INTERRUPTED, "interrupted")
    except BrokenPipeError as error:
        # Whoever read our output has gone (`| head`); the interpreter's last flush must have somewhere to go.
        with suppress(UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Done(FAILED, error=str(error))
    except Exception as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return _ended(FAILED, f"the disk is full ({error}); free some space and run the command again", "failed: ")
        _tell(traceback.format_exc())
        _tell("This is a fault in posttrain, not in your input; please report it with the lines above.")
        return Done(OUR_FAULT, error=f"a fault in posttrain: {type(error).__name__}: {error}")


def _ended(code: int, error: str, word: str = "") -> Done:
    _tell(word + error)
    return Done(code, error=error)


def _answer(args: list[str]) -> Done:
    """Do what the line says without `--json`, and print one JSON object in place of all that it prints."""
    words = [word for word in args if word != JSON]
    result: dict[str, Any] = {}

    def finished(words: list[str]) -> Done:
        done = _dispatch(words)
        try:
            result.update(to_jsonable_python(done.result(printed.getvalue()), inf_nan_mode="null", fallback=str))
        except (InputError, OSError) as error:  # the work is done, whatever else lies in the folder
            return replace(done, error=str(error))
        return done

    with redirect_stdout(StringIO()) as printed:
        done = _guarded(finished, words)
    command = next((word for word in words[:1] if not word.startswith("-")), None)
    ended = {"command": command, "exit_code": done.code, "error": done.error, **result, "next": list(done.next)}
    print(printable_json(json.dumps(ended, ensure_ascii=False)), flush=True)
    return done


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM in here raise KeyboardInterrupt as Ctrl-C does, once: GNU's `timeout` sends it twice."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # whoever called has plans of their own
        return
    here = os.getpid()

    def strike(number: int, frame: FrameType | None) -> None:
        if os.getpid() != here:  # a fork, which ends as it would without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, strike)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _dispatch(args: list[str]) -> Done:
    commands = _commands()
    if not args or args[0] in ("-h", "--help"):
        print(_overview(commands), file=sys.stdout if args else sys.stderr)
        listed = [{"name": name, "summary": command.summary} for name, command in commands.items()]
        return Done(result=lambda _: {"commands": listed}) if args else Done(BAD_INPUT, error="no command was given")
    if args[0] == "--version":
        print(f"posttrain {(found := version('posttrain'))}")
        return Done(result=lambda _: {"version": found})
    name, rest = args[0], args[1:]
    if name not in commands:
        raise InputError(f"unknown command {name!r}; {meant_command(name, list(commands))}")
    command = commands[name]
    if {"-h", "--help"}.intersection(rest):
        print(command_help(command.config, f"posttrain {name}", command.positional))
        about = {"summary": command.summary, **help_data(command.config, command.positional)}
        return Done(result=lambda _: about)

    from posttrain.cli.options import parse_options  # which brings the parser; the help needs none

    def completed(run: Path, given: dict[str, Any]) -> dict[str, Any]:
        settings = own_settings(run, given, name)
        _tell(began_elsewhere(run))
        return settings

    config = parse_options(command.config, rest, f"posttrain {name}", command.positional, _owners(commands), completed)
    from posttrain.api.named_files import check_named

    check_named(config)
    configure_threads()
    done = command.run(config)
    if done.code == DONE and not getattr(config, "plan", False) and not getattr(config, "dry_run", False):
        with suppress(InputError, OSError):  # the work is done, whatever else lies in the folder
            lines = after(config)
            _tell(formatted(lines))
            suggested = [line.partition("   # ")[0] for about, line in lines if about == "next"]
            return replace(done, next=suggested or done.next)
    return done


def _tell(text: str) -> None:
    """Say it on standard error, if there is something to say: scripts read standard output."""
    if text:
        print(printable(text), file=sys.stderr)


def _owners(commands: Mapping[str, Command]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for name, command in commands.items():
        for option in command.config.model_fields.keys() - command.positional.keys():
            owners.setdefault(option, []).append(name)
    return owners


def _overview(commands: Mapping[str, Command]) -> str:
    lines = [
        "usage: posttrain COMMAND [OPTIONS]",
        "",
        "Post-train language models by examples (SFT), preferences (DPO) and rewards (RL), and measure what worked.",
        "",
        *(f"  {name:<14}{command.summary}" for name, command in commands.items()),
        "",
        "posttrain COMMAND --help lists a command's options; posttrain --version prints the version.",
    ]
    return "\n".join(lines)


def _commands() -> dict[str, Command]:
    methods = {
        name: Command(method.summary, method.config, _method(name, method), method.positional)
        for name, method in METHODS.items()
    }
    return {
        "run": Command("run a whole recipe and compare its stages", configs.RunConfig, _run, {"recipe": "RECIPE"}),
        **methods,
        "eval": Command("measure a model on held-out tasks", configs.EvalConfig, _eval, {"model": "MODEL"}),
        "score": Command("score given completions with a reward", configs.ScoreConfig, _score),
        "audit": Command("attack a reward before training with it", configs.AuditConfig, _audit),
        "compare": Command("compare finished runs side by side", configs.CompareConfig, _compare, {"runs": "RUN..."}),
        "check-data": Command(
            "find faults in a data file before training", configs.CheckDataConfig, _check_data, {"file": "FILE"}
        ),
        "report": Command("write the HTML report of a run", configs.ReportConfig, _report, {"run": "RUN"}),
        "chat": Command("talk to a model", configs.ChatConfig, _chat, {"model": "MODEL"}),
    }


def _run(config: configs.RunConfig) -> Done:
    if config.plan:
        from posttrain.recipes.plan import plan_recipe, show_plan

        plan = plan_recipe(config)
        show_plan(plan)
        return Done(result=lambda _: asdict(plan))
    from posttrain.recipes.run import run_recipe

    run_recipe(config)
    return Done(result=lambda _: results.compared(config.folder))


def _method(name: str, method: Method) -> Callable[[Any], Done]:
    """How a command runs a method: its function, then the run's page, or the path of the data that was made."""

    def run(config: Any) -> Done:
        if getattr(config, "dry_run", False):
            method.run(config)
            return Done(result=lambda printed: {"text": printed})
        from posttrain.api.commands import train

        train(name, config)
        if method.writes == "data":
            print(config.out / config.file)
            return Done(result=lambda _: results.made_data(config.out, config.file))
        print(config.out)
        return Done(result=lambda _: results.trained(config.out))

    return run


def _eval(config: configs.EvalConfig) -> Done:
    from posttrain.evals.run import print_result, run_eval

    evaluation = run_eval(config)
    print_result(evaluation)
    return Done(result=lambda _: results.evaluated(config, evaluation))


def _score(config: configs.ScoreConfig) -> Done:
    from posttrain.rewards.score import describe_rewards, run_score

    if config.list:
        rewards = describe_rewards()
        for name, text in rewards:
            print(f"{name}\n{indent(text, '    ')}\n")
        return Done(result=lambda _: {"rewards": [{"reward": name, "help": text} for name, text in rewards]})
    try:
        return Done(run_score(config, sys.stdin.buffer, sys.stdout, sys.stderr), results.scored)
    except RunFailed as error:  # the scores say why each row has none
        return replace(_ended(FAILED, str(error), "failed: "), result=results.scored)


def _audit(config: configs.AuditConfig) -> Done:
    from posttrain.recipes.audit import audit_reward
    from posttrain.report.audit import print_audit
    from posttrain.report.html import write_report
    from posttrain.runs.audit import worst

    record = audit_reward(config)
    write_report(config.out)
    print_audit(record, config.out)
    code = FAILED if worst(record["findings"]) == "critical" else DONE
    return Done(code, result=lambda _: {"out": config.out, **record})


def _compare(config: configs.CompareConfig) -> Done:
    from posttrain.api.commands import compare_folders
    from posttrain.report.terminal import print_comparison

    comparison = compare_folders(config.runs, None, config.out, config.loose)
    print_comparison(comparison.data, config.out / "report.html")
    return Done(result=lambda _: results.compared(config.out))


def _check_data(config: configs.CheckDataConfig) -> Done:
    from posttrain.data.check import check_data, format_report, next_command

    report = check_data(config.file, config.against, config.columns)
    print(printable(format_report(report)))
    tokens = None
    if config.model is not None:
        from posttrain.train.check_data import check_tokens, format_tokens

        tokens = check_tokens(config)
        print(printable(format_tokens(tokens)))
    ok = report.ok and (tokens is None or tokens.ok)
    if command := next_command(report, config) if ok else "":
        print(f"next: {printable(command)}")
    return Done(DONE if ok else FAILED, lambda _: results.checked(report, tokens), next=[command] if command else [])


def _report(config: configs.ReportConfig) -> Done:
    from posttrain.report.html import write_report

    page = write_report(config.run)
    print(page)
    return Done(result=lambda _: {"report": page})


def _chat(config: configs.ChatConfig) -> Done:
    from posttrain.cli.chat import chat

    turns = chat(config)
    return Done(result=lambda _: {"turns": turns})
