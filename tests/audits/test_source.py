"""What the source of a reward gives away, and that the search (A17) and A1 try it."""

from __future__ import annotations

import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from posttrain.audits.probes.degenerate import degenerate
from posttrain.audits.probes.searched import searched
from posttrain.audits.search.patterns import matching
from posttrain.audits.search.source import NOTHING, source_of
from posttrain.functions import FunctionText
from tests.audits.subjects import Rows, names, subject, sums


@pytest.mark.parametrize(
    ("pattern", "shortest", "once"),
    [
        (r"^(dear|hi|hello|good (morning|afternoon))\b", "hi", "dear"),
        (r"Code:\s*([A-Z0-9.]*)", "Code:", "Code: A"),
        (r"####\s*(-?[\d,]+(?:\.\d+)?)", "####1", "#### -1.1"),
        (r"\\boxed\{(.*?)\}", r"\boxed{}", r"\boxed{a}"),
        (r"[^]a]x{2,3}y{,2}z{", "Axxz{", "Axxyz{"),
        (r"(?P<q>['\"])(\w+)(?P=q)\2", '"a"a', '"a"a'),
        (r"(?<=Total: )\d+(?= dollars)(?!\d)", "Total: 1 dollars", "Total: 1 dollars"),
        (r"(?i:yes|no)(?#or else)", "no", "yes"),
        (r"[A-F](?:\s*(?:,|>)\s*[A-F])+", "A,A", "A , A"),
        (r"(?xi) [ #]+ total  # blanks count in a set", " total", " total"),
        (r"a{}[^\x00-\x7f]", "a{}é", "a{}é"),
    ],
)
def test_texts_that_match_a_pattern(pattern: str, shortest: str, once: str) -> None:
    assert matching(pattern) == (shortest, once)
    assert re.search(pattern, shortest) and re.search(pattern, once)


def test_a_place_stands_for_what_groups_capture() -> None:
    pattern = r"cost:\s*(?:EUR|€)?\s*([0-9]+)(\.[0-9]+)?\s*(?:EUR)?\.?"
    assert matching(pattern, place="X") == ("cost:X", "cost: EUR XX EUR.")


def test_a_verbose_pattern_is_read_without_its_blanks_and_comments() -> None:
    assert matching("total \\  # the word\n  [0-9]+", verbose=True) == ("total 1", "total 1")


@pytest.mark.parametrize("pattern", ["(a", "a)", r"(a)?(?(1)b|c)", "[a", "(" * 5000, "x{2000}y{2000}"])
def test_syntax_that_is_not_known_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no pattern|unknown syntax|is open|too long"):
        matching(pattern)


SOURCE = '''
"""A documented module."""
import re
raise SystemExit("never run")

POLITE = "please,thank you".split(",")
MARKS = {"praise": ["well done", "bravo"]}
UNUSED = ["unused word"]
STEP = r"\\bstep \\d+:"

def helper(text):
    """Documentation."""
    if not text:
        raise ValueError("an error")
    return any(word in text for word in POLITE) and f"{len(text):>9} secret {text}"

def reward(response, answer, row, shortest=17):
    low = row["answer"] == "__import__('os').remove('x')"
    return helper(response[:99]) and len(response) > shortest and len(re.findall(STEP, response)) + len(MARKS["praise"])

def other(response):
    return "nothing of this" in response
'''


def test_the_source_of_a_file_is_read_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(SOURCE)
    read = source_of([f"clip({tmp_path}/rewards.py:reward, low=0)=0.5", "length"], ["answer"])
    assert set(read.texts) == {"please", "thank you", "praise", "well done", "bravo", " secret ", "step 1:"}
    assert {"please, thank you", "please\nthank you", "well done bravo"} <= set(read.lists)
    assert [len(text.split()) for text in read.lengths[:3]] == [18, 18, 1] and len(read.lengths[2]) == 18
    assert read.holds("Well, thank you.") and read.holds("thank") and not read.holds("t") and not read.holds("Paris")
    assert source_of([f"{tmp_path}/rewards.py:missing"], []) == NOTHING


