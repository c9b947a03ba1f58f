"""One self-contained HTML page from the files of a run folder or a pipeline's folder; it needs no network."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from posttrain.report import charts
from posttrain.report.comparison_view import comparison_view
from posttrain.report.files import MAIN_CURVES, RolloutLine, RunFiles, read_run
from posttrain.report.run_opening import run_opening
from posttrain.runs.files import checked
from posttrain.runs.log import parse_object, write_atomic
from posttrain.runs.records import is_graded, label
from posttrain.types import InputError
from posttrain.wording import format_number, format_quantity

SHOWN_ROLLOUTS = 4
SHOWN_EVENTS = 50
LONGEST_TEXT = 2000


def write_report(folder: Path) -> Path:
    """Write `FOLDER/report.html`, of a pipeline or comparison where the folder has a `compare.json`, else of one run.
    Raises InputError for a folder that is neither."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a run folder or a pipeline's folder")
    if (folder / "compare.json").exists():
        page = _render("pipeline.jinja", comparison_view(folder))
    elif any((folder / name).exists() for name in ("config.yaml", "metrics.jsonl", "evaluations")):
        page = _render("run.jinja", _run_view(folder))
    else:
        raise InputError(
            f"{folder}: not a run folder (no config.yaml, metrics.jsonl or evaluations) and not a pipeline's folder "
            "(no compare.json, which is written when every stage has finished)"
        )
    out = folder / "report.html"
    try:
        write_atomic(out, page)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    return out


def _render(template: str, view: Mapping[str, Any]) -> str:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quantity"] = format_quantity
    environment.filters["shortened"] = _shortened
    environment.filters["score"] = _score
    environment.filters["whole_intervals"] = _whole_intervals
    environment.globals["charts"] = charts
    return environment.get_template(template).render(view)


def _shortened(text: str) -> str:
    left_out = len(text) - LONGEST_TEXT
    return text if left_out <= 0 else f"{text[:LONGEST_TEXT]} … ({left_out} more characters)"


def _score(value: float | None) -> str:
    return "not scored" if value is None else f"score {value:.3g}"


def _whole_intervals(text: str) -> Markup:
    """The text as HTML in which no line ends inside an interval."""
    return Markup(re.sub(r"\[[^\[\]<>]{1,40}\]", r'<span class="whole">\g<0></span>', str(escape(text))))


# -- one run ----------------------------------------------------------------------------------------------------------


def _run_view(folder: Path) -> dict[str, Any]:
    run = read_run(folder.resolve().name, folder)
    first, last = _rollout_samples(folder / "rollouts.jsonl")
    main = run.curves(MAIN_CURVES)
    shown = {c.title for c in main}
    return {
        "title": run.name,
        "run": run,
        "opening": run_opening(run),
        "main_curves": main,
        "other_curves": [c for c in run.curves() if c.title not in shown],
        "means": _means(run),
        "events": run.events[-SHOWN_EVENTS:],
        "first_rollouts": first,
        "last_rollouts": last,
    }


def _means(run: RunFiles) -> list[tuple[str, str, int]]:
    """(evaluation, mean, tasks scored), without intervals: those are `posttrain compare`'s."""
    out = []
    for suite, rows in run.evaluations.items():
        graded = is_graded(rows)
        for name in dict.fromkeys(n for row in rows for n in row["values"]):
            values = [v for row in rows if (v := row["values"].get(name)) is not None]
            if values:
                mean = format_number(sum(values) / len(values), share=False)
                out.append((f"{suite}/{label(name, graded)}", mean, len(values)))
    return out


def _rollout_samples(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The first and the last rollouts of a run. Only these lines are parsed: the file can be large."""
    if not path.exists():
        return [], []
    if not path.is_file():
        raise InputError(f"{path}: damaged, it is no file")
    first: list[tuple[int, bytes]] = []
    last: deque[tuple[int, bytes]] = deque(maxlen=SHOWN_ROLLOUTS)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break  # torn by a kill
            (first if len(first) < SHOWN_ROLLOUTS else last).append((number, line))
    return _rollouts(path, first), _rollouts(path, last)


def _rollouts(path: Path, lines: Iterable[tuple[int, bytes]]) -> list[dict[str, Any]]:
    places = ((f"{path}:{number}", line) for number, line in lines)
    return [checked(parse_object(line, where), RolloutLine, where) for where, line in places]
