"""The command line: what it accepts, what it says, how fast, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.cli import main as cli
from posttrain.cli.chat import chat
from posttrain.cli.option_help import command_help
from posttrain.cli.options import parse_options
from posttrain.config import (
    ChatConfig,
    CheckDataConfig,
    CompareConfig,
    Config,
    DpoConfig,
    EvalConfig,
    RlConfig,
    RunConfig,
    SftConfig,
)
from posttrain.console import Progress, format_numbers, loading, short_path
from posttrain.threads import ALLOCATOR, configure_threads, usable_cores
from posttrain.types import InputError, RunFailed
from tests.conftest import ROOT, RunCli

TRAIN = ["--model", "m", "--data", "d.jsonl", "--out", "o"]
STARTS = ["--model", "tiny-random", "--data", str(ROOT / "examples/data/math_demos.jsonl"), "--out", "o"]
"""What a command names is there."""
TRAINING = ["sft", "dpo", "online-dpo", "reward-model", "adversarial", "rl", "distill", "sample", "revise"]
COMMANDS = ["run", *TRAINING, "average", "eval", "score", "audit", "compare", "check-data", "report", "chat"]


def parse(config: type[Config], *args: str, **positional: str) -> Config:
    return parse_options(config, args, "posttrain test", positional)


def refusal(config: type[Config], *args: str, **positional: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(config, *args, **positional)
    return str(caught.value)


# -- parsing ----------------------------------------------------------------------------------------------------------


def test_options_become_the_config_that_python_would_make() -> None:
    args = ["--max-steps", "7", "--learning-rate", "1e-4", "--lora-rank=8", "--raw", "--resume", "--schedule", "cosine"]
    expected = SftConfig(
        model="m",
        data="d.jsonl",
        out=Path("o"),
        max_steps=7,
        learning_rate=1e-4,
        lora_rank=8,
        raw=True,
        resume=True,
        schedule="cosine",
    )
    assert parse(SftConfig, *TRAIN, *args) == expected


def test_defaults_are_those_of_the_config() -> None:
    assert parse(DpoConfig, *TRAIN) == DpoConfig(model="m", data="d.jsonl", out=Path("o"))


def test_reward_repeats_in_order() -> None:
    config = parse(RlConfig, *TRAIN, "--reward", "math=0.8", "--reward", "format=0.2")
    assert isinstance(config, RlConfig)
    assert config.reward == ("math=0.8", "format=0.2")


def test_positional_arguments_stand_anywhere() -> None:
    config = parse(EvalConfig, "--data", "d", "tiny-random", "--reward", "math", model="MODEL")
    assert config == EvalConfig(model="tiny-random", data="d", reward=("math",))
    runs = parse(CompareConfig, "a", "b", "--out", "c", runs="RUN...")
    assert runs == CompareConfig(runs=(Path("a"), Path("b")), out=Path("c"))
    recipe = parse(RunConfig, "quickstart", "--set", "rl.beta=-1", "--set", "sft.data=a=b", recipe="RECIPE")
    assert recipe == RunConfig(recipe="quickstart", set=("rl.beta=-1", "sft.data=a=b"))
    check = parse(CheckDataConfig, "a.jsonl", "--against", "b.jsonl", file="FILE")
    assert check == CheckDataConfig(file="a.jsonl", against=("b.jsonl",))


def test_a_value_is_taken_as_typed() -> None:
    config = parse(EvalConfig, "None", "--data=--x", "--reward", "math", "--out", "None", model="MODEL")
    assert config == EvalConfig(model="None", data="--x", reward=("math",), out=Path("None"))


@pytest.mark.parametrize("again", [["--seed", "1", "--seed", "1"], ["--seed=1", "--seed", "2"], ["--raw", "--raw"]])
def test_any_other_option_given_twice_is_refused(again: list[str]) -> None:
    assert refusal(SftConfig, *TRAIN, *again) == f"{again[0].split('=')[0]} was given 2 times; give it once"


def test_underscores_do_not_hide_a_repeat() -> None:
    assert "--max-steps was given 2 times" in refusal(SftConfig, *TRAIN, "--max-steps", "1", "--max_steps", "2")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--batch-size", "0"], "--batch-size must be greater than or equal to 1, not '0'"),
        (["--batch-size", "-4"], "--batch-size must be greater than or equal to 1, not '-4'"),
        (["--batch-size", "2.5"], "--batch-size must be a valid integer, not '2.5'"),
        (["--micro-batch-tokens", "0"], "--micro-batch-tokens must be greater than or equal to 1 or 'auto', not '0'"),
        (["--micro-batch-tokens", "huge"], "--micro-batch-tokens must be a valid integer or 'auto', not 'huge'"),
        (["--learning-rate", "fast"], "--learning-rate must be a valid number, not 'fast'"),
        (["--learning-rate", "nan"], "--learning-rate must be a finite number, not 'nan'"),
        (["--schedule", "step"], "--schedule must be 'constant', 'linear' or 'cosine', not 'step'"),
        (["--eval-every", "5"], "--eval-every and patience need --eval-data"),
        (["--max-step", "5"], "unknown option --max-step; did you mean --max-steps?"),
        (["--quux", "5"], "unknown option --quux; --help lists the options"),
        (["--no-raw"], "unknown option --no-raw; did you mean --raw?"),
        (["--lr", "1"], "unknown option --lr; did you mean --learning-rate?"),
        (["--model_name_or_path", "m"], "unknown option --model_name_or_path; did you mean --model?"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(args: list[str], message: str) -> None:
    assert refusal(SftConfig, *TRAIN, *args) == message


def test_a_value_given_by_place_is_not_looked_for_among_the_options() -> None:
    assert refusal(EvalConfig, "--model", "m", model="MODEL") == "unknown option --model; write MODEL without it"


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        (
            "sft",
            ["--num_generations", "4"],
            "that would be --group-size, an option of posttrain online-dpo and rl, not of",
        ),
        ("rl", ["--num-generations", "4"], "did you mean --group-size?"),
        ("rl", ["--actor_rollout_ref.rollout.n=4"], "did you mean --group-size?"),
        ("sft", ["--beta", "0.1"], "it is an option of posttrain dpo, online-dpo and rl, not of posttrain sft"),
        ("eval", ["--lora-rank", "8"], "it is an option of posttrain sft, dpo, online-dpo and "),
        ("sft", ["--gradient_accumulation_steps", "8"], "not needed: --batch-size is the whole step"),
        ("dpo", ["--packing"], "not needed: rows are always packed"),
        ("rl", ["--rollout_batch_size", "64"], "did you mean --batch-size? It counts rollouts"),
        ("sft", ["learning_rate=1e-4"], "unexpected argument 'learning_rate=1e-4'; write --learning-rate 1e-4"),
        ("rl", ["actor_rollout_ref.rollout.n=8"], "write --group-size 8"),
    ],
)
def test_what_belongs_to_another_command_or_trainer_is_told(
    command: str, args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["m"] if command == "eval" else []
    assert cli.main([command, *place, *args]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scor", "did you mean score?"),
        ("grpo", "did you mean posttrain rl --algorithm grpo?"),
        ("kto", "did you mean posttrain dpo --loss kto?"),
        ("reward", "did you mean posttrain reward-model?"),
        ("merge", "RUN/model"),
        ("quux", "the commands are run, sft, "),
    ],
)
def test_an_unknown_command_gets_a_suggestion(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: unknown command '{name}'; ") and said in err


def test_help_breaks_its_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sft", "--help"]) == 0
    assert "nothing left to train after a cut" in " ".join(capsys.readouterr().out.split())


def test_large_numbers_have_no_exponent() -> None:
    assert format_numbers({"a": 11543.2, "b": 1.23456, "c": 1e-7, "d": None, "e": -20000.0}) == (
        "a 11543  b 1.235  c 1e-07  e -20000"
    )


def test_every_wrong_option_is_named() -> None:
    lines = refusal(EvalConfig, "--limit", "0", "--top-p", "2", model="MODEL").splitlines()
    assert {line.split()[0] for line in lines} == {"MODEL", "--data", "--reward", "--limit", "--top-p"}
    assert "MODEL is required" in lines


def test_repeatable_values_are_required_where_the_config_says_so() -> None:
    assert refusal(EvalConfig, "--data", "d", model="MODEL").splitlines() == [
        "MODEL is required",
        "--reward is required",
    ]
    assert refusal(CompareConfig, "--out", "o", runs="RUN...") == "RUN... is required"


def test_a_rule_between_options_names_them_as_typed() -> None:
    message = refusal(RlConfig, *TRAIN, "--reward", "math", "--batch-size", "12", "--group-size", "8")
    assert message.startswith("--batch-size counts rollouts and must be a multiple of --group-size")


# -- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("line 3 is empty"), 2, "error: line 3 is empty\n"),
        (RunFailed("too many failures"), 1, "failed: too many failures\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_code_and_message_of_a_command_that_stops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def stop(config: SftConfig) -> int:
        raise error

    monkeypatch.setattr(cli, "_method", lambda *_: stop)
    assert cli.main(["sft", *STARTS]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", said)


def test_sigterm_interrupts_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, so that what is cleaned up is not cut off in its turn; a fork of ours ends as any process."""
    cleaned: list[int] = []

    def stop(config: SftConfig) -> int:
        if not (child := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        cleaned.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(1)
        return 0

    monkeypatch.setattr(cli, "_method", lambda *_: stop)
    assert cli.main(["sft", *STARTS]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert cleaned == [-signal.SIGTERM, 1]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_handler_of_whoever_calls_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_method", lambda *_: lambda _: cli.Done(signal.getsignal(signal.SIGTERM) != mine))

    def mine(*_: object) -> None:
        """Nothing."""

    before = signal.signal(signal.SIGTERM, mine)
    try:
        assert cli.main(["sft", *STARTS]) == 0
        with ThreadPoolExecutor(1) as pool:  # where no handler can be set
            assert pool.submit(cli.main, ["sft", *STARTS]).result() == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_fault_of_ours_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: SftConfig) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli, "_method", lambda *_: fail)
    assert cli.main(["sft", *STARTS]) == 3
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "ZeroDivisionError: oops" in err
    assert "fault in posttrain" in err.splitlines()[-1]


