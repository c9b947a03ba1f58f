"""Every command of the documentation runs, and every block of code, YAML and JSON in it is right."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.cli.main import _commands, main
from posttrain.cli.options import parse_options
from posttrain.recipes.load import load_recipe
from posttrain.rewards.judge.prompts import read_rubric
from posttrain.rewards.registry import Spec
from tests.docs.docs_commands import (
    HISTORY,
    NEEDS_A_SERVER,
    NOT_RUN,
    PAGES,
    PARSED,
    ROOT,
    Block,
    Command,
    blocks,
    commands,
    small,
    write_data,
)
from tests.recipe_helpers import check_stages

TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
LIVE = [page for page in PAGES if page not in HISTORY]
WITH_COMMANDS = [page for page in LIVE if any(c.words[0] == "posttrain" for c in commands(page, TEXTS[page]))]
ALL = [command for page in LIVE for command in commands(page, TEXTS[page])]
BLOCKS = [block for page in LIVE for block in blocks(page, TEXTS[page])]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run, with the files that they name."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


def run(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command, or read its options, and fail with what it printed."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n/exit\n")))
    args = small(command.words, folder)
    if NEEDS_A_SERVER.search(" ".join(args)) or not PARSED.keys().isdisjoint(args):
        read_options(args)
        make_output(args, folder)
        return
    code = main(args)
    said = capsys.readouterr().err
    lacks = [line for line in said.removeprefix("error: ").splitlines() if not line.endswith(" is required")]
    if code != 0 and not (code == 2 and not command.block and not lacks):
        pytest.fail(f"{command.place}\nas posttrain {args}\nended with {code}:\n{said}", pytrace=False)


def read_options(args: list[str]) -> None:
    entry = _commands()[args[0]]
    config: Any = parse_options(entry.config, args[1:], args[0], entry.positional)
    for text in getattr(config, "reward", ()):
        Spec.parse(text)


def make_output(args: list[str], folder: Path) -> None:
    """What a command that was not run would have written, for those that read it."""
    if args[0] in ("sample", "revise"):
        kind = "pairs" if "pairs" in args else "sft"
        out = folder / args[args.index("--out") + 1]
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{kind}.jsonl").write_text((folder / f"{kind}.jsonl").read_text())


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page, TEXTS[page]):
        if command.words[0] == "posttrain" and (command.block or len(command.words) > 2):
            run(command, folder, monkeypatch, capsys)


@pytest.mark.timeout(600)  # a page is many commands, and the machine may be busy
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_in_their_order(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(page, folder, monkeypatch, capsys)


def test_every_command_is_run_or_is_of_a_kind_that_is_not() -> None:
    """A new program, make target, script or command is noticed here."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    known = _commands()
    for command in ALL:
        program, *rest = command.words
        if program == "posttrain":
            assert rest[0] in known or rest[0] == "--help", command.place
            continue
        assert program in NOT_RUN, f"{command.place}: run it, or say in NOT_RUN why not"
        if program == "make":
            assert targets.issuperset(word for word in rest if "=" not in word), command.place
        if program == "python" and rest[0].endswith(".py"):
            compile((ROOT / rest[0]).read_text(encoding="utf-8"), rest[0], "exec")
    assert len(ALL) > 100


def test_the_first_steps_name_no_files_but_those_that_are_there_or_made(folder: Path) -> None:
    """Its chain can be pasted: no word of it stands for a file of the reader's."""
    made = set()
    for command in commands("docs/start.md", TEXTS["docs/start.md"]):
        if command.words[0] != "posttrain" or not command.block:
            continue
        words = [word.partition(":")[0] for word in command.words]
        made |= {words[i + 1] for i, word in enumerate(words) if word == "--out"}
        for word in words:
            if "/" in word:
                assert (ROOT / word).exists() or any(f"{word}/".startswith(f"{run}/") for run in made), command.place
    assert made >= {"runs/sft", "runs/dpo", "runs/rl", "runs/agent", "runs/comparison"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}:{block.language}")
def test_a_block_is_right(block: Block, tmp_path: Path) -> None:
    if block.language == "py":  # for libraries that need not be installed here
        compile(block.text, block.page, "exec")
    elif block.language == "python":
        for node in ast.walk(ast.parse(block.text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                assert importlib.util.find_spec(name.partition(".")[0]), name
    elif block.language == "py":  # another project's script, whose packages are not here
        ast.parse(block.text)
    elif block.language in ("json", "jsonl"):
        for line in block.text.splitlines():
            json.loads(line)
    elif block.language == "yaml":
        check_yaml(block.text, tmp_path)
    else:
        assert block.language in ("bash", "sh", "console", "", "text", "jinja"), "say how such a block is checked"


def check_yaml(text: str, folder: Path) -> None:
    """A recipe, or a part of one put where it belongs, or a rubric."""
    found = yaml.safe_load(text)
    base: dict[str, Any] = {
        "model": "tiny-random",
        "evaluate": {"data": "tasks.jsonl", "reward": ["math"]},
        "stages": {
            "sft": {"method": "sft", "parent": "start", "data": "sft.jsonl"},
            "demos": {"method": "sample", "parent": "sft", "data": "tasks.jsonl", "reward": ["math"]},
            "pairs": {"method": "sample", "parent": "sft", "data": "t.jsonl", "reward": ["math"], "write": "pairs"},
        },
    }
    if "criteria" in found:
        (folder / "rubric.yaml").write_text(text)
        read_rubric(str(folder / "rubric.yaml"), "1-10")
        return
    if all("." in key for key in found):  # what a shipped recipe may be changed to
        base = {key: json.dumps(value) for key, value in found.items()}
        load_recipe("constitutional", tuple(f"{key}={value}" for key, value in base.items()))
        return
    if "stages" in found:
        recipe = found
    elif "shape" in found or "chat_template" in found:
        recipe = base | found
    elif "data" in found:
        recipe = base | {"stages": base["stages"] | {"new": {"method": "sft", "parent": "sft", **found}}}
    else:
        recipe = base | {"stages": base["stages"] | found}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    for size in recipe.get("sizes") or [None]:
        check_stages(load_recipe(str(file), (), size), folder)


def test_a_new_command_without_a_way_to_run_it_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "```bash\nposttrain score --reward math \\\n --data none.jsonl  # why\n```\n`posttrain rl --nonsense`"
    first, second = commands("new.md", text)
    assert first.words == ("posttrain", "score", "--reward", "math", "--data", "none.jsonl") and first.line == 2
    with pytest.raises(pytest.fail.Exception, match="new.md:2: posttrain score"):
        run(first, folder, monkeypatch, capsys)
    with pytest.raises(pytest.fail.Exception, match="unknown option --nonsense"):
        run(second, folder, monkeypatch, capsys)


@pytest.mark.stress
@pytest.mark.real_model
@pytest.mark.timeout(3000)
def test_the_first_steps_run_on_the_shipped_model_as_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = [c for c in commands("docs/start.md", TEXTS["docs/start.md"]) if c.block and c.words[0] == "posttrain"]
    assert len(chain) >= 10
    for command in chain:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n/exit\n")))
        planned = ["--plan"] if command.words[1] == "run" else []  # the quickstart alone takes ten minutes and more
        assert main([*command.words[1:], *planned]) == 0, f"{command.place}\n{capsys.readouterr().err}"
    assert '"accuracy' in (folder / "runs/comparison/compare.json").read_text()
