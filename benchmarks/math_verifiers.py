"""The `math` reward beside plain math-verify and reasoning-gym's default scorer, on the tables in tests/data.

    python benchmarks/math_verifiers.py            # rewrites the figures in docs/math.md
    python benchmarks/math_verifiers.py --print    # prints them only

Every verifier runs as a reward of a worker process with a deadline a row; what fails or is late gives no reward.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.rewards.scorer import Scorer
from posttrain.types import Message, Sample

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "docs" / "math.md"
START, END = "<!-- figures: python benchmarks/math_verifiers.py -->\n", "<!-- end of figures -->\n"
DEADLINE_SECONDS = 15.0
VERIFIERS = {
    "math": "math",
    "math, lenient": f"{__file__}:lenient_math",
    "math-verify": f"{__file__}:math_verify",
    "reasoning-gym": f"{__file__}:default_reasoning_gym",
}


def lenient_math(response: str, answer: str, prompt: str) -> float | None:
    """Our reward, taking the last of several answers."""
    from posttrain.rewards.math.reward import math

    return math(response, answer, prompt=prompt, lenient=True)


def math_verify(response: str, answer: str) -> float:
    """math-verify as its README uses it, reference first; a reference without delimiters gets dollar signs."""
    from math_verify import parse, verify

    delimited = "$" in answer or "\\boxed" in answer or "\\(" in answer
    return float(verify(parse(answer if delimited else f"${answer}$"), parse(response)))


def default_reasoning_gym(response: str, answer: str) -> float:
    """reasoning-gym's `ProceduralDataset.score_answer`, which most of its tasks inherit, given what stands in its tag
    or in the last box, so that the mark itself costs nothing."""
    from reasoning_gym.dataset import ProceduralDataset

    from posttrain.rewards.extract import answer_tags, boxes

    marked = answer_tags(response) or boxes(response) or [response]
    return float(ProceduralDataset.score_answer(None, marked[-1], {"answer": answer.strip("$")}))  # type: ignore[arg-type]


def table(name: str) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [json.loads(line) for line in (ROOT / "tests/data" / f"math_{name}.jsonl").read_text("utf-8").splitlines()]


def rewards(target: str, rows: Sequence[dict[str, Any]]) -> list[float | None]:
    """The reward of each row, None where the verifier failed or was late."""
    samples = [
        Sample(row.get("prompt", ""), (Message("assistant", row["response"]),), (), {"answer": row["gold"]})
        for row in rows
    ]
    with Scorer([target], columns=["answer"], timeout_seconds=DEADLINE_SECONDS, workers=1) as scorer:
        return [score.total for score in scorer.score(samples)]


def figures() -> str:
    """Markdown tables: all rows, then true and false positives by kind."""
    equivalent, wrong = table("equivalent"), table("wrong")
    right = {name: rewards(target, equivalent) for name, target in VERIFIERS.items()}
    paid = {name: rewards(target, wrong) for name, target in VERIFIERS.items()}
    public = [sum(row["source"] != "own" for row in rows) for rows in (equivalent, wrong)]
    lines = [
        f"{len(equivalent)} right answers ({public[0]} public) and {len(wrong)} wrong ones ({public[1]} public).",
        "",
        "| | true positives % | false positives % | mean reward of the right | of the wrong | no verdict |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in VERIFIERS:
        good, bad = right[name], paid[name]
        lines.append(
            f"| {name} | {percent(good)} | {percent(bad)} | {mean(good):.3f} | {mean(bad):.3f} | "
            f"{(good + bad).count(None)} |"
        )
    for title, rows, scores in (("Right answers", equivalent, right), ("Wrong answers", wrong, paid)):
        lines += ["", f"{title} that get full marks, by kind:", "", f"| kind | rows | {' | '.join(VERIFIERS)} |"]
        lines.append("| --- " * (len(VERIFIERS) + 2) + "|")
        for kind in sorted({row["kind"] for row in rows}):
            at = [i for i, row in enumerate(rows) if row["kind"] == kind]
            counts = [sum(full(scores[name][i]) for i in at) for name in VERIFIERS]
            lines.append(f"| {kind} | {len(at)} | {' | '.join(map(str, counts))} |")
    missed = [row for row, score in zip(equivalent, right["math"], strict=True) if not full(score)]
    lines += ["", "Right answers that `math` refuses: "]
    lines[-1] += "; ".join(f"`{row['response']}` for `{row['gold']}`" for row in missed) + "." if missed else "none."
    return "\n".join(lines) + "\n"


def full(score: float | None) -> bool:
    """Full marks."""
    return score is not None and score >= 1 - 1e-9


def percent(scores: Sequence[float | None]) -> str:
    """The share of full marks."""
    return f"{100 * sum(map(full, scores)) / len(scores):.1f}"


def mean(scores: Sequence[float | None]) -> float:
    """The mean reward, no verdict counting as 0."""
    return sum(score or 0.0 for score in scores) / len(scores)


def main() -> None:
    """Print the figures, or write them to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the figures and leave the page alone")
    only_print = parser.parse_args().print
    found = figures()
    if only_print:
        print(found)
        return
    page = DOC.read_text(encoding="utf-8")
    replaced = re.sub(
        re.escape(START) + ".*" + re.escape(END), lambda _: START + "\n" + found + "\n" + END, page, flags=re.S
    )
    DOC.write_text(replaced, encoding="utf-8")


if __name__ == "__main__":
    main()
