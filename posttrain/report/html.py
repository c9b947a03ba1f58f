"""One self-contained HTML page from the files of a run folder or a pipeline's folder; it needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from posttrain.report import charts
from posttrain.report.audit import audit_view
from posttrain.report.comparison_view import comparison_view
from posttrain.report.run_view import MAIN_CURVES, RunView, run_opening
from posttrain.runs.audit import AUDIT_FILE
from posttrain.runs.comparison import label
from posttrain.runs.files import write_atomic
from posttrain.runs.reader import Run
from posttrain.text import printable
from posttrain.types import InputError, RunPaused
from posttrain.wording import format_number, format_quantity

SHOWN_ROLLOUTS = 4
SHOWN_EVENTS = 50
LONGEST_TEXT = 2000


def write_report(folder: Path) -> Path:
    """Write `FOLDER/report.html`, of a pipeline or comparison where the folder has a `compare.json`, of an audit where
    it has an `audit.json`, else of one run. Raises InputError for a folder that is none of them."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a run folder or a pipeline's folder")
    if (folder / "compare.json").exists():
        page = _render("pipeline.jinja", comparison_view(folder))
    elif (folder / AUDIT_FILE).exists():
        page = _render("audit.jinja", audit_view(folder))
    elif any((folder / name).exists() for name in ("config.yaml", "metrics.jsonl", "evaluations")):
        page = _render("run.jinja", _run_view(folder))
    else:
        raise InputError(
            f"{folder}: not a run folder (no config.yaml, metrics.jsonl or evaluations), not a pipeline's folder "
            "(no compare.json, which is written when every stage has finished) and not an audit's (no audit.json)"
        )
    out = folder / "report.html"
    try:
        write_atomic(out, page)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    return out


@contextmanager
def shown_in_pauses(folder: Path) -> Iterator[None]:
    """A run that is paused in here gets its page, and the message says where."""
    try:
        yield
    except RunPaused as pause:
        raise RunPaused(f"{pause}; the report is {write_report(folder)}") from None


def _render(template: str, view: Mapping[str, Any]) -> str:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quantity"] = format_quantity
    environment.filters["shortened"] = _shortened
    environment.filters["score"] = _score
    environment.filters["whole_intervals"] = _whole_intervals
    environment.globals["charts"] = charts
    return environment.get_template(template).render(view)


def _visible(value: Any) -> Any:
    """What a template writes, with `printable` in place of what nobody sees."""
    return type(value)(printable(value)) if isinstance(value, str) else value


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
    run = RunView(Run(folder), folder.resolve().name)
    first, last = run.rollouts(SHOWN_ROLLOUTS)
    main = run.curves(MAIN_CURVES)
    shown = {c.title for c in main}
    return {
        "title": run.name,
        "run": run,
        "opening": run_opening(run),
        "main_curves": main,
        "other_curves": [c for c in run.curves() if c.title not in shown],
        "means": _means(run),
        "events": run.other_events[-SHOWN_EVENTS:],
        "first_rollouts": first,
        "last_rollouts": last,
    }


def _means(run: RunView) -> list[tuple[str, str, int]]:
    """(evaluation, mean, tasks scored), without intervals: those are `posttrain compare`'s."""
    out = []
    for suite, evaluation in sorted(run.evaluations.items()):
        for name, found in evaluation.values.items():
            values = [v for v in found.values() if v is not None]
            if values:
                mean = format_number(sum(values) / len(values), share=False)
                out.append((f"{suite}/{label(name, evaluation.graded)}", mean, len(values)))
    return out
