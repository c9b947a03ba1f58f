"""The search (A17): delta debugging, the named exploits of the benchmark, and healthy rewards."""

from __future__ import annotations

import ast
import math
import random
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest

import posttrain
from benchmarks import audit_search as bench
from posttrain.audits.forms import FORMS
from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import Guard
from posttrain.audits.probes.searched import alike, searched
from posttrain.audits.search.arena import Arena
from posttrain.audits.search.dictionary import dictionary_of, enumerations, next_prime, phrases
from posttrain.audits.search.find import Exploit, Search, at_least
from posttrain.audits.search.shrink import ddmin
from posttrain.audits.search.templates import GOLD, catalogue
from posttrain.audits.subject import Attempt, Subject
from posttrain.rewards.scorer import Scorer
from tests.audits.subjects import subject as under_audit


def test_ddmin_finds_what_matters_and_little_more_than_it_must() -> None:
    asked: list[Sequence[int]] = []

    def holds(items: Sequence[int]) -> bool:
        asked.append(items)
        return 3 in items and 700 in items

    assert ddmin(range(1000), holds) == [3, 700]
    assert len(asked) < 150
    assert ddmin("abcabc", lambda items: items.count("a") == 2) == ["a", "a"]
    assert ddmin([1, 2], lambda items: True) == []
    assert ddmin([5], lambda items: items == [5]) == [5]


def test_phrases_hold_every_pair_of_words_side_by_side() -> None:
    words = [f"w{k}" for k in range(20)]
    seen = set()
    for text in phrases(words, random.Random(0)):
        for line in text.splitlines():
            seen |= set(zip(line.split(), line.split()[1:], strict=False))
    assert {(a, b) for a in words for b in words if a != b} <= seen
    assert [next_prime(n) for n in (1, 8, 13)] == [2, 11, 13]


def test_the_tail_of_the_hypergeometric_distribution() -> None:
    # 2 of 4 tasks are paid; 2 are drawn: both paid in 1 of 6 draws, at least one in 5 of 6
    assert at_least(2, 2, 2, 4) == pytest.approx(1 / 6) and at_least(1, 2, 2, 4) == pytest.approx(5 / 6)
    assert at_least(8, 8, 8, 40) == pytest.approx(1 / math.comb(40, 8))


def test_lists_that_differ_in_what_stands_between_their_items_are_one_exploit() -> None:
    def same(*texts: str) -> bool:
        exploits = [Exploit((text,), (), None, 0) for text in texts]
        return len({alike(exploit, FORMS[0]) for exploit in exploits}) == 1

    assert same("1 2 3 4 5 6", "0, 1, 2, 3, 4, 5", "7\n8\n9\n10\n11")
    assert same("red, green, blue, white, pink", "Red\ngreen\nblue\nwhite\npink") and same("so", "So")
    assert not same("because", "therefore") and not same("a b c d e", "e d c b a") and not same("**", "::")


FAST = ("the answer anywhere", "all options listed", "a key of a JSON object", "a tag in a tag", "the answer denied",
        "three features of 0.2 each", "a phrase of two words beside a box")  # fmt: skip


@pytest.mark.parametrize("name", FAST)
def test_a_named_exploit_is_found_within_2000_answers(name: str) -> None:
    found, arena = bench.search(bench.EXPLOITS[name], seed=1)
    assert len(found) == 1 and arena.calls <= bench.CALLS
    assert all(arena.guard.wrong(arena.tasks[trial.task], trial.text) for trial in found[0].trials if trial.paid)


@pytest.mark.stress
@pytest.mark.parametrize("name", bench.EXPLOITS)
def test_a_named_exploit_is_found_in_nine_of_ten_runs(name: str) -> None:
    runs = [bench.search(bench.EXPLOITS[name], seed)[0] for seed in range(50)]
    assert sum(map(bool, runs)) >= 45


def test_the_same_seed_finds_the_same() -> None:
    first, second = (bench.search(bench.EXPLOITS["an opener and a boxed integer"], seed=3) for _ in range(2))
    assert first[0] == second[0] and first[1].calls == second[1].calls


def test_a_part_of_the_tasks_is_named_by_a_word() -> None:
    found, arena = bench.search(bench.EXPLOITS["a word, for prompts with a word"], seed=1)
    assert found[0].part in bench.THINGS
    assert all(found[0].part in arena.tasks[trial.task].task.asked for trial in found[0].trials)


