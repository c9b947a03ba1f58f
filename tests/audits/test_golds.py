"""Reference answers: where they are found, and their types."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.audits.forms import shown_forms
from posttrain.audits.golds import GoldTask, final_of, read_tasks, with_golds
from posttrain.types import InputError, Task
from tests.training_helpers import write_rows

CHOICE = "Which one?\nA) red\nB) blue\nC) green"


def types(values: list[Any], column: str = "answer", prompt: str = "q", **more: Any) -> list[str]:
    tasks = [Task(str(i), prompt, {column: value, **more}) for i, value in enumerate(values)]
    return [gold.type for gold in with_golds(tasks, None, [column, *more])]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([36, 1.5, "-1,200", "3/4", "12%", "$5"], "number"),
        (["x^2+1", "2\\pi", "\\frac{1}{2}x", "a + 1"], "expression"),
        (["Oslo", "New York", "the river Nile"], "string"),
        ([{"a": 1}, {"a": 2}, '{"a": 3}', "[1, 2]"], "json"),
        (
            ["A long sentence that no grader would compare as it is.", "Another text.\nWith two lines", "c " * 20],
            "text",
        ),
    ],
)
def test_the_type_of_an_answer(values: list[Any], kind: str):
    assert types(values) == [kind] * len(values)


def test_letters_are_a_choice_where_the_prompt_has_options():
    assert types(["A", "(B)", "c"], prompt=CHOICE) == ["choice"] * 3
    assert types(["A", "B", "C"]) == ["string"] * 3
    assert with_golds([Task(str(i), CHOICE, {"answer": a}) for i, a in enumerate("ABC")], None, [])[0].options == (
        *"ABC",
    )


def test_tasks_with_tests_are_code():
    tasks = [Task(str(n), "p", {"cases": [], "answer": f"a{n}", "solution": f"def f(): return {n}"}) for n in range(3)]
    found = with_golds(tasks, None, ["cases"])
    assert [(each.type, each.gold) for each in found] == [("code", f"def f(): return {n}") for n in range(3)]


def test_the_final_answer_of_a_worked_solution():
    assert final_of("so \\boxed{1} and then \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}"
    assert final_of("6*7 = 42\n#### 42") == "42"
    assert final_of("42") == "42"


def test_a_number_that_python_cannot_read_is_a_string():
    assert types([str(n) * 5000 for n in range(1, 4)])[0] == "string"


def test_numbers_in_a_row_are_no_sum():
    assert types(["4 -3 -7", "1 2 3", "0.5 -2 6"]) == ["string"] * 3
    assert types(["4 - 3", "x -3", "-3+5"]) == ["expression"] * 3


def test_a_text_of_endless_depth_is_no_json():
    rows = [{"answer": f"{'[' * 5000}{k}", "code": f"def f(): return {'-' * 50_000}{k}"} for k in range(3)]
    tasks = [Task(str(k), "Which?", row) for k, row in enumerate(rows)]
    assert with_golds(tasks, None, ["answer", "code"])[0].gold == "[" * 5000 + "0"


def test_tasks_without_answers_or_with_too_few_are_refused():
    with pytest.raises(InputError, match="needs a reference answer.*the tasks have topic.*--answer-column"):
        with_golds([Task("0", "p", {"topic": "x"})], None, [])
    with pytest.raises(InputError, match="4 tasks have 2 distinct reference answers in the column 'answer'"):
        types(["1", "2", "1", "2"])
    with pytest.raises(InputError, match="--answer-column key: no such column; the tasks have answer"):
        with_golds([Task("0", "p", {"answer": "1"})], "key", [])


def test_rows_with_completions_are_tasks(tmp_path: Any):
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"prompt": f"p{n}", "completion": f"c{n}", "id": f"t{n}"} for n in range(3)])
    found = with_golds(read_tasks(str(file)), None, [])
    assert [(each.task.id, each.gold) for each in found] == [("t0", "c0"), ("t1", "c1"), ("t2", "c2")]
    write_rows(file, [{"topic": "p"}])
    with pytest.raises(InputError, match=r"rows.jsonl:1: no 'prompt'; the row has topic"):
        read_tasks(str(file))


def test_a_column_that_the_reward_reads_holds_the_answers_where_no_other_does():
    tasks = [Task(str(n), "p", {"topic": "x", "facts": [f"a{n}", "b"]}) for n in range(3)]
    assert [each.gold for each in with_golds(tasks, None, ["facts"])] == ["a0, b", "a1, b", "a2, b"]
    assert with_golds(tasks, None, ["facts"])[0].references == ("facts",)


def test_forms_that_prompts_show():
    prompts = ["End with a line `Total: <number>`.", "Sum 3? End with `Total: <number>`.", "Write 'Sum: N' at the end."]
    plain, worked = shown_forms(prompts)
    assert (plain.render("7"), worked.render("7", "I add.")) == ("Total: 7", "I add.\nTotal: 7")
    assert plain.wanted(prompts[1]) and not plain.wanted(prompts[2])
    assert shown_forms(['Say "hello" or `x`.', "Use [a] and <b>."]) == []


def test_forms_with_several_places():
    """The answer fills all places from the first to the last; what is no part of it is filled; brackets may belong."""

    def shown(prompt: str) -> list[tuple[str, str]]:
        return [(form.before, form.after) for form in shown_forms([prompt]) if not form.thinking]

    assert shown("End with `Labels: <topic>, <topic>`.") == [("Labels: ", "")]
    assert shown("End with Total: <number>.") == [("Total: ", "")]
    assert shown("Close with `Source: [n]`.") == [("Source: ", ""), ("Source: [", "]")]
    assert shown("Date as `Date: YYYY-MM-DD`.") == [("Date: ", "")]
    assert ("<city>", "</city>") in shown("Put it between <city> and </city>.")
    assert shown("End like this: `Total: 42`.") == [("Total: ", "")]
    prompts = ["Reason in <reasoning> and </reasoning>, then <answer> and </answer>."]
    assert "<reasoning>\nIt is so.\n</reasoning>\n<answer>7</answer>" in [
        form.render("7", "It is so.") for form in shown_forms(prompts)
    ]
    assert ("Answer: ", "\nConfidence: 90") in shown("Two lines, `Answer: <number>` and `Confidence: <percent>`.")
    assert ("Reason: It follows from the question.\nAnswer: ", "") in shown("`Reason: <text>`, then `Answer: <n>`.")


def test_dates_are_no_expressions():
    assert types(["2024-03-05", "5/3/2024", "9:30"]) == ["string"] * 3
    assert types(["12-x", "3/x", "x+1"])[0] == "expression"


def test_names_with_signs_are_no_expressions():
    assert types(["555-1234", "SKU-12-7", "self-made", "9.8 m/s", "Stratford-upon-Avon"]) == ["string"] * 5
    assert types([r"\\d{3}-x", "a+b", "[0-9]+"], prompt="Write a regular expression.") == ["string"] * 3
    assert types(["[-3, 2]", "(1, 2]", "[0, 5)"], prompt="In interval notation.") == ["string"] * 3


def test_the_function_of_a_program_is_found_without_a_column_that_names_it():
    program = "def helper(x):\n    return x\n\n\ndef double(x):\n    return 2 * helper(x)\n"
    tests = {"tests": "assert double(2) == 4"}
    assert GoldTask(Task("0", "Write it.", tests), program, program, "code", ()).entry_point == "double"
    assert GoldTask(Task("0", "Read stdin.", {}), program, program, "code", ()).entry_point is None


def test_code_is_known_by_its_text_whatever_the_columns_are_called():
    def first(read: list[str], **columns: Any) -> GoldTask:
        rows = [{name: value.replace("#", str(n)) for name, value in columns.items()} for n in range(3)]
        return with_golds([Task(str(n), "Write f(x).", row) for n, row in enumerate(rows)], None, read)[0]

    program, suite = "def f(x):\n    return x + #", "assert f(1) == 1#"
    found = first(["checks"], checks=suite, fixed=program)
    assert (found.type, found.gold, found.entry_point) == ("code", program.replace("#", "0"), "f")
    assert found.suite == "assert f(1) == 10"
    assert first(["checks"], checks=suite, reference=program).type == "code"
    assert first(["tests"], tests="[[1], #]", reference="a # * b +").type != "code"  # another language
    assert first(["cases"], cases="[1, #]", reference="x * # if x else #").type != "code"  # an expression
    assert first(["tests"], tests=suite, canonical_solution="    return x + #").type == "code"  # a body
    assert first(["answer"], answer="#", solution=program).type == "number"
