"""Mutants of a program: the same program with one small fault."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator

Change = Callable[[ast.AST], Iterator[ast.AST]]
"""What may stand in the place of a node, each with one fault."""
COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
CALCULATED: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Mult,),
    ast.Div: (ast.FloorDiv,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "max", "sorted": "list"}


def mutants(source: str, rng: random.Random, most: int) -> list[tuple[str, str]]:
    """At most `most` mutants of a program of Python, as (what was changed, program), drawn so that all kinds of changes
    come in turn. Raises SyntaxError for what is no program."""
    tree = ast.parse(source)
    plain = ast.unparse(tree)
    by_kind: dict[str, list[str]] = {}
    for kind, change in CHANGES.items():
        for number, node in enumerate(ast.walk(tree)):
            for changed in change(node):
                text = _replaced(tree, number, changed)
                if text not in (None, plain):
                    by_kind.setdefault(kind, []).append(str(text))
    for texts in by_kind.values():
        rng.shuffle(texts)
    found: dict[str, str] = {}
    while by_kind and len(found) < most:
        for kind in list(by_kind):
            found.setdefault(by_kind[kind].pop(), kind)
            if not by_kind[kind]:
                del by_kind[kind]
    return [(kind, text) for text, kind in found.items()][:most]


def _replaced(tree: ast.Module, number: int, changed: ast.AST) -> str | None:
    """The program with another node in the place of the one of that number in `ast.walk`; None where that is no
    program."""
    whole = copy.deepcopy(tree)
    old = list(ast.walk(whole))[number]
    for parent in ast.walk(whole):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, changed)
            elif isinstance(value, list):
                setattr(parent, name, [changed if each is old else each for each in value])
    try:
        text = ast.unparse(ast.fix_missing_locations(whole))
        compile(text, "<mutant>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return text


def _compared(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in COMPARED.get(type(operator), ()):
                yield ast.Compare(node.left, [*node.ops[:i], other(), *node.ops[i + 1 :]], node.comparators)


def _calculated(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp):
        for other in CALCULATED.get(type(node.op), ()):
            yield ast.BinOp(node.left, other(), node.right)


def _constants(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Constant):
        if type(node.value) is int:
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        elif type(node.value) is bool:
            yield ast.Constant(not node.value)


def _negated(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        changed = copy.deepcopy(node)
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand


def _branch_dropped(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If):
        for test in (True, False):
            yield ast.If(ast.Constant(test), node.body, node.orelse)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            others = [value for k, value in enumerate(node.values) if k != i]
            yield others[0] if len(others) == 1 else ast.BoolOp(node.op, others)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, [], node.is_async)


def _call_dropped(node: ast.AST) -> Iterator[ast.AST]:
    """A call is replaced by one of its arguments or by the object whose method it is, a part by the whole."""
    if isinstance(node, ast.Call):
        yield from (each for each in node.args if not isinstance(each, ast.Starred | ast.GeneratorExp))
        if isinstance(node.func, ast.Attribute):
            yield node.func.value
        if node.keywords:
            yield ast.Call(node.func, node.args, [])
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield node.value


def _other_call(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLED:
        yield ast.Call(ast.Name(CALLED[node.func.id], ast.Load()), node.args, node.keywords)


def _argument_returned(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef) and node.args.args:
        for argument in node.args.args[:2]:
            changed = copy.deepcopy(node)
            changed.body = [ast.Return(ast.Name(argument.arg, ast.Load()))]
            yield changed


def _statement_dropped(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.AugAssign | ast.Break | ast.Continue):
        yield ast.Pass()


CHANGES: dict[str, Change] = {
    "another comparison": _compared,
    "another operation": _calculated,
    "a constant one more or less": _constants,
    "a condition negated": _negated,
    "a branch or condition dropped": _branch_dropped,
    "a call or part dropped": _call_dropped,
    "another function called": _other_call,
    "an argument returned": _argument_returned,
    "a statement dropped": _statement_dropped,
}
