"""The page of a pipeline or a comparison: what stands in `compare.json`, and samples and curves of its runs.

Evaluations that cannot be compared stand in tables, drawings and samples of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.report import charts
from posttrain.report.audit import audit_opening, fix_words
from posttrain.report.opening import comparison_opening
from posttrain.report.run_view import MAIN_CURVES, RunView, run_opening
from posttrain.report.tables import cost_table, result_table
from posttrain.report.words import caveats, findings, format_difference, not_evaluated, verdict, winner, worth
from posttrain.runs.audit import AUDIT_FILE, AUDITS, read_audit
from posttrain.runs.comparison import Contrast, Section, read_comparison, root_of, run_folders, sections
from posttrain.runs.reader import Run, read_text
from posttrain.runs.records import PERPLEXITY
from posttrain.types import InputError
from posttrain.wording import format_estimate

SHOWN_TASKS = 6
SHOWN_FINDINGS = 8
VERDICTS = {"up": "higher", "down": "lower", "none": "no difference shown", "few": "too few tasks"}


def comparison_view(folder: Path) -> dict[str, Any]:
    """What `pipeline.jinja` shows of a folder with a `compare.json`."""
    comparison = read_comparison(folder)
    places = run_folders(folder, comparison)
    runs = [RunView(Run(place), name) for name, place in places.items() if place.is_dir()]
    evaluated = any(stage["evaluations"] for stage in comparison["stages"].values())
    return {
        "title": folder.resolve().name,
        "description": _description(folder / "recipe.yaml"),
        "opening": comparison_opening(comparison),
        "findings": findings(comparison),
        "worth": worth(comparison),
        "audits": _audits(folder),
        "caveats": [*caveats(comparison), *(not_evaluated(comparison) if evaluated else ())],
        "costs": cost_table(comparison),
        "others": bool(comparison.get("others")),
        "sections": [_section_view(part, runs) for part in sections(comparison)],
        "runs": runs,
        "explained": list(dict.fromkeys(text for run in runs for text in run.explained)),
        "trained": [(run.name, run_opening(run), run.curves(MAIN_CURVES)) for run in runs if run.metrics],
    }


def _audits(folder: Path) -> list[dict[str, Any]]:
    """The audits of a pipeline: the name, what is said first, and the page."""
    found = sorted((folder / AUDITS).glob(f"*/{AUDIT_FILE}"))
    return [
        {
            "name": file.parent.name,
            "words": audit_opening(record).sentence,
            "findings": [f"{each['severity']}: {each['title']}" for each in record["findings"][:SHOWN_FINDINGS]],
            "fix": fix_words(record["fix"]) if "fix" in record else [],
            "page": f"{AUDITS}/{file.parent.name}/report.html",
        }
        for file in found
        for record in (read_audit(file),)
    ]


def _description(recipe: Path) -> str:
    try:
        found = yaml.safe_load(read_text(recipe)) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{recipe}: damaged, it is no YAML ({' '.join(str(error).split())[:100]})") from None
    return str(found.get("description", "")) if isinstance(found, dict) else ""


def _section_view(part: Section, runs: list[RunView]) -> dict[str, Any]:
    contrasts = [c for c in part.comparison["contrasts"] if part.holds(c)]
    main, best = part.headline, winner(part)
    return {
        "title": part.title,
        "retention": part.suite == RETENTION_SUITE,
        "table": result_table(part),
        "headline": part.label_of_suite(main) if main else "",
        "best": best,
        "contested": main is not None and part.lead is not None and best is None and len(part.stages) > 1,
        "by_stage": _stage_forest(part, best) if main else None,
        "differences": _forest(
            [(f"{c['of']} − {c['against']}", c) for c in contrasts if c["evaluation"] == main], part
        ),
        "against_start": _forest(_kept(contrasts, part), part),
        "contrasts": [_contrast_row(c, part) for c in contrasts],
        "samples": [] if part.suite == RETENTION_SUITE else _samples(part, runs),
    }


def _stage_forest(part: Section, best: str | None) -> charts.Forest | None:
    rows, share = [], part.headline in part.shares
    scale = 100 if share else 1
    for stage in part.stages:
        e = part.estimate(stage)
        if e is not None and e["value"] is not None and e["low"] is not None and e["high"] is not None:
            rows.append((stage, e["value"] * scale, e["low"] * scale, e["high"] * scale, format_estimate(e, share)))
    return charts.forest(rows, differences=False, best=best)


def _forest(contrasts: list[tuple[str, Contrast]], part: Section) -> charts.Forest | None:
    rows = []
    for name, c in contrasts:
        if c["low"] is not None and c["high"] is not None and verdict(c) != "few":
            share = c["evaluation"] in part.shares
            scale = 100 if share else 1
            words = format_difference(c, share).replace(" points", "")
            rows.append((name, c["value"] * scale, c["low"] * scale, c["high"] * scale, words))
    return charts.forest(rows, differences=True)


def _kept(contrasts: list[Contrast], part: Section) -> list[tuple[str, Contrast]]:
    """Retention of every stage against its start, in points; perplexity has another unit and is in the table alone."""
    return [
        (f"{c['of']}: {part.label(c['evaluation'])}", c)
        for c in contrasts
        if part.suite == RETENTION_SUITE
        and c["evaluation"] != PERPLEXITY
        and c["against"] == root_of(part.comparison["stages"], c["of"])
    ]


def _contrast_row(contrast: Contrast, part: Section) -> dict[str, Any]:
    return {
        "of": contrast["of"],
        "against": contrast["against"],
        "evaluation": part.label(contrast["evaluation"]),
        "difference": format_difference(contrast, contrast["evaluation"] in part.shares),
        "verdict": VERDICTS[verdict(contrast)],
        "n": contrast["n"],
    }


def _samples(part: Section, runs: list[RunView]) -> list[dict[str, Any]]:
    """The first answers of every run of a section to the same tasks; those on which the scores differ come first."""
    evaluated = [run for run in runs if run.name in part.stages and part.suite in run.evaluations]
    found = {run.name: run.evaluations[part.suite] for run in evaluated}
    tables = {name: dict(zip(e.keys, e.rows, strict=True)) for name, e in found.items() if e.rows}
    if not tables:
        return []
    common = [key for key in next(iter(tables.values())) if all(k.get(key, {}).get("samples") for k in tables.values())]

    def agreed(key: Any) -> bool:
        return len({rows[key]["samples"][0]["score"] for rows in tables.values()}) == 1

    return [
        {
            "task": key[0],
            "prompt": key[1],
            "answers": [(name, rows[key]["samples"][0]) for name, rows in tables.items()],
        }
        for key in sorted(common, key=agreed)[:SHOWN_TASKS]
    ]
