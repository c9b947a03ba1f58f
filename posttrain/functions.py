"""Functions and classes that Python hands over as rewards and environments: how they are named, told apart and sent to
workers. They travel in memory alone, and no run folder holds one."""

from __future__ import annotations

import copyreg
import hashlib
import inspect
import io
import linecache
import os
import platform
import re
import sys
import textwrap
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

from posttrain.types import InputError

WRITTEN = re.compile(r"<((?:function|class|object) [^<>]+) sha256=([0-9a-f]{64})>")
"""How one stands in a configuration: what it is and its name, and its hash."""
LARGEST_BYTES = 16 << 20
"""What a captured value may take on its way to a worker."""
CONSTANTS = (int, float, complex, str, bytes, type(None))
Cached: Any = type(lru_cache(lambda: None))
"""What `functools.lru_cache` makes of a function."""


class FunctionText(str):
    """A configuration's text for a function, `<function concise sha256=…>`, perhaps with a weight or name after it,
    that carries the function.

    The hash is of what the function does: its source (the bytecode of a lambda, or where there is no source), defaults,
    the values it has closed over, and the functions, classes and constants of its own module that it reads."""

    _function: Any = None
    _pickled: bytes | None = None
    _source: tuple[Sequence[str], int] | None = None

    @classmethod
    def of(cls, function: Any, after: str = "") -> FunctionText:
        """The text of a function, class or rubric, with `after` it, such as `=0.5`."""
        plain = isinstance(function, FunctionType | MethodType | partial)
        kind = "class" if isinstance(function, type) else "function" if plain else "object"
        text = cls(f"<{kind} {_name(function)} sha256={identity(function)}>{after}")
        text._function = function
        return text

    def load(self) -> Any:
        """The function. In a worker raises what unpickling raises."""
        if self._pickled is not None:
            import cloudpickle

            self._function, self._pickled = cloudpickle.loads(self._pickled), None
            if self._source is not None and isinstance(self._function, FunctionType):
                _show_source(self._function, *self._source)
        return self._function

    def __deepcopy__(self, memo: Any) -> FunctionText:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """To be sent to a worker. Raises InputError for what cannot travel, by name."""
        source = self._source or _source(self._function)
        return _received, (str(self), self._pickled or _pickled(self._function), source)


def _received(text: str, pickled: bytes, source: tuple[Sequence[str], int] | None) -> FunctionText:
    arrived = FunctionText(text)
    arrived._pickled, arrived._source = pickled, source
    return arrived


def _source(function: Any) -> tuple[Sequence[str], int] | None:
    """The lines of a function and the number of the first, where they are known."""
    try:
        return inspect.getsourcelines(function.__code__)
    except (AttributeError, OSError, TypeError, SyntaxError):
        return None


def _show_source(function: FunctionType, lines: Sequence[str], first: int) -> None:
    """Let tracebacks show the lines of a function that arrived without its file."""
    if os.path.exists(function.__code__.co_filename):
        return
    name = f"<function {function.__name__.strip('<>')}>"
    shown = [*["\n"] * (first - 1), *lines]
    linecache.cache[name] = (sum(map(len, shown)), None, shown, name)
    function.__code__ = function.__code__.replace(co_filename=name)


def as_text(value: Any) -> Any:
    """A function, class, rubric or finished reward as its text; plain data as it is, for its own check."""
    plain = isinstance(value, str | bytes | int | float | list | tuple | Mapping | type(None))
    return value if plain else FunctionText.of(value)


def short(text: str) -> str:
    """A reward's text with the names of functions alone, for headlines: `concise=0.5`."""
    return WRITTEN.sub(lambda found: found[1].partition(" ")[2], str(text))


def refuse_unknown(target: str, noun: str) -> None:
    """Raise InputError for the text of a function that was handed over once, and is not now."""
    if WRITTEN.fullmatch(target):
        raise InputError(
            f"{noun} {target}: is Python that was handed over, which no run folder keeps; go on from Python with the "
            "same function and resume=True"
        )


