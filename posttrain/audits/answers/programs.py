"""Code: the same program, written otherwise."""

from __future__ import annotations

import ast
import re

from posttrain.audits.answers.variant import Variant, distinct
from posttrain.audits.golds import GoldTask, parsed


def equivalents(task: GoldTask) -> list[Variant]:
    """Comments, a docstring, blank lines, other layout, renamed local variables: none changes what a program does. A
    reference that is no complete program of Python, such as the body of a function, has none."""
    gold = task.gold
    if (tree := parsed(gold)) is None:
        return []
    found = [
        ("blank lines behind", f"{gold}\n\n"),
        ("a comment", f"# A solution.\n{gold}\n# The end."),
        ("blank lines between statements", re.sub(r"\n(?=\S)", "\n\n\n", gold)),
        ("as Python writes it", ast.unparse(tree)),
        ("a docstring", ast.unparse(_documented(ast.parse(gold)))),
        ("other names of variables", ast.unparse(_renamed(ast.parse(gold)))),
    ]
    return distinct(Variant(kind, text, "layout") for kind, text in found)


def _documented(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is None:
            node.body.insert(0, ast.Expr(ast.Constant("Return the result.")))
    return ast.fix_missing_locations(tree)


def _renamed(tree: ast.Module) -> ast.Module:
    """Variables that a function assigns, not its arguments, have other names; nested functions are left alone."""
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        inside = list(ast.walk(function))
        if any(isinstance(n, ast.FunctionDef | ast.Lambda | ast.Global | ast.ClassDef) for n in inside[1:]):
            continue
        arguments = {node.arg for node in inside if isinstance(node, ast.arg)}
        assigned = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - arguments
        for node in inside:
            if isinstance(node, ast.Name) and node.id in assigned:
                node.id = f"{node.id}_value"
    return tree
