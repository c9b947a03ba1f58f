"""Writes what editors read: `posttrain/api/options.pyi`, the options of functions with their types, from the
configurations; `posttrain/api/methods.pyi`, the functions of methods; and `posttrain/__init__.pyi`, where the names of
the package are. Run it after a change of any: `python -m tests.api.make_options`."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

import posttrain
from posttrain import config as configs
from posttrain.api import methods
from posttrain.api.inputs import DATA, MODELS
from posttrain.api.words import PRINTED_ONLY
from posttrain.config import REWARDS, Config
from posttrain.methods import METHODS

PACKAGE = Path(posttrain.__file__).parent
OPTIONS, METHOD_FUNCTIONS = PACKAGE / "api" / "options.pyi", PACKAGE / "api" / "methods.pyi"
NAMES = PACKAGE / "__init__.pyi"
BY_PLACE = {"models", "file", "run", "runs", "recipe"}
"""Given by place, as `model` is where a function has one, and the data of `score`."""
OTHERS = ("Eval", "Score", "Audit", "CheckData", "Run", "Chat")
WIDER = {
    **dict.fromkeys(DATA, "Data"),
    **dict.fromkeys(MODELS, "Model"),
    "against": "Sequence[Data]",
    **dict.fromkeys(REWARDS, "Reward | Sequence[Reward]"),
    "env": "Reward",
    "gold": "Reward",
    "replay": "Folder",
    "audit": "Folder",
    "chat_template": "str | Path",
    "columns": "str | Mapping[str, str]",
}
HEAD = '''"""The options of Python's functions, with their types. Made by `python -m tests.api.make_options`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Required, TypedDict

from posttrain.api.inputs import Data, Folder, Model, Reward
'''


def names() -> str:
    """`__init__.pyi` as it must be."""
    lines = ['"""Where the names of `posttrain` are. Made by `python -m tests.api.make_options`."""', ""]
    for module, found in posttrain._HOMES.items():
        lines.append(f"from {module} import {', '.join(f'{name} as {name}' for name in found)}")
    return _formatted("\n".join(lines))


def functions() -> str:
    """`methods.pyi` as it must be."""
    lines = [
        '"""The functions of methods, with their types. Made by `python -m tests.api.make_options`."""',
        "from collections.abc import Sequence",
        "from typing import Unpack",
        "",
        "from posttrain.alerts import Observer",
        "from posttrain.api import options as of",
        "from posttrain.api.inputs import Model",
        "from posttrain.api.results import Run",
    ]
    for name, method in METHODS.items():
        function = getattr(methods, name.replace("-", "_"))
        own = [str(p).replace("'", "") for p in inspect.signature(inspect.unwrap(function)).parameters.values()][:-1]
        own.insert(1, "*") if len(own) > 1 else None
        given = ", ".join([*own, f"**options: Unpack[of.{_name(method.config)}]"])
        lines.append(f"def {function.__name__}({given}) -> Run: ...")
    return _formatted("\n".join(lines))


def options() -> str:
    """`options.pyi` as it must be."""
    written: dict[type[Config], list[str]] = {}
    others = [getattr(configs, f"{name}Config") for name in OTHERS]
    for kind in (*(method.config for method in METHODS.values()), *others):
        _write(kind, written)
    text = HEAD + "".join("\n" + "\n".join(lines) + "\n" for lines in written.values())
    return _formatted(text)


def _formatted(text: str) -> str:
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length", "120", "--stdin-filename", "made.pyi", "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, timeout=60).stdout


def _write(kind: type[Config], written: dict[type[Config], list[str]]) -> None:
    """A class for the configuration, after those that it is a kind of."""
    parents = [base for base in kind.__bases__ if issubclass(base, Config) and base is not Config]
    for base in parents:
        if base not in written:
            _write(base, written)
    inherited = {name for base in parents for name in base.model_fields}
    own = [n for n in inspect.get_annotations(kind) if n in kind.model_fields and n not in inherited]
    left_out = BY_PLACE | PRINTED_ONLY | ({"data"} if kind is configs.ScoreConfig else set())
    left_out |= set() if kind is configs.CheckDataConfig else {"model"}
    left_out |= {"reward", "out"} if kind is configs.AuditConfig else set()
    lines = [f"    {n}: {_field(n, kind.model_fields[n])}" for n in own if n not in left_out]
    bases = ", ".join([_name(base) for base in parents] or ["TypedDict"])
    written[kind] = [f"class {_name(kind)}({bases}, total=False):", *(lines or ["    pass"])]


def _name(kind: type[Config]) -> str:
    return kind.__name__.removesuffix("Config").removesuffix("Options") + "Options"


def _field(name: str, field: FieldInfo) -> str:
    kind = field.annotation
    text = WIDER.get(name)
    if text is None:
        text = _type(kind)
    elif type(None) in get_args(kind) and name != "columns":
        text += " | None"
    return f"Required[{text}]" if field.is_required() else text


def _type(kind: Any) -> str:
    """How a type is written; what is one of several may be given alone."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin in (Union, UnionType):
        return " | ".join(map(_type, parts))
    if origin is tuple:
        return f"{_type(parts[0])} | Sequence[{_type(parts[0])}]"
    return {type(None): "None", Path: "str | Path"}.get(kind) or kind.__name__


if __name__ == "__main__":
    OPTIONS.write_text(options(), encoding="utf-8")
    METHOD_FUNCTIONS.write_text(functions(), encoding="utf-8")
    NAMES.write_text(names(), encoding="utf-8")