def identity(function: Any) -> str:
    """SHA-256 of what a function, class or rubric does, the same in every process; see `FunctionText`."""
    owner = function if hasattr(function, "__module__") else type(function)
    return _hash(_Content(owner.__module__).of(function))


def contents(function: Any) -> dict[str, str]:
    """What `identity` is a hash of, part by part: of a function its source, its defaults and each value that it reads,
    of a class its attributes. Each is a SHA-256, after the library that made the value (Python, of bytecode) with its
    version, since another version may give another hash. Anything else is one part."""
    if not isinstance(function, FunctionType | type):
        return {"its content": identity(function)}
    parts = _Content(function.__module__).parts_of(function)
    return {name: f"{maker} {_hash(content)}".strip() for name, maker, content in parts}


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode(errors="replace") + b"\0")
    return digest.hexdigest()


def _maker(value: Any) -> str:
    """`sklearn 1.5.1` for a value of a class of that library."""
    library = type(value).__module__.partition(".")[0]
    version = getattr(sys.modules.get(library), "__version__", None)
    return f"{library} {version}" if version and library not in ("__main__", "builtins") else ""


class _Content:
    """What a value consists of, as texts. Classes and functions of other modules count by their name."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.within: set[int] = set()

    def of(self, value: Any) -> Iterator[str]:
        if isinstance(value, CONSTANTS):
            yield repr(value)
            return
        if id(value) in self.within:
            return
        self.within.add(id(value))
        yield type(value).__qualname__
        yield from self._parts(value)
        yield "end"  # or [[1, 2], 3] would be [[1, 2, 3]]
        self.within.discard(id(value))

    def _parts(self, value: Any) -> Iterator[str]:
        match value:
            case FunctionType() if value.__module__ == self.module:
                for _, _, part in self.parts_of(value):
                    yield from part
            case FunctionType() | type() | ModuleType():
                yield value.__name__
                if isinstance(value, type) and value.__module__ == self.module:
                    yield from self.of(value.__bases__)
                    yield from self.of(_attributes(value))
            case partial():
                yield from self.of((value.func, value.args, value.keywords))
            case MethodType() | staticmethod() | classmethod():
                yield from self.of((value.__func__, getattr(value, "__self__", None)))
            case CodeType():
                names = (value.co_varnames, value.co_freevars, value.co_cellvars, value.co_names)
                yield from self.of((value.co_code, value.co_flags, names, value.co_consts))
            case property():
                yield from self.of((value.fget, value.fset, value.fdel))
            case Mapping():
                yield from self.of([*value.items()])
            case set() | frozenset():
                yield from sorted("".join(self.of(part)) for part in value)
            case list() | tuple():
                for part in value:
                    yield from self.of(part)
            case _ if hasattr(value, "__array__"):
                array = _array(value)
                content = hashlib.sha256(array.tobytes()).hexdigest() if array.dtype.kind != "O" else ""
                yield from (f"{array.dtype} {array.shape} {content}", *self.of(None if content else array.tolist()))
                labels = (getattr(value, name, None) for name in ("columns", "index"))  # those of pandas
                yield from self.of([list(axis) for axis in labels if axis is not None and hasattr(axis, "__array__")])
            case _ if hasattr(value, "__dict__"):
                yield from self.of((type(value), vars(value)))
            case _:
                yield from self.of(_reduced(value))

    def parts_of(self, value: FunctionType | type) -> Iterator[tuple[str, str, Iterator[str]]]:
        """(words, what made it, content) of each part of a function or class."""
        if isinstance(value, type):
            for name, attribute in _attributes(value).items():
                yield f"its {name}", "", self.of(attribute)
            yield "its bases", "", self.of(value.__bases__)
            return
        try:
            if value.__code__.co_name == "<lambda>":  # whose source is the line it stands in
                raise OSError
            source = textwrap.dedent(inspect.getsource(value.__code__))  # a decorator's, not of what it wraps
            yield "its source", "", iter([source])
        except (OSError, TypeError):
            yield "its bytecode", f"Python {platform.python_version()}", self.of(value.__code__)
        yield "its defaults", "", self.of((value.__defaults__, value.__kwdefaults__))
        for name, read in _captured(value).items():
            inner = _unwrapped(read)
            own = isinstance(inner, FunctionType | type) and inner.__module__ == self.module
            if own or _is_constant(read) or name in value.__code__.co_freevars:
                yield f"{name}, which it reads", _maker(read), chain([name], self.of(read))


def _attributes(kind: type) -> dict[str, Any]:
    return {k: v for k, v in vars(kind).items() if inspect.isroutine(v) or k[:2] != "__"}


def _is_constant(value: Any) -> bool:
    return isinstance(value, CONSTANTS) or (isinstance(value, tuple | frozenset) and all(map(_is_constant, value)))


def _unwrapped(value: Any) -> Any:
    """The function or class in what `functools` makes of it."""
    while isinstance(value, partial | Cached):
        value = value.func if isinstance(value, partial) else value.__wrapped__
    return value


def _array(value: Any) -> Any:
    """The numbers of an array or tensor; numpy has no bfloat16."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().resolve_conj()
        value = value.double() if value.is_floating_point() else value
    return value.__array__()