def test_a_command_that_succeeds_exits_0(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SftConfig] = []

    def train(config: SftConfig) -> cli.Done:
        seen.append(config)
        return cli.Done()

    monkeypatch.setattr(cli, "_method", lambda *_: train)
    assert cli.main(["sft", *STARTS, "--seed", "3"]) == 0
    assert [config.seed for config in seen] == [3]


def test_help_is_no_error_and_no_command_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ")] == COMMANDS
    assert cli.main([]) == 2
    assert capsys.readouterr().err == listed


def test_an_option_without_its_value_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sft", "--model", "m", "--data"]) == 2
    assert "--data" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_names_every_option_in_a_group(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    spec = cli._commands()[command]
    shown = [name for names in spec.config.groups().values() for name in names]
    assert sorted(shown) == sorted(spec.config.model_fields)
    for name in shown:
        assert f"  {spec.positional.get(name, '--' + name.replace('_', '-'))}" in text
    for title in spec.config.groups():
        assert text.count(f"\n{title}:\n") == 1
    assert (spec.config.__doc__ or "").split(".")[0].split("\n")[0][:40] in text


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_a_command_can_be_run(command: str) -> None:
    """They parse, and name files that there are."""
    spec = cli._commands()[command]
    assert spec.config.EXAMPLES
    for example in spec.config.EXAMPLES:
        program, name, *args = shlex.split(example)
        assert (program, name) == ("posttrain", command)
        parse_options(spec.config, args, "posttrain", spec.positional)
        assert all((ROOT / word).exists() for word in args if word.startswith("examples/"))


def test_help_shows_defaults_and_what_is_required() -> None:
    text = command_help(SftConfig, "posttrain sft", {}, width=100)
    assert text.startswith("usage: posttrain sft --model TEXT --data TEXT --out PATH [OPTIONS]\n")
    assert "Rank of LoRA adapters on every linear layer; 0 trains the full weights. (default: 0)" in " ".join(
        text.split()
    )
    assert "  --micro-batch-tokens INT|auto\n" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("  posttrain ")) <= 100


