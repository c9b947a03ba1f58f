"""The audits of a recipe, which come before its first stage; each has a folder in `audits/`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posttrain.config import AuditConfig, Recipe, as_tuple
from posttrain.console import info
from posttrain.recipes.load import Fault, RecipeFaults, about_key, problems
from posttrain.runs.audit import AUDIT_FILE, AUDITS
from posttrain.types import InputError, Task

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
KEYS = set(AuditConfig.model_fields) - {"out"}


def audit_folder(out: Path, name: str) -> Path:
    return out / AUDITS / name


def audit_configs(recipe: Recipe, out: Path) -> dict[str, AuditConfig]:
    """The configuration of each audit. Raises RecipeFaults with everything that is wrong."""
    faults: list[Fault] = []
    configs = {}
    for name, settings in recipe.audits.items():
        if not NAME.fullmatch(name):
            faults.append(Fault(("audits", name), f"audit {name!r}: a name has letters, digits, - and _ alone"))
            continue
        if "out" in settings:
            faults.append(Fault(("audits", name, "out"), f"audit {name}: leave out `out`: it is {AUDITS}/{name}"))
        try:
            configs[name] = _config(recipe, settings, audit_folder(out, name))
        except ValidationError as error:
            for place, text in problems(error):
                hint = about_key(place[0], KEYS) if "unknown key" in text else ""
                faults.append(Fault(("audits", name, *place), f"audit {name}: {text}{hint}"))
    if faults:
        raise RecipeFaults(faults)
    return configs


def _config(recipe: Recipe, settings: Mapping[str, Any], folder: Path) -> AuditConfig:
    options = {"seed": recipe.seed, **settings, "out": folder}
    return AuditConfig(**options | {"reward": as_tuple(options.get("reward"))})


def tasks_of(config: AuditConfig) -> list[Task]:
    """The tasks of an audit. Raises InputError for rows that are wrong."""
    from posttrain.audits.golds import read_tasks

    return read_tasks(config.data, config.columns)


def check_options(config: AuditConfig, tasks: Sequence[Task] | None) -> None:
    """Raise InputError for options of an audit that are wrong, or do not fit its tasks, where these are known."""
    from posttrain.audits.golds import check_column
    from posttrain.audits.run import check_options as check

    check(config)
    if tasks is not None:
        check_column(tasks, config.answer_column)


def run_audits(recipe: Recipe, out: Path) -> None:
    """Audit what has not been audited yet, and say what was found."""
    from posttrain.recipes.audit import audit_reward
    from posttrain.report.audit import audit_opening
    from posttrain.report.html import write_report

    for name, config in audit_configs(recipe, out).items():
        if (config.out / AUDIT_FILE).exists():
            continue
        record = audit_reward(config)
        write_report(config.out)
        info(f"audit {name}: {audit_opening(record).sentence}")


def with_audit(options: Mapping[str, Any], audits: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The options of a stage in which an audit of the recipe stands by its folder."""
    named = options.get("audit")
    return {**options, "audit": audit_folder(out, named)} if isinstance(named, str) and named in audits else {**options}


def same_audits(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Raise InputError where an audit that was made has other settings."""
    for name, settings in before.items():
        if (audit_folder(out, name) / AUDIT_FILE).exists() and now.get(name) != settings:
            raise InputError(
                f"--out {out}: the audit {name} was made with other settings; remove {audit_folder(out, name)}, or "
                "choose another folder"
            )
