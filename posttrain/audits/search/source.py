"""What the source of a reward gives away: texts that it looks for, numbers that it may compare lengths with, and forms
of answers that it reads.

Fuzzers take dictionaries from the program under test. The source is parsed and never executed: the function of a user
that a reward names, and the functions and names of the same module that it uses. Rewards of posttrain are not read."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path

from posttrain.audits.forms import ANYTHING, Form
from posttrain.audits.search.dictionary import WORDS
from posttrain.audits.search.patterns import matching
from posttrain.expressions import Expression
from posttrain.rewards.registry import BUILTINS, Spec

LONGEST, MOST, SHORTEST = 300, 40, 3
"""Characters of a text, how many texts are kept, and characters that say where an answer comes from."""
LONGEST_LIST, MOST_LISTS = 2000, 4
NUMBERS, MOST_NUMBERS, MOST_TIMES = range(3, 3001), 6, 20
"""Which numbers may be lengths, how many are kept, and how many times all texts are repeated at the most."""
MOST_FORMS, MOST_LINES, PLACE, LABEL = 8, 3, "\0", re.compile(r"\s*\w[\w -]{0,30} ?[:=]\s*")
LEFT_OUT = re.compile(r"\w\([^()]*\)|[\ud800-\udfff]")
"""What looks like a call, since a library that the reward uses may run an answer, and half a character, which no policy
writes."""
RUNNERS = frozenset(("eval", "exec", "subprocess", "Popen", "check_output"))
MODULES = frozenset(("subprocess", "pty", "pexpect", "runpy", "docker"))
RUNNING = re.compile(
    r"system|popen|(?:spawn|exec)[lv]p?e?|posix_spawnp?|execute(?:script|many)?|create_subprocess_\w+|"
    r"_*(?:run|exec|execute|eval|evaluate)_(?:\w+_)?(?:code|commands?|cmd|programs?|scripts?|shell|sql|python|bash)"
)
"""Names by which a source runs answers, modules of which any name does, and methods and functions that are called."""
SYNTAX = re.compile(r"\\[BdDsSwW]|\\b(?!oxed|egin|inom)|\(\?|[\])][*+?]|\.[*+]|\w\|\w")
"""What makes a string a pattern, wherever it stands."""


@dataclass(frozen=True)
class Source:
    """`texts`: strings, and texts that match patterns. `lists`: collections of strings, and all texts, joined.
    `lengths`: so many words, lines or characters, and all texts so many times, as there are numbers in the source.
    `forms`: what stands around the groups of its patterns, behind its labels (`total:`) and in its tags."""

    texts: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()
    forms: tuple[Form, ...] = ()

    def holds(self, answer: str) -> bool:
        """Whether an answer has a text or length of the source in it, or is a part of one."""
        answer, known = answer.strip(), (*self.texts, *self.lists, *self.lengths)
        return len(answer) >= SHORTEST and any(
            answer in text or (len(text.strip()) >= SHORTEST and text.strip() in answer) for text in known
        )


NOTHING = Source()


def source_of(specs: Iterable[str], columns: Collection[str]) -> Source:
    """What the functions of a user among rewards give away, but the names of columns. A source that cannot be read or
    parsed gives nothing, nor does one that runs answers: it may name what must not be run."""
    texts: dict[str, None] = {}
    lists: dict[tuple[str, ...], None] = {}
    numbers: dict[int, None] = {}
    around: dict[tuple[str, str], None] = {}
    for part in (part for text in specs for part in Spec.parse(text).expression.walk()):
        with suppress(OSError, TypeError, ValueError, SyntaxError, RecursionError):
            tree, start = _written(part)
            used = _used(tree, start)
            for found in () if _runs(tree, used) else _constants(used):
                if isinstance(found, int):
                    numbers[found] = None
                elif isinstance(found, str) and PLACE in found:
                    around[found.partition(PLACE)[0], found.rpartition(PLACE)[2]] = None
                elif isinstance(found, tuple):
                    lists[found] = None
                elif found.strip() and found not in columns and len(found) <= LONGEST and not LEFT_OUT.search(found):
                    texts[found] = None
    kept = sorted(texts, key=lambda text: not re.search(r"\w", text))[:MOST]
    groups = [[item for item in each if item in texts] for each in list(lists)[:MOST_LISTS]]
    joined = [sep.join(each)[:LONGEST_LIST] for each in (*groups, kept) if len(each) > 1 for sep in (", ", "\n", " ")]
    lengths = [text for number in list(numbers)[:MOST_NUMBERS] for text in _so_many(number, kept)]
    around |= dict.fromkeys((f"{text.strip()} ", "") for text in texts if LABEL.fullmatch(text))
    around |= dict.fromkeys((tag, f"</{tag[1:]}") for tag in texts if f"</{tag[1:]}" in texts)
    forms = [
        Form("as the source reads it", *pair, asked=re.escape(pair[0].strip()))
        for pair in [*[pair for pair in around if any(pair)][:MOST_FORMS], *_on_lines(around)]
    ]
    return Source(tuple(kept), tuple(dict.fromkeys(joined)), tuple(dict.fromkeys(lengths)), tuple(forms))


def _on_lines(around: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each of the first labels on a line of its own below the other ones, which say ANYTHING."""
    labels = {before.strip(): before for before, after in around if before.strip() and not after}
    lines = [f"{before}{ANYTHING[0]}" for before in labels.values()][:MOST_LINES]
    found = []
    for k, before in enumerate(list(labels.values())[: len(lines)]):
        found.append(("\n".join([*lines[:k], before]), "\n".join(["", *lines[k + 1 :]])))
    return found if len(lines) > 1 else []