def _reduced(value: Any) -> Any:
    """What pickle would keep of a value, or else its text."""
    registered = copyreg.dispatch_table.get(type(value))
    try:
        return registered(value) if registered is not None else value.__reduce_ex__(4)
    except Exception:
        return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def _captured(function: Any) -> dict[str, Any]:
    """What a function reads from around it, by name: what it has closed over, and the globals that its code names; of
    a class or an object what it holds."""
    if not isinstance(function, FunctionType):
        return dict(getattr(function, "__dict__", {}))
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closed = {name: cell.cell_contents for name, cell in cells if cell != type(cell)()}
    around = function.__globals__
    return {name: around[name] for name in sorted({*_names(function.__code__)}) if name in around} | closed


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _pickled(function: Any) -> bytes:
    """By value where its module cannot be imported, as that of a notebook. Raises InputError for what cannot travel."""
    try:
        data = _dumps(function)
        large = len(data) > LARGEST_BYTES or b"torch" in data
        why = _too_much(function, []) if large else None
    except Exception as error:
        why = f"cannot be sent to a worker ({error})"
    if why is not None:
        raise InputError(f"{_name(function)} {why}; make or load it inside the function, or give reward_workers=0")
    return data


def _dumps(value: Any) -> bytes:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        dispatch_table: ClassVar[Any] = ChainMap({Cached: _of_cached}, cloudpickle.Pickler.dispatch_table)

    Pickler(out := io.BytesIO()).dump(value)
    return out.getvalue()


def _of_cached(value: Any) -> str | tuple[Any, ...]:
    """Where a notebook defines it by what it caches, which pickle would look for by name."""
    again = (_cached, (value.__wrapped__, value.cache_parameters()))
    return again if value.__module__ == "__main__" else str(value.__qualname__)


def _cached(function: Any, parameters: Mapping[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


def _too_much(function: Any, seen: list[Any]) -> str | None:
    """Why something that a function captures cannot travel, by its name."""
    seen.append(function)
    for name, value in _captured(function).items():
        if isinstance(value, ModuleType) or any(value is other for other in seen):
            continue
        if isinstance(value, FunctionType | type):
            if value.__module__ == "__main__" and (why := _too_much(value, seen)):
                return why
        elif (device := _device(value)) is not None:
            return f"captures {name}, which has a tensor on {device}"
        elif len(_dumps(value)) > LARGEST_BYTES:
            return f"captures {name}, which takes more than {LARGEST_BYTES >> 20} MB"
    return None


def _device(value: Any) -> str | None:
    """The device of a tensor, or of one in a container or model, unless it is the CPU."""
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "device"):
        return None if value.device.type == "cpu" else str(value.device)
    parts: Any = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if callable(getattr(value, "parameters", None)) and not isinstance(value, type):
        parts = value.parameters()
    return next(filter(None, map(_device, parts)), None)


def _name(value: Any) -> str:
    inner = value.func if isinstance(value, partial) else value
    return str(getattr(inner, "__name__", type(inner).__name__)).strip("<>")
