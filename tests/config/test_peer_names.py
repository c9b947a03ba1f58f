"""Names of other trainers: each leads to something there is, and the page for their users shows the same."""

from __future__ import annotations

import re

import pytest

from posttrain.cli import main as cli
from posttrain.config.peer_names import Ours, look_up, meant, meant_command, peer_options, peers
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "from-trl.md"
TRAINERS, COMMANDS = peers()
FIELDS = {field for command in cli._commands().values() for field in command.config.model_fields}


def shown(ours: Ours) -> str:
    """A cell of the page."""
    words = re.sub(r"(--[a-z-]+( '[^']+')?|\bRUN/\w+|`[^`]+`|[\w.]+\.(?:jsonl|html))", _code, ours.words)
    fields = " or ".join(f"`--{field.replace('_', '-')}`" for field in ours.fields)
    return ". ".join(filter(None, (fields, words)))


def _code(match: re.Match[str]) -> str:
    return f"`{match[0].strip('`')}`"


def table(trainer: str) -> str:
    """The names of a trainer as the page shows them."""
    rows = [
        f"| {', '.join(f'`{name}`' for name in names.split())} | {shown(ours)} |"
        for names, ours in TRAINERS[trainer].items()
    ]
    return "\n".join(["| there | here |", "| --- | --- |", *rows])


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_page_for_their_users_has_the_same_table(trainer: str) -> None:
    assert f"### {trainer}\n\n{table(trainer)}\n" in PAGE.read_text(encoding="utf-8")


def test_every_name_leads_to_an_option_or_to_words() -> None:
    for name, ours in peer_options().items():
        assert ours.words or FIELDS.intersection(ours.fields), name
        for mentioned in re.findall(r"(?<!posttrain )--([a-z-]+)", ours.words):
            assert mentioned.replace("-", "_") in FIELDS, name


def test_a_name_that_two_trainers_share_means_one_thing() -> None:
    meanings: dict[str, set[Ours]] = {}
    for trainer in TRAINERS.values():
        for names, ours in trainer.items():
            for name in names.split():
                meanings.setdefault(name, set()).add(ours)
    assert [name for name, of in meanings.items() if len(of) > 1] == []


def test_no_name_hides_an_option_of_ours() -> None:
    assert FIELDS.isdisjoint(peer_options())


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ("--num-generations", "group_size"),
        ("num_generations", "group_size"),
        ("trl.num_generations", "group_size"),
        ("actor_rollout_ref.rollout.n", "group_size"),
        ("rollout.n", "group_size"),
        ("--kl_coef", "beta"),
        ("lr", "learning_rate"),
        ("--no-num-generations", "group_size"),
    ],
)
def test_a_name_is_known_however_it_is_written(written: str, field: str) -> None:
    ours = look_up(written)
    assert ours is not None and field in ours.fields
    assert meant(written, [field, "other"]) == field
    assert meant(written, ["other"]) is None


def test_a_name_without_an_option_has_a_sentence() -> None:
    assert "always packed" in (meant("packing", ["batch_size"]) or "")
    assert meant("quux", ["batch_size"]) is None
    assert look_up("name") is None  # though verl has longer names that end so


def test_commands_of_others_lead_to_commands_there_are() -> None:
    commands = list(cli._commands())
    assert not COMMANDS.keys() & set(commands)
    for words in COMMANDS.values():
        assert set(re.findall(r"posttrain ([a-z-]+)", words)) <= set(commands)
    assert meant_command("GRPO", commands) == "did you mean posttrain rl --algorithm grpo?"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("sft --streaming", "unknown option --streaming; not needed: the rows"),
        ("sft --no-packing", "unknown option --no-packing; not needed: rows are always packed"),
        ("sft --learning-rat 1e-5", "unknown option --learning-rat; did you mean --learning-rate?"),
        ("sft --flux 3", "unknown option --flux; --help lists the options"),  # and not --max-flops
        ("sft --stricture", "unknown option --stricture; did you mean --strict?"),
        ("sft --async_train", "unknown option --async_train; sampling and training take turns"),
        ("sft my.yaml", "unexpected argument 'my.yaml'; posttrain run my.yaml runs a recipe"),
        ("rl data.train_files=x.jsonl", "unexpected argument 'data.train_files=x.jsonl'; write --data x.jsonl"),
        ("rl +trainer.val_before_train=False", "val_before_train=False'; a recipe evaluates its start"),
        ("chat --model_name_or_path x", "unknown option --model_name_or_path; write MODEL without it"),
        ("eval --base_model=x", "unknown option --base_model; write MODEL without it"),
    ],
)
def test_what_is_said_of_a_name(args: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args.split()) == 2
    assert told in capsys.readouterr().err
