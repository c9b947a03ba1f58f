"""The command line: a subcommand is a config class and the function that takes it.

Nothing heavy is imported before the options are known to be right, so that `--help` and mistakes answer at once.
Exit codes: 0 done, 1 a finding or a failed run, 2 bad input, 3 a fault of ours, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from textwrap import indent
from types import FrameType
from typing import Any

from posttrain import config as configs
from posttrain.cli.next_steps import after
from posttrain.cli.option_help import command_help
from posttrain.cli.options import parse_options
from posttrain.config import Config
from posttrain.config.peer_names import meant_command
from posttrain.methods import METHODS, Method
from posttrain.runs.config import began_elsewhere, own_settings
from posttrain.text import printable
from posttrain.threads import configure_threads
from posttrain.types import InputError, RunFailed, RunPaused

DONE, FAILED, BAD_INPUT, OUR_FAULT, PAUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130


@dataclass(frozen=True)
class Command:
    """A subcommand. `run` returns the exit code; `positional` maps the fields given by place to their name in the
    help."""

    summary: str
    config: type[Config]
    run: Callable[[Any], int]
    positional: Mapping[str, str] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` is without the program's name; the default is the process's."""
    with _interrupted_by_sigterm():
        return _run_command(argv)


def _run_command(argv: Sequence[str] | None) -> int:
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return BAD_INPUT
    except RunFailed as error:
        print(f"failed: {printable(error)}", file=sys.stderr)
        return FAILED
    except RunPaused as pause:
        print(f"paused: {printable(pause)}", file=sys.stderr)
        return PAUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); the interpreter's last flush must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception:
        print(printable(traceback.format_exc()), file=sys.stderr)
        print(
            "This is a fault in posttrain, not in your input; please report it with the lines above.", file=sys.stderr
        )
        return OUR_FAULT


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


def _dispatch(args: list[str]) -> int:
    commands = _commands()
    if not args or args[0] in ("-h", "--help"):
        print(_overview(commands), file=sys.stdout if args else sys.stderr)
        return DONE if args else BAD_INPUT
    if args[0] == "--version":
        print(f"posttrain {version('posttrain')}")
        return DONE
    name, rest = args[0], args[1:]
    if name not in commands:
        raise InputError(f"unknown command {name!r}; {meant_command(name, list(commands))}")
    command = commands[name]
    if {"-h", "--help"}.intersection(rest):
        print(command_help(command.config, f"posttrain {name}", command.positional))
        return DONE

    def completed(run: Path, given: dict[str, Any]) -> dict[str, Any]:
        settings = own_settings(run, given, name)
        _tell(began_elsewhere(run))
        return settings

    try:
        config = parse_options(
            command.config, rest, f"posttrain {name}", command.positional, _owners(commands), completed
        )
    except SystemExit as stop:  # how tyro ends after an option without its value
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    _check_named(config)
    configure_threads()
    code = command.run(config)
    if code == DONE and not getattr(config, "plan", False) and not getattr(config, "dry_run", False):
        with suppress(InputError, OSError):  # the work is done, whatever else lies in the folder
            _tell(after(config))
    return code


def _tell(text: str) -> None:
    """Say it on standard error, if there is something to say: scripts read standard output."""
    if text:
        print(printable(text), file=sys.stderr)


def _owners(commands: Mapping[str, Command]) -> dict[str, list[str]]:
    """The commands that have an option, by its field."""
    owners: dict[str, list[str]] = {}
    for name, command in commands.items():
        for option in command.config.model_fields.keys() - command.positional.keys():
            owners.setdefault(option, []).append(name)
    return owners


def _check_named(config: Config) -> None:
    """See `named_files`. What a recipe, a comparison and a score name is looked for by themselves, without torch."""
    if isinstance(config, configs.RunConfig | configs.CompareConfig | configs.ReportConfig | configs.ScoreConfig):
        return
    from posttrain.api.named_files import check_named

    check_named(config)


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
        name: Command(method.summary, method.config, _method(method), method.positional)
        for name, method in METHODS.items()
    }
    return {
        "run": Command("run a whole recipe and compare its stages", configs.RunConfig, _run, {"recipe": "RECIPE"}),
        **methods,
        "eval": Command("measure a model on held-out tasks", configs.EvalConfig, _eval, {"model": "MODEL"}),
        "score": Command("score given completions with a reward", configs.ScoreConfig, _score),
        "compare": Command("compare finished runs side by side", configs.CompareConfig, _compare, {"runs": "RUN..."}),
        "check-data": Command(
            "find faults in a data file before training", configs.CheckDataConfig, _check_data, {"file": "FILE"}
        ),
        "report": Command("write the HTML report of a run", configs.ReportConfig, _report, {"run": "RUN"}),
        "chat": Command("talk to a model", configs.ChatConfig, _chat, {"model": "MODEL"}),
    }


def _run(config: configs.RunConfig) -> int:
    if config.plan:
        from posttrain.recipes.plan import show_plan

        show_plan(config)
        return DONE
    from posttrain.recipes.run import run_recipe

    run_recipe(config)
    return DONE


def _method(method: Method) -> Callable[[Any], int]:
    """How a command runs a method: its function, then the run's page, or the path of the data that was made."""

    def run(config: Any) -> int:
        method.function(config)
        if getattr(config, "dry_run", False):
            return DONE
        if method.writes != "data":
            return _reported(config.out)
        print(config.out / config.file)
        return DONE

    return run


def _reported(run: Path) -> int:
    """A finished run gets its page once; resuming it again changes nothing."""
    from posttrain.report.html import write_report

    if not (run / "report.html").exists():
        write_report(run)
    print(run)
    return DONE


def _eval(config: configs.EvalConfig) -> int:
    from posttrain.evals.run import print_result, run_eval

    print_result(run_eval(config))
    return DONE


def _score(config: configs.ScoreConfig) -> int:
    if config.list:
        return _list_rewards()
    from posttrain.rewards.score import run_score

    return run_score(config, sys.stdin.buffer, sys.stdout, sys.stderr)


def _list_rewards() -> int:
    from posttrain.rewards.score import describe_rewards

    for name, text in describe_rewards():
        print(f"{name}\n{indent(text, '    ')}\n")
    return DONE


def _compare(config: configs.CompareConfig) -> int:
    from posttrain.cli.compare import compare_runs

    compare_runs(config)
    return DONE


def _check_data(config: configs.CheckDataConfig) -> int:
    from posttrain.data.check import check_data, format_report, next_command

    report = check_data(config.file, config.against, config.columns)
    print(printable(format_report(report)))
    ok = report.ok
    if config.model is not None:
        from posttrain.train.check_data import check_tokens, format_tokens

        tokens = check_tokens(config)
        print(printable(format_tokens(tokens)))
        ok = ok and tokens.ok
    if not ok:
        return FAILED
    if command := next_command(report, config):
        print(f"next: {printable(command)}")
    return DONE


def _report(config: configs.ReportConfig) -> int:
    from posttrain.report.html import write_report

    print(write_report(config.run))
    return DONE


def _chat(config: configs.ChatConfig) -> int:
    from posttrain.cli.chat import chat

    chat(config)
    return DONE