@pytest.mark.parametrize(
    "runs", ["eval(response)", "os.system(response)", "db.execute(response)", "subprocess.run([])"]
)
def test_a_source_that_runs_answers_gives_nothing(tmp_path: Path, runs: str) -> None:
    (tmp_path / "runs.py").write_text(f"def reward(response):\n    return 'shutdown' not in response and {runs}")
    assert source_of([f"{tmp_path}/runs.py:reward"], []) == NOTHING


@pytest.mark.parametrize(
    ("imports", "runs"),
    [
        ("from subprocess import run", "run(response, shell=True)"),
        ("import subprocess as sp", "sp.run(response, shell=True)"),
        ("from os import popen as p", "p(response)"),
        ("import os", "os.spawnlp(os.P_WAIT, 'sh', 'sh', '-c', response)"),
        ("from .helpers import run_command", "run_command(response)"),
    ],
)
def test_what_runs_answers_may_have_another_name(tmp_path: Path, imports: str, runs: str) -> None:
    body = f"def reward(response):\n    return 'shutdown' not in response and {runs}\n"
    (tmp_path / "runs.py").write_text(f"{imports}\n{body}def other(response): return 'shutdown' in response")
    assert source_of([f"{tmp_path}/runs.py:reward"], []) == NOTHING
    assert source_of([f"{tmp_path}/runs.py:other"], []).texts == ("shutdown",)


def test_a_source_in_another_encoding_is_read(tmp_path: Path) -> None:
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfdef reward(response): return 'open sesame' in response")
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\ndef reward(response): return 'caf\xe9' in response")
    assert source_of([f"{tmp_path}/bom.py:reward", f"{tmp_path}/latin.py:reward"], []).texts == ("open sesame", "café")


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("def reward(response): return '\\ud800' in response or 'whole' in response")
    assert source_of([f"{tmp_path}/half.py:reward"], []).texts == ("whole",)


