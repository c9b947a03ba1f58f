"""The Python of docs/api.md and the notebook run, on the tiny model."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import posttrain as pt

ROOT = Path(__file__).parents[2]
SMALL = {
    "smollm2-135m": "tiny-random",
    "max_steps=20": "max_steps=1",
    "max_steps=10": "max_steps=2",
    "max_steps=3": "max_steps=2",
    "max_new_tokens=12": "max_new_tokens=2",
    "max_new_tokens=40": "max_new_tokens=2",
    "batch_size=32": "batch_size=8",
    "range(400)": "range(320)",
    'reward="math"': 'reward="math", samples=1',
}


def small(code: str) -> str:
    for written, tried in SMALL.items():
        code = code.replace(written, tried)
    return code


def run_python(page: str) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL):
        exec(compile(small(code), page, "exec"), names)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python("README.md")
    assert (tmp_path / "runs" / "sums-rl" / "lineage.json").exists()


def test_the_example_of_an_observer_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run_python("docs/observers.md")
    assert (tmp_path / "runs" / "watched" / "lineage.json").exists()


def test_the_page_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "api.md").read_text()
    run_python("docs/api.md")
    printed = capsys.readouterr().out
    assert "unknown option batch_sise; did you mean batch_size?" in printed
    for name in re.findall(r"`pt\.(\w+)", page):
        assert name in pt.__all__


def test_the_notebook_runs(tmp_path: Path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = small(cell.source)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    client = nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("step 1/1" in str(output.get("data", {}).get("text/plain")) for output in shown)
    assert any("<iframe" in str(output.get("data", {}).get("text/html")) for output in shown)
    assert any("<table" in str(output.get("data", {}).get("text/html")) for output in shown)
