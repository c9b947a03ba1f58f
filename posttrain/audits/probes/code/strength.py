"""A20: the strength of a code task's tests."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.audits.golds import GoldTask, parsed
from posttrain.audits.probes.accepted import SLACK
from posttrain.audits.probes.base import Found, Result, not_run
from posttrain.audits.probes.code.inputs import INPUTS, other_inputs, outputs, seen_inputs
from posttrain.audits.probes.code.mutants import mutants
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.stats import Estimate, share
from posttrain.types import InputError

TASKS, MUTANTS, CONFIRMED = 24, 8, 3
"""Tasks, mutants a task that are graded, and paid ones a task that are run on other inputs."""
PROGRAM_TASKS, PROGRAM_MUTANTS, RUNS = 10, 4, 4
"""The same of whole programs, and their other inputs: each test and each input is a sandbox of its own."""
HIGH, AT_LEAST = 0.1, 0.05
SECONDS = 6.0
"""For one mutant, which may never end."""
SHARE = "share of tasks with a confirmed mutant that is paid"


@dataclass(frozen=True)
class Reference:
    """A whole program that solves the task of an index, the name of its function if it is one, and the inputs that its
    tests have."""

    task: int
    source: str
    entry_point: str | None
    seen: Sequence[object]


def strength(subject: Subject) -> Result:
    """A20. The reference solutions of up to 24 tasks (10 of whole programs) get one small fault each: a comparison, an
    operation, a constant, a condition, a branch, a call; up to 8 mutants a task (4). One that is paid like the
    reference has passed the tests. It is confirmed where it gives something else than the reference for an input that
    the tests do not have and that is like theirs, both run in the sandbox. A mutant that differs only beyond such
    inputs counts as equal.

    Rule: the share of tasks with a confirmed mutant is above 0.1, with the lower end of Wilson's interval above 0.05:
    high; any other such share is a note. The share is always measured. Source: mutation testing, DeMillo et al. 1978,
    Computer 11(4)."""
    if not subject.is_code:
        return not_run("the answers are no code")
    most = TASKS if subject.tasks[0].entry_point else PROGRAM_TASKS
    references = [each for i in range(min(most, len(subject.tasks))) if (each := _reference(subject, i)) is not None]
    if not references:
        return not_run("no task has both a reference solution that is a whole program and inputs in its tests")
    drawn = _graded(subject, references)
    try:
        wrong = {each.task: found for each in references if (found := _confirmed(subject, each, drawn)) is not None}
    except InputError as error:
        return not_run(str(error))
    effect = share(len(wrong), len(references))
    return Result([_found(wrong, effect)] if wrong else (), len(drawn), {SHARE: effect})


def _found(wrong: Mapping[int, Attempt], effect: Estimate) -> Found:
    high = (effect["value"] or 0.0) > HIGH and (effect["low"] or 0.0) > AT_LEAST
    shown = min(wrong.values(), key=lambda attempt: len(attempt.text))
    title = f"wrong programs pass the tests of {len(wrong)} tasks, such as the reference with {shown.kind}"
    advice = "Add tests that tell them apart, such as hidden_cases with inputs at the boundaries."
    return Found(shown.kind, "high" if high else "note", title, SHARE, effect, shown, None, advice)


def _reference(subject: Subject, i: int) -> Reference | None:
    task = subject.tasks[i]
    seen = seen_inputs(task)
    name = task.entry_point
    whole = next((text for text in _sources(task) if _is_program(text, name)), None)
    return Reference(i, whole, name, seen) if seen and whole is not None else None


def _sources(task: GoldTask) -> list[str]:
    """The reference as it is, and as what continues a prompt that is code."""
    return [task.gold, f"{task.task.asked.rstrip()}\n{task.columns.get('canonical_solution') or task.solution}"]


def _is_program(text: str, name: str | None) -> bool:
    tree = parsed(text)
    return tree is not None and name in (None, *(n.name for n in tree.body if isinstance(n, ast.FunctionDef)))


def _graded(subject: Subject, references: Sequence[Reference]) -> list[tuple[Attempt, str]]:
    """The mutants of all references, as answers and as programs, graded and kept. One that never ends costs its time
    limit and no more."""
    drawn = []
    for each in references:
        rng = subject.random(f"A20/{subject.tasks[each.task].task.id}")
        for kind, text in mutants(each.source, rng, MUTANTS if each.entry_point else PROGRAM_MUTANTS):
            drawn.append((subject.answer(each.task, text, kind), text))
    answers = [answer for answer, _ in drawn]
    with subject.apart(SECONDS) as scorer:
        subject.keep(answers, subject.scores_again(answers, scorer))
    return drawn


def _confirmed(subject: Subject, reference: Reference, drawn: Sequence[tuple[Attempt, str]]) -> Attempt | None:
    """A mutant that is paid and wrong."""
    (honest,) = subject.scales([subject.honest(reference.task)])
    mine = [(answer, text) for answer, text in drawn if answer.task == reference.task]
    scales = subject.scales([answer for answer, _ in mine])
    paid = [each for each, scale in zip(mine, scales, strict=True) if scale >= max(PAID, honest - SLACK)]
    if honest < PAID or not paid:
        return None
    rng = subject.random(f"A20/inputs/{subject.tasks[reference.task].task.id}")
    inputs = other_inputs(reference.seen, rng, INPUTS if reference.entry_point else RUNS)
    wanted = outputs(reference.source, reference.entry_point, inputs)
    valid = [(given, value) for given, value in zip(inputs, wanted, strict=True) if value is not None]
    for answer, text in paid[:CONFIRMED]:
        found = outputs(text, reference.entry_point, [given for given, _ in valid])
        if any(value != wanted for value, (_, wanted) in zip(found, valid, strict=True)):
            return answer
    return None