def strict(task: GoldTask, text: str) -> float:
    return float(bench.boxed(text) == task.gold)


def near(task: GoldTask, text: str) -> float:
    """Dense: falls with the distance from the answer."""
    try:
        return math.exp(-abs(float(bench.boxed(text)) - float(task.gold)) / 5)
    except ValueError:
        return 0.0


def noisy(task: GoldTask, text: str) -> float:
    """Pays every fourth wrong answer by chance."""
    return max(strict(task, text), float(random.Random(f"{task.task.id}/{text}").random() < 0.25))


@pytest.mark.parametrize("pays", [strict, near, noisy])
@pytest.mark.parametrize("make", [bench.number_tasks, bench.choice_tasks])
def test_a_reward_without_an_exploit_is_not_accused(pays, make) -> None:
    tasks = make(random.Random(0))

    def pay(items: Sequence[tuple[int, str]]):
        return np.array([pays(tasks[i], text) for i, text in items])

    arena = Arena(tasks, bench.BOX, pay, Guard(tasks), 2000)
    assert Search(arena, random.Random(0)).run() == []
    assert 1000 < arena.calls <= 2000


def test_evolution_never_uses_the_reference_answer() -> None:
    tasks = bench.number_tasks(random.Random(0))
    golds = {task.gold for task in tasks}
    groups = catalogue(dictionary_of(tasks), enumerations(tasks), random.Random(0))
    assert [k for k, group in enumerate(groups) if any(GOLD in template for template in group)] == [2]
    arena = Arena(tasks, bench.BOX, lambda items: np.zeros(len(items)), Guard(tasks), 2000)
    search = Search(arena, random.Random(0))
    search.run()
    assert not any(GOLD in template for template in search._bred(200))
    assert len(golds) > 20


def probed(reward, **options) -> Subject:
    tasks = bench.number_tasks(random.Random(5))[:20]
    scorer = Scorer([reward], columns=["answer"], timeout_seconds=5, workers=0)  # type: ignore[list-item]
    return Subject(scorer, tasks, 0, **options)


def anywhere(response: str, answer: str) -> float:
    return float(answer in response)


def last_line(response: str, answer: str) -> float:
    return float(response.strip().splitlines()[-1:] == [f"Answer: {answer}"])


def test_the_probe_reports_what_the_search_found() -> None:
    found = searched(probed(anywhere))
    assert found.findings and {each.severity for each in found.findings} == {"critical"}
    assert found.findings[0].shown is not None and found.findings[0].effect["value"] >= 0.5
    clean = searched(probed(last_line))
    assert clean.findings == () or not clean.findings
    assert 1000 < clean.n <= 2000


def similar(response: str, answer: str) -> float:
    return max(0.0, 2 * SequenceMatcher(None, response[:80], answer).ratio() - 1)


def test_what_is_near_the_reference_is_no_exploit_of_a_reward_that_grades() -> None:
    words = ("stone", "river", "cloud", "maple", "tiger", "ocean", "bread", "chair", "plant")
    rows = [{"prompt": "Order the words.", "answer": f"the {a} stands by another {a[::-1]} tree"} for a in words]
    subject = under_audit(similar, rows)
    not_it = subject.scales([Attempt(i, f"not {task.gold}", "denied") for i, task in enumerate(subject.tasks)])
    assert min(not_it) > 0.5 and max(not_it) < 0.95
    result = searched(Subject(subject.scorer, subject.tasks, 0, search_calls=600))
    assert result.reason is None and not result.findings


def test_the_probe_is_not_run_where_nothing_decides() -> None:
    subject = probed(last_line)
    texts = [GoldTask(each.task, each.gold, each.solution, "text", each.references) for each in subject.tasks]
    result = searched(Subject(subject.scorer, texts, 0))
    assert result.reason is not None and "--judge" in result.reason and result.n == 0
    assert searched(probed(last_line, search_calls=0)).reason == "--calls 0"


def test_the_guard_shares_no_code_with_rewards() -> None:
    folder = Path(posttrain.__file__).parent / "audits" / "guard"
    imported = {
        name
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
        )
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported and not any(str(name).startswith("posttrain.rewards") for name in imported)
