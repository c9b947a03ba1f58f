"""The audit of a reward from its tasks to its files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import posttrain as pt
from posttrain.api.commands import audit
from posttrain.api.results import Audit
from posttrain.audits.files import write_audit
from posttrain.audits.golds import with_golds
from posttrain.audits.probes.style.places import chosen
from posttrain.audits.run import is_slow
from posttrain.audits.subject import Attempt, Subject, Uncalibrated, pays_empty
from posttrain.cli.main import main
from posttrain.report.audit import audit_opening, print_audit
from posttrain.report.html import write_report
from posttrain.rewards.scorer import Scorer
from posttrain.runs.audit import AuditRecord, read_audit
from posttrain.stats import Estimate
from posttrain.types import Task
from tests.audits import rewards
from tests.training_helpers import write_rows

PROMPT = "What is {}+{}? End with the line 'Answer: NUMBER'."
TASKS = [{"prompt": PROMPT.format(n, n + 3), "answer": str(2 * n + 3)} for n in range(18)]
REWARDS = f"{rewards.__file__}:"
ALL: Estimate = {"value": 1.0, "low": 0.8, "high": 1.0, "n": 12}
RECORD: AuditRecord = {
    "version": "1",
    "reward": ["mine.py:pays"],
    "data": "tasks.jsonl",
    "tasks": 12,
    "answer_types": {"number": 12},
    "seed": 0,
    "guard": "by construction",
    "calibration": {"best": 1.0, "empty": 0.0, "form": "line", "forms": {"line": 1.0}, "paid": ALL},
    "outcomes": [],
    "findings": [
        {
            "probe": "A1",
            "kind": "empty",
            "severity": "critical",
            "title": "",
            "measure": "mean scaled reward",
            "effect": ALL,
            "reproducer": {
                "task": "0",
                "prompt": "",
                "answer": "3",
                "response": "",
                "value": 1.0,
                "honest": 1.0,
                "row": {},
                "file": "reproducers/01-A1.jsonl",
            },
            "wrapper": None,
            "advice": "",
            "command": "posttrain score",
        }
    ],
    "thresholds": None,
    "seconds": 1.0,
}
"""An audit with a finding whose texts a test fills in."""


def subject(reward: Callable[..., float], n: int = 12) -> Subject:
    """A reward over the first tasks, scored in this process."""
    tasks = [Task(str(i), row["prompt"], {"answer": row["answer"]}) for i, row in enumerate(TASKS[:n])]
    scorer = Scorer([reward], columns=["answer"], timeout_seconds=5, workers=0)  # type: ignore[list-item]
    return Subject(scorer, with_golds(tasks, None, ["answer"]), 0)


def test_the_scale_of_a_reward():
    strict = subject(rewards.strict)
    assert (strict.calibration["best"], strict.calibration["empty"]) == (1.0, 0.0)
    assert strict.form.name == "line"  # the first of the two that are asked for and paid
    assert strict.calibration["forms"]["bare"] == 0 and strict.calibration["paid"]["value"] == 1

    shifted = subject(lambda response, answer: 3 * rewards.strict(response, answer) - 1)
    attempts = [Attempt(0, "Answer: 3", "right"), Attempt(0, "Answer: 4", "wrong"), Attempt(1, "Answer: 5", "right")]
    assert shifted.grade(attempts).tolist() == [2, -1, 2]
    assert shifted.scales(attempts).tolist() == [1, 0, 1]


def test_an_answer_is_graded_once():
    seen: list[str] = []

    def remember(response: str, answer: str) -> float:
        seen.append(response)
        return rewards.strict(response, answer)

    found = subject(remember)
    before = (found.calibration, len(seen), found.calls)[1:]
    found.grade([found.honest(0), found.honest(0), Attempt(0, "new", "new"), Attempt(0, "new", "other kind")])
    assert len(seen) == before[0] + 1 and found.calls == before[1] + 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("negative", r"pays the reference answers 0 in the mean, in the best of \d+ forms .*there is no scale"),
        ("little", r"pays the reference answers 0.1 in the mean, .*the empty answer 0.1"),
        ("nothing", "gave no answer a value; the first reason: no part of it applied"),
        ("fails", "gave no answer a value; the first reason: fails: RuntimeError: no scale today"),
    ],
)
def test_a_reward_without_a_scale_is_refused(name: str, says: str):
    with pytest.raises(Uncalibrated, match=says):
        _ = subject(getattr(rewards, name)).calibration


def test_no_scale_where_the_empty_answer_is_paid_as_much():
    """Of a reward that pays all, and of one that pays what it cannot read and takes from what it reads and is wrong;
    not of one that pays the empty answer more, or on half of the tasks."""
    for reward in (rewards.always, rewards.unread):
        found = subject(reward)
        assert not found.has_scale and found.honest(0).text == "Answer: 3"
        with pytest.raises(Uncalibrated, match="no scale: the empty answer is paid as much"):
            _ = found.calibration
    seen = np.array([[1.0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    assert pays_empty(seen[0], seen[1], seen)
    assert not pays_empty(seen[0], seen[1] * [1, 1, 1, 0, 0, 0], seen)
    assert not pays_empty(seen[2], seen[1], seen)
    assert not pays_empty(seen[0, :3], seen[1, :3], seen[:, :3])  # three tasks are too few
    assert not pays_empty(seen[0], 2 * seen[1], np.stack([*seen, 2 * seen[1]]))


@pytest.mark.parametrize("name", ["always", "unread"])
def test_an_audit_without_a_scale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    write_rows(Path("tasks.jsonl"), TASKS)
    words = ("--data", "tasks.jsonl", "--reward-workers", "0", "--reward", f"{REWARDS}{name}", "--out", "audit")
    probes = [word for probe in ("A4", "A7", "A13") for word in ("--only", probe)]
    assert main(["audit", *words, *probes, "--fix"]) == 1
    printed = capsys.readouterr().out
    assert "Do not train with" in printed and "A4, A7 not run: no scale: the empty answer is paid as much" in printed
    assert "without a finding: A13" in printed and "No fix: without a scale" in printed
    record = read_audit(Path("audit"))
    assert record["calibration"] is None and record["thresholds"] is None
    finding = record["findings"][0]
    assert finding["title"].startswith("an answer without content is paid as much as the reference answers: empty, ")
    assert (finding["probe"], finding["severity"]) == ("A1", "critical")
    assert (finding["effect"]["value"], finding["effect"]["n"]) == (1, 12) and finding["effect"]["low"] > 0.7
    shown = finding["reproducer"]
    assert shown is not None and (shown["response"], shown["value"], shown["honest"]) == ("", 1, 1)
    assert json.loads(Path("audit/audit.sarif").read_text())["runs"][0]["results"][0]["level"] == "error"
    page = Path("audit/report.html").read_text()
    assert "No scale: the reward pays the empty answer" in page and "<h2>Forms</h2>" not in page


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    write_rows(Path("tasks.jsonl"), TASKS)

    def run(name: str, *more: str) -> int:
        words = ("--data", "tasks.jsonl", "--out", "audit", "--reward-workers", "0", *more)
        return main(["audit", "--reward", f"{REWARDS}{name}", *words])

    assert run("strict", "--only", "A1", "--only", "A7") == 0
    assert "No probe found a fault" in capsys.readouterr().out
    assert run("lengthy", "--fix", "--only", "A1") == 1
    printed = capsys.readouterr().out
    assert "Do not train with" in printed and "an answer without content is paid: long filler" in printed
    record = read_audit(Path("audit"))
    (finding,) = record["findings"]
    assert (finding["probe"], finding["severity"], finding["effect"]["n"]) == ("A1", "critical", 12)
    assert record["tasks"] == 12  # a third is left for honest answers
    assert record["fix"]["reward"] == [f"one_answer({REWARDS}lengthy)"] and record["fix"]["left"] == []
    assert record["fix"]["before"] == record["fix"]["after"]
    assert read_audit(Path("audit/fixed"))["findings"] == []

    # the command of a finding replays it
    assert main(finding["command"].split()[1:]) == 0
    shown = finding["reproducer"]
    assert shown is not None and json.loads(capsys.readouterr().out)["score"] == shown["value"]

    result = json.loads(Path("audit/audit.sarif").read_text())["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert (result["ruleId"], result["level"]) == ("A1", "error") and Path("audit", place).exists()
    page = Path("audit/report.html").read_text()
    assert "long filler" in page and "one_answer" in page


def test_a_fix_that_leaves_findings_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_rows(Path("tasks.jsonl"), TASKS)
    probes = ("--only", "A3", "--only", "A4", "--reward-workers", "0")
    words = ("--reward", f"{REWARDS}tolerant", "--data", "tasks.jsonl", "--out", "audit")
    assert main(["audit", *words, *probes, "--fix"]) == 1
    fix = read_audit(Path("audit"))["fix"]
    assert "final_answer({})" in fix["wrappers"]
    assert [left.partition(":")[0] for left in fix["left"]] == ["A4 critical"]


def test_a_wrapper_is_named_where_the_answer_is_no_longer_paid_with_it(tmp_path: Path):
    """`final_answer` closes what stands beside the answer, not a longer number that has it inside."""
    data = write_rows(tmp_path / "tasks.jsonl", TASKS)
    own: Any = audit(f"{REWARDS}appears", data=data, out=tmp_path / "audit", reward_workers=0, only=("A3",), limit=12)
    wrappers = {each["kind"]: (each["wrapper"], each.get("closes")) for each in own.record["findings"]}
    assert wrappers["inside a longer answer"] == (None, None)
    assert wrappers["in the text before"] == ("final_answer({})", True)
    assert f"final_answer({REWARDS}appears) closes it." in str(own)
    assert own.record["findings"][0]["reproducer"]["task"].startswith("tasks.jsonl:")
    of_a_function = audit(rewards.appears, data=data, reward_workers=0, only=("A3",), limit=12)
    assert "final_answer(appears) may close it.\n" in str(of_a_function)
    assert str(of_a_function).startswith("Do not train with appears as it is: ")


def test_an_interrupted_audit_leaves_nothing_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, out = write_rows(tmp_path / "tasks.jsonl", TASKS), tmp_path / "audit"
    audit(f"{REWARDS}always", data=data, out=out, reward_workers=0, only=("A1",)).report()
    assert {each.name for each in out.iterdir()} == {"audit.json", "audit.sarif", "report.html", "reproducers"}

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("posttrain.audits.run.attack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit(f"{REWARDS}strict", data=data, out=out, reward_workers=0, only=("A1",))
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([("A3", "share paid like the right answer")], "can be gamed: 1 high."),
        ([("A5", "share paid")], "refuses right answers: 1 high."),
        (
            [("A12", "share without a score"), ("A5", "share paid")],
            "fails on odd text and refuses right answers: 2 high.",
        ),
        ([("A12", "mean scaled reward")], "can be gamed: 1 high."),
    ],
)
def test_the_headline_says_what_kind_of_fault_there_is(faults: list[tuple[str, str]], says: str):
    record = cast(AuditRecord, json.loads(json.dumps(RECORD)))
    (finding,) = record["findings"]
    findings: list[Any] = [{**finding, "severity": "high", "probe": p, "measure": m} for p, m in faults]
    assert audit_opening({**record, "findings": findings}).sentence == f"mine.py:pays {says}"


def test_a_terminal_shows_the_first_findings_and_no_probe_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = cast(AuditRecord, json.loads(json.dumps(RECORD)))
    (finding,) = record["findings"]
    assert finding["reproducer"] is not None
    finding["severity"], finding["reproducer"]["value"] = "note", None
    record["findings"] = [{**finding, "title": f"fault {k}"} for k in range(5)]
    probes = (("A1", "clean"), ("A2", "clean"))
    record["outcomes"] = [
        {"probe": p, "title": "", "status": cast(Any, s), "reason": None, "n": 1, "seconds": 0, "measured": {}}
        for p, s in probes
    ]
    print_audit(record, tmp_path)
    printed = capsys.readouterr().out
    assert "3. note: fault 2 " in printed and "4. note" not in printed and "the others: report.html" in printed
    assert "without a finding: A2\n" in printed and "gets no score, the reference answer" in printed
    assert "5. note: fault 4 " in str(Audit(record))


def test_a_column_of_numbers_is_named_where_a_reward_of_text_fails():
    rows = [Task(str(n), PROMPT.format(n, n + 3), {"answer": 2 * n + 3}) for n in range(4)]
    scorer = Scorer([rewards.appears], columns=["answer"], timeout_seconds=5, workers=0)  # type: ignore[list-item]
    with pytest.raises(Uncalibrated, match=r"not int.*The column 'answer' holds numbers; .* want str\(answer\)"):
        _ = Subject(scorer, with_golds(rows, None, ["answer"]), 0).calibration


def test_what_cannot_be_audited_ends_with_2_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    write_rows(Path("tasks.jsonl"), TASKS)
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")

    def refused(*words: str) -> str:
        assert main(["audit", "--data", "tasks.jsonl", "--reward-workers", "0", *words]) == 2
        assert not Path("audit").exists()
        return capsys.readouterr().err

    reward = ("--reward", f"{REWARDS}strict")
    assert "no scale today" in refused("--reward", f"{REWARDS}fails", "--out", "audit")
    assert "--only A99: no such probe; there are A1," in refused(*reward, "--only", "A99", "--out", "audit")
    assert "--out full: not empty and not an audit" in refused(*reward, "--out", "full")
    assert "nothing is known of the reward: A14: " in refused(*reward, "--only", "A14", "--out", "audit")
    assert "1 of the reference answers of the 1 tasks" in refused(*reward, "--limit", "1", "--out", "audit")


def test_what_nobody_sees_is_shown_as_an_escape(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """In the terminal, the page, SARIF and Python; the row that is graded again has the answer as it was."""
    hidden = "\u202e\u2066\u200b\U000e0041"
    record = cast(AuditRecord, json.loads(json.dumps(RECORD)))
    finding = record["findings"][0]
    shown = finding["reproducer"]
    assert shown is not None
    finding["title"] = finding["advice"] = shown["response"] = shown["prompt"] = hidden
    shown["row"] = {"completion": hidden}
    write_audit(tmp_path, record)
    print_audit(record, tmp_path)
    write_report(tmp_path)
    texts = [capsys.readouterr().out, str(Audit(record)), (tmp_path / "report.html").read_text()]
    message = json.loads((tmp_path / "audit.sarif").read_text())["runs"][0]["results"][0]["message"]["text"]
    for text in (*texts, message):
        assert not set(hidden) & set(text) and "\\u202e\\u2066\\u200b\\U000e0041" in text.replace("\n", "")
    assert json.loads((tmp_path / shown["file"]).read_text()) == {"completion": hidden}


def test_rows_without_a_column_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for lacking, told in (
        ({1, 4}, "2 of 18 rows lack 'answer' (tasks.jsonl:2, tasks.jsonl:5); all rows have: level"),
        (range(1, 6), "5 of 18 rows lack 'answer' (tasks.jsonl:2, tasks.jsonl:3, tasks.jsonl:4, ...);"),
    ):
        rows = [{k: v for k, v in row.items() if k != "answer" or i not in lacking} for i, row in enumerate(TASKS)]
        write_rows(Path("tasks.jsonl"), [{**row, "level": 1} for row in rows])
        for reward in (f"{REWARDS}strict", "math"):
            assert main(["audit", "--reward", reward, "--data", "tasks.jsonl", "--out", "audit"]) == 2
            assert told in capsys.readouterr().err


def test_python_audits_a_function(tmp_path: Path):
    with pytest.raises(pt.InputError, match="^fix writes the mended reward .* name it by its file: pt.audit"):
        audit(rewards.lengthy, data=TASKS, out=tmp_path / "fixed", reward_workers=0, fix=True)
    assert not (tmp_path / "fixed").exists()
    found = audit(rewards.lengthy, data=TASKS, reward_workers=0, only=("A1",))
    assert not found.ok and found.findings[0]["severity"] == "critical"
    with pytest.raises(pt.InputError, match="give out, a folder"):
        found.report()
    assert "posttrain score" not in str(found) and "pt.score" not in str(found)  # the file is gone
    of_a_function: Any = audit(rewards.always, data=TASKS, out=tmp_path / "own", reward_workers=0, only=("A1",))
    assert "command" not in of_a_function.record["findings"][0] and "score" not in str(of_a_function)
    named: Any = audit(f"{REWARDS}lengthy=0.5", data=TASKS, out=tmp_path / "named", reward_workers=0, only=("A1",))
    assert f"   posttrain score --reward {REWARDS}lengthy=0.5 --data " in str(named)
    assert named.report().path.exists() and of_a_function.report().path.exists()
    kept: Any = audit(rewards.strict, data=TASKS, out=tmp_path / "audit", reward_workers=0, only=("A1",))
    assert kept.ok and kept.report().path.exists() and len(kept.findings) == 0


def test_a_reward_that_starts_a_process_for_an_answer_is_audited_on_fewer_tasks(monkeypatch: pytest.MonkeyPatch):
    times = itertools.count(0, 1)
    seconds = [0.1, 0.1, 0.1, 0.1, 0.001]  # the last time the machine was not busy
    under_audit = subject(rewards.strict, 8)
    monkeypatch.setattr(type(under_audit), "_seconds", lambda self: seconds[next(times)])
    assert not under_audit.is_slow and len(chosen(under_audit)) == 8
    slow = subject(rewards.strict, 8)
    monkeypatch.setattr(type(slow), "_seconds", lambda self: 0.1)
    assert slow.is_slow and slow.over(slow.tasks).is_slow and len(chosen(slow)) == 6
    assert is_slow(slow.scorer, slow.tasks)
    assert is_slow(slow.scorer, [*[slow.tasks[0]] * 8, *slow.tasks])  # the first reference answers are equal