# -- speed and the process --------------------------------------------------------------------------------------------


def test_help_and_mistakes_are_answered_before_torch_is_imported() -> None:
    commands = {
        "rl --help": 0,
        "rl --model m --data d --out o --reward math --beta -1": 2,
        "nothing": 2,
        "score --list": 0,
        "check-data no-such-file.jsonl": 2,
        "run no-such-recipe": 2,
    }
    script = (
        "import sys; from posttrain.cli.main import main\n"
        f"for command in {list(commands)}:\n"
        "    code = main(command.split())\n"
        "    heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "    print(f'{command}: {code} {sorted(heavy)}', file=sys.__stderr__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    said = done.stderr.splitlines()
    assert [line for line in said if line.split(": ")[0] in commands] == [f"{c}: {n} []" for c, n in commands.items()]


def test_the_process_exits_with_the_code(run_cli: RunCli, tmp_path: Path) -> None:
    rows = [{"prompt": "1+1?", "completion": "2", "answer": "2"}, {"prompt": "1+2?", "completion": "4", "answer": "3"}]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wrong = run_cli("score", "--data", data)
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", "error: --reward is required\n")
    (tmp_path / "reward.py").write_text("def same(response, answer):\n    return float(response == answer)\n")
    done = run_cli("score", "--data", data, "--reward", f"{tmp_path / 'reward.py'}:same")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [1.0, 0.0]


def test_check_data_exits_1_on_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.dumps({"prompt": "hi", "completion": "there"}) + "\n"
    data = tmp_path / "rows.jsonl"
    data.write_text(good)
    assert cli.main(["check-data", str(data)]) == 0
    data.write_text(good + '{"prompt": 3, "completion": "there"}\n')
    assert cli.main(["check-data", str(data)]) == 1
    assert "rows.jsonl:2" in capsys.readouterr().out


def test_threads_are_set_once_and_the_user_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", *ALLOCATOR):
        monkeypatch.setenv(name, "")  # for what is set here to go again
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    configure_threads()
    assert os.environ["OMP_NUM_THREADS"] == str(usable_cores())
    if sys.platform == "linux":
        assert os.environ.pop(ALLOCATOR[0]) == "expandable_segments:True"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv(ALLOCATOR[1], "backend:cudaMallocAsync")  # the older name, with something else in it
    configure_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7" and ALLOCATOR[0] not in os.environ


@pytest.mark.parametrize("args", [["compare", "no-run", "--out", "o"], ["report", "no-run"]])
def test_compare_and_report_name_a_folder_that_is_not_there(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(args) == 2
    assert capsys.readouterr().err.startswith("error: no-run")


# -- progress and chat ------------------------------------------------------------------------------------------------


def test_progress_without_a_terminal_prints_a_line_now_and_then() -> None:
    now = [0.0]
    stream = io.StringIO()
    with Progress("sft", 5, stream=stream, seconds=10, clock=lambda: now[0]) as progress:
        for step, seconds in [(1, 0.0), (2, 3.0), (3, 11.0), (4, 12.0), (5, 13.0)]:
            now[0] = seconds
            progress.advance(step, {"loss": 1 / step, "kl": None})
    assert stream.getvalue().splitlines() == [
        "sft: step 1/5  loss 1",
        "sft: step 3/5  loss 0.3333",
        "sft: step 5/5  loss 0.2",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_terminal_shows_a_bar_and_the_numbers() -> None:
    stream = Terminal()
    with Progress("rl", 4, stream=stream) as progress:
        progress.advance(3, {"reward": 0.25})
    assert "3/4" in stream.getvalue()
    assert "reward 0.25" in stream.getvalue()


def test_a_notebook_s_line_says_loading_and_then_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one place of a cell; what another cell had begun is left as it is."""
    lines: list[list[str]] = []

    def display(data: dict[str, str], **options: Any) -> SimpleNamespace:
        lines.append(shown := [data["text/plain"]])
        return SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))

    cell = SimpleNamespace(kernel="one", execution_count=1)
    notebook = SimpleNamespace(get_ipython=lambda: cell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    loading("runs/sft/model")
    with Progress("rl", 2) as progress:
        progress.advance(2)
    assert lines == [["loading sft/model", "rl: step 2/2"]]
    loading("m")
    cell.execution_count = 2
    with Progress("sft", 1) as progress:
        progress.advance(1)
    assert lines[1:] == [["loading m"], ["sft: step 1/1"]]


def test_a_title_has_the_last_two_parts_of_a_path() -> None:
    paths = ["/tmp/a/b/sft/model", "runs/sft", "./m/", "owner/name", "tiny-random", "/m"]
    assert [short_path(p) for p in paths] == ["sft/model", "runs/sft", "m", "owner/name", "tiny-random", "/m"]


def talk(lines: str) -> list[str]:
    sink = io.StringIO()
    chat(ChatConfig(model="tiny-random", max_new_tokens=4, temperature=0), io.StringIO(lines), sink)
    return sink.getvalue().split("\n")[:-1]


def test_chat_answers_each_line_in_the_light_of_those_before() -> None:
    [first] = talk("zzz zzz\n")
    [alone] = talk("hello\n")
    remembered = talk("zzz zzz\n\nhello\n")
    assert len(remembered) == 2
    assert remembered[0] == first
    assert remembered[1] != alone
    assert talk("zzz zzz\n/reset\nhello\n/exit\nnever answered\n") == [first, alone]


def test_chat_commands_change_the_conversation_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of it goes to standard output, which has the answers alone, and piped lines get no banner."""
    [alone] = talk("hello\n")
    said = "zzz\n/undo\nhello\n/system Be brief.\n/temprature 1\n/top-p 2\n/seed x\n/temperature 0\n/help\n"
    answers = talk(said)
    assert len(answers) == 2 and answers[1] == alone
    err = capsys.readouterr().err
    assert "0 turns are left" in err and "system 'Be brief.'" in err
    assert "unknown command /temprature; did you mean /temperature?" in err
    assert "/top-p must be less than or equal to 1, not '2'" in err
    assert all(f"\n{name} " in err for name in ("/reset", "/undo", "/exit"))
    assert "leaves" not in err.partition("\n")[0]


def test_chat_that_is_typed_in_has_a_banner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: "/exit")
    chat(ChatConfig(model="tiny-random"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "tiny-random, its chat template; temperature 0.7" in err and "/help lists the commands" in err


def test_chat_whose_first_message_does_not_fit_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert cli.main(["chat", "tiny-random", "--max-new-tokens", "5000"]) == 2
    err = capsys.readouterr().err
    assert "context of 2048" in err and "Traceback" not in err
