"""Objects of the user's files and modules, by name, and instances of their classes as bytes."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

__posttrain_internal__ = True


def load_object(target: str, what: str, wanted: Callable[[Any], bool]) -> Any:
    """The object behind `file.py:name` or `package.module:name`. `what` it should be and which objects are `wanted`
    only word the message that lists those that there are.

    Raises what importing raises, LookupError for a missing name, FileNotFoundError for a missing file."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        module = _module_of_file(where)
    else:
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())
        module = importlib.import_module(where)
    found = getattr(module, name, None)
    if found is None:
        own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
        public = sorted(n for n, v in own.items() if wanted(v) and not n.startswith("_"))
        hint = close_match(name, public) or ";"
        raise LookupError(f"{where} has no {what} {name!r}{hint} it has {', '.join(public) or 'none'}")
    return found


def close_match(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'NAME'?`, or nothing where no known name is close."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def freeze(instance: Any, targets: Sequence[str]) -> bytes | None:
    """An instance with the names of the files and modules it needs, for `thaw`; None if it cannot be pickled. One of a
    class that Python has handed over, which is in no file, goes with its class."""
    with suppress(Exception):  # what a class raises from its own __getstate__ is as much an answer as a PicklingError
        return pickle.dumps((tuple(targets), pickle.dumps(instance)))
    if not targets:
        with suppress(Exception):
            import cloudpickle

            return pickle.dumps(((), cloudpickle.dumps(instance)))
    return None


def thaw(state: bytes) -> Any:
    """The instance that was frozen, in a process that may run the user's code. Raises what importing and unpickling
    raise."""
    targets, pickled = pickle.loads(state)
    for target in targets:
        load_object(target, "object", callable)
    return pickle.loads(pickled)


def _module_of_file(where: str) -> ModuleType:
    """The module of a file, made once a process, so that all that is loaded from one file shares its classes."""
    path = os.path.abspath(where)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {where}")
    name = "_reward_" + os.path.basename(path)[:-3]
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == path:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # always so for a .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(path))  # its neighbours can be imported, as when it is run as a script
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