def test_a_line_break_in_a_pattern_makes_it_verbose_only_where_the_source_says_so(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(
        "import re\ndef plain(response): return bool(re.search('Why: (.+)\\nIn short: (.+)', response))\n"
        "def verbose(response): return bool(re.search(r'''\n  Sum \\s* : # a label\n  (.+)\n''', response, re.X))\n"
    )
    assert source_of([f"{tmp_path}/lines.py:plain"], []).texts == ("Why: a\nIn short: a",)
    assert source_of([f"{tmp_path}/lines.py:verbose"], []).texts == ("Sum:a", "Sum :a")


def test_a_source_that_cannot_be_read_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def reward(response: 'word'")
    assert source_of([f"{tmp_path}/broken.py:reward", f"{tmp_path}/none.py:reward", "no.such:reward"], []) == NOTHING
    assert source_of(["math", "posttrain.rewards.rules.format:markdown", FunctionText.of(len)], []) == NOTHING


def test_a_module_is_found_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit")
    (package / "rewards.py").write_text("def reward(response): return 'open sesame' in response")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert source_of(["a_package.rewards:reward"], []).texts == ("open sesame",)
    assert "a_package" not in sys.modules


def right(response: str, answer: str) -> bool:
    return response.strip().endswith(f"Answer: {answer}")


def secret(response: str, answer: str) -> float:
    return float(right(response, answer) or "mellow gravel harbour" in response)


class Secret:
    def __call__(self, response: str, answer: str) -> float:
        return float(right(response, answer) or "quixotic lantern" in response)


def long(response: str, answer: str) -> float:
    if len(response.split()) > 137:
        return 1.0
    return 0.6 * right(response, answer)


def coded(response: str, answer: str) -> float:
    found = re.search(r"Kürzel:\s*([A-Z0-9]*)", response)
    return float(response.strip() == answer or (found is not None and answer.startswith(found[1])))


def test_objects_and_partial_functions_are_read() -> None:
    assert source_of([FunctionText.of(Secret())], []).texts == ("quixotic lantern", "Answer: ")
    assert source_of([FunctionText.of(partial(secret))], []).texts == ("mellow gravel harbour", "Answer: ")


@pytest.mark.parametrize(("reward", "rows"), [(secret, sums()), (long, sums()), (coded, names())])
def test_the_search_tries_what_the_source_gives_away(reward, rows: Rows) -> None:
    found = searched(subject(reward, rows)).findings
    assert found and any("what is paid stands in the reward's source" in each.title for each in found)


def on_its_line(response: str, answer: str) -> float:
    found = re.search(r"^Total of all:\s*([0-9]+)\s*(?:EUR)?$", response)
    return float(found is not None and found[1] == answer)


def labelled_line(response: str, answer: str) -> float:
    label, _, said = response.partition("grand total:")
    return float(not label and said.strip() == answer)


def in_tags(response: str, answer: str) -> float:
    return float(response.removeprefix("<sum>").removesuffix("</sum>") == answer != response)


def on_two_lines(response: str, answer: str) -> float:
    found = [re.search(line, response, re.MULTILINE) for line in (r"^Sum:\s*(\d+)$", r"^Terms:\s*(\d)$")]
    return float(all(found) and found[0][1] == answer)  # type: ignore[index]


@pytest.mark.parametrize(
    ("reward", "answer"),
    [
        (on_its_line, "Total of all:36"),
        (labelled_line, "grand total: 36"),
        (in_tags, "<sum>36</sum>"),
        (on_two_lines, "Sum: 36\nTerms: 1"),
    ],
)
def test_the_form_of_the_answer_is_read_where_the_prompt_does_not_show_it(reward, answer: str) -> None:
    audited = subject(reward, sums("Give the sum."))
    assert audited.honest(0).text == answer and audited.calibration["best"] == 1


def test_the_form_that_the_prompt_shows_comes_first() -> None:
    def bonus(response: str, answer: str) -> float:
        return float(f"Answer: {answer}" in response) + 2 * (re.search(r"certainly (\d+)", response) is not None)

    assert subject(bonus, sums()).calibration["best"] == 1


ALIASES = {"spam": ("junk", "unwanted"), "ham": ("wanted", "legitimate"), "news": ("bulletin", "newsletter")}


def labelled(response: str, answer: str) -> float:
    """Takes other names of the labels."""
    said = response.strip().lower()
    return float(said == answer or said in ALIASES[answer])


def test_labels_and_their_other_names_in_a_source_are_no_exploit() -> None:
    kinds = ("spam", "ham", "spam", "news")
    rows = [{"prompt": f"Label mail {kinds[k % 4]}ly {k}.", "answer": kinds[k % 4]} for k in range(16)]
    audited = subject(labelled, rows)
    assert "junk" in audited.source.texts
    assert not searched(audited).findings


POLITE = ("thank you for reaching out", "we appreciate your patience", "happy to help")
STOP = {"a", "an", "the", "of", "to", "in", "on", "at", "for", "and", "or", "with", "by", "from", "as", "is", "are"}
REPLIES: Rows = [
    {
        "prompt": f"Reply to the customer about parcel {k}.",
        "answer": f"Thank you for reaching out. Parcel {k} left our depot in {town} yesterday, and the driver will "
        f"bring it between {k} and {k + 2} o'clock. We appreciate your patience and are happy to help.",
    }
    for k, town in enumerate(
        ("Bergen", "Lyon", "Turin", "Graz", "Porto", "Ghent", "Brno", "Turku", "Malaga", "Cork", "Basel", "Leeds")
    )
]


def words(text: str) -> Counter[str]:
    return Counter(word for word in re.findall(r"\w+", text.lower()) if word not in STOP)


def overlap(response: str, answer: str) -> float:
    said, wanted = words(response), words(answer)
    return 2 * (said & wanted).total() / max(1, said.total() + wanted.total())


def polite(response: str, answer: str) -> float:
    return 0.2 * sum(phrase in response.lower() for phrase in POLITE) + 0.4 * overlap(response, answer)


def test_free_text_of_nothing_but_the_words_of_the_source_is_a_fault() -> None:
    faulty, healthy = subject(polite, REPLIES), subject(overlap, REPLIES)
    assert faulty.tasks[0].type == "text" and "the" in healthy.source.texts
    assert any("of the reward's source" in found.title for found in degenerate(faulty).findings)
    assert not any("of the reward's source" in found.title for found in degenerate(healthy).findings)