def _so_many(number: int, texts: list[str]) -> Iterator[str]:
    """So many words, on one line and on lines, characters and times all texts, one more each for `more than`."""
    words = [WORDS[k % len(WORDS)] for k in range(number + 1)]
    yield from (" ".join(words), "\n".join(words), "a" * (number + 1))
    if number <= MOST_TIMES:
        yield from (" ".join(words[:-1]), "\n".join(words[:-1]), "\n".join(texts * (number + 1))[:LONGEST_LIST])


def _written(part: Expression) -> tuple[ast.Module, ast.AST]:
    """The module of a function, and what defines or names it there. Raises OSError where there is none to read."""
    if part.function is not None:
        function = part.function.load()
        while isinstance(function, partial):
            function = function.func
        function = inspect.unwrap(function)
        known = inspect.isroutine(function) or isinstance(function, type)
        lines, above = inspect.findsource(function if known else type(function))
        tree = _parsed("".join(lines))
        definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        for node in ast.walk(tree):
            decorators = getattr(node, "decorator_list", ())
            if isinstance(node, definitions) and min(e.lineno for e in (node, *decorators)) == above + 1:
                return tree, node
        raise OSError("not in its file")
    module, _, name = part.target.rpartition(":")
    if part.target in BUILTINS or not module or module.startswith("posttrain."):
        raise OSError("no function of a user")
    file = Path(module) if module.endswith(".py") else _file(module)
    return _parsed(file.read_bytes()), ast.Name(name, ast.Load())


def _parsed(text: str | bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the user's strings
        return ast.parse(text)


def _file(module: str) -> Path:
    """The file of a module, found without importing the packages that hold it."""
    places, name = [*sys.path, os.getcwd()], ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        if (spec := PathFinder.find_spec(name, places)) is None:
            break
        if name == module and spec.origin:
            return Path(spec.origin)
        places = list(spec.submodule_search_locations or ())
    raise OSError(f"no file of {module} is known")


def _used(tree: ast.Module, start: ast.AST) -> list[ast.AST]:
    """The definition of a function, and the statements of its module that define what they read."""
    defined: dict[str, list[ast.AST]] = {}
    for statement in tree.body:
        for name in _names(statement):
            defined.setdefault(name, []).append(statement)
    found = [start]
    for node in found:
        for each in ast.walk(node):
            if isinstance(each, ast.Name):
                found += [new for new in defined.pop(each.id, ()) if new not in found]
    return found


def _runs(tree: ast.Module, nodes: Sequence[ast.AST]) -> bool:
    """Whether the definitions of a module use what runs answers, under whatever name it is imported."""
    names = set(RUNNERS)
    for node in ast.walk(tree):
        match node:
            case ast.Import(imported):
                names |= {e.asname or e.name for e in imported if e.name.partition(".")[0] in MODULES}
            case ast.ImportFrom(str(module), imported):
                runs = module.partition(".")[0] in MODULES
                names |= {e.asname or e.name for e in imported if runs or RUNNING.fullmatch(e.name)}
    for each in (each for node in nodes for each in ast.walk(node)):
        match each:
            case ast.Name(name) if name in names:
                return True
            case ast.Attribute(_, name) | ast.Call(ast.Name(name)) if RUNNING.fullmatch(name):
                return True
    return False


def _names(statement: ast.AST) -> set[str]:
    """The names that a statement of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    inside = [
        _names(each) for each in ast.iter_child_nodes(statement) if isinstance(each, ast.stmt | ast.ExceptHandler)
    ]
    stored = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored.union(*inside)


def _constants(nodes: Sequence[ast.AST]) -> Iterator[str | int | tuple[str, ...]]:
    """Texts, collections of texts and numbers of a source. Documentation, messages of errors, slices and formats are
    none. A parent comes before its children."""
    skipped: set[int] = set()
    patterns: set[int] = set()
    verbose = any(getattr(each, "attr", None) in ("X", "VERBOSE") for node in nodes for each in ast.walk(node))
    for node in (each for start in nodes for each in ast.walk(start)):
        match node:
            case ast.Expr(ast.Constant()) | ast.Raise() | ast.Slice():
                skipped |= set(map(id, ast.walk(node)))
            case ast.FormattedValue(format_spec=ast.AST() as form):
                skipped |= set(map(id, ast.walk(form)))
            case ast.Call(ast.Attribute(ast.Name("re" | "regex"), _), [pattern, *_]):
                patterns.add(id(pattern))
            case ast.Call(ast.Attribute(ast.Constant(str(text)) as joined, "split" | "splitlines"), given):
                by = given[0].value if given and isinstance(given[0], ast.Constant) else None
                words = text.split(by if isinstance(by, str) and by else None)
                skipped |= set(map(id, (joined, *given)))
                yield from words
                yield tuple(words)
            case ast.List(items) | ast.Set(items) | ast.Tuple(items):
                yield _strings(items)
            case ast.Dict(keys, values):
                yield _strings(keys)
                yield _strings(values)
            case ast.Constant(str(text)) if id(node) not in skipped:
                if id(node) in patterns or SYNTAX.search(text):
                    with suppress(ValueError):
                        yield from matching(text, verbose and "\n" in text)
                        yield from matching(text, verbose and "\n" in text, PLACE)
                else:
                    yield text
            case ast.Constant(int(number)) if id(node) not in skipped and number in NUMBERS:
                yield number


def _strings(nodes: Iterable[ast.expr | None]) -> tuple[str, ...]:
    return tuple(each.value for each in nodes if isinstance(each, ast.Constant) and isinstance(each.value, str))
