"""The HTML report: self-contained, escaped, complete, and drawn to scale."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from posttrain.evals.compare import compare
from posttrain.report.charts import PANEL_LEFT, PANEL_RIGHT, PANEL_WIDTH, curve, forest, nice_ticks
from posttrain.report.html import write_report
from posttrain.types import InputError
from posttrain.wording import described

EVIL = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta"}


class Page(HTMLParser):
    """Collects text and attributes, and checks that tags nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(t == tag for t, _ in self.tags)


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(folder: Path, accuracy: float) -> Path:
    """Evaluated on 12 tasks, the first ones with a text that must be escaped; trained for 30 steps."""
    held_out: list[dict[str, object]] = [
        {
            "task": f"task-{i}",
            "prompt": f"question {i}",
            "values": {"accuracy": accuracy, "greedy": None, "response_length": 4.0 + i},
            "samples": [{"text": f"{EVIL} {accuracy}", "score": float(i == 7 and accuracy == 1)}],
        }
        for i in range(12)
    ]
    write_lines(folder / "evaluations" / "held_out.jsonl", held_out)
    (folder / "evaluations" / "held_out.json").write_text('{"suite": "held_out", "settings": {"samples": 4}}')
    write_lines(
        folder / "evaluations" / "retention.jsonl",
        [{"task": f"k{i}", "values": {"knowledge": float(i < 6 + 6 * accuracy)}, "samples": []} for i in range(12)],
    )
    write_lines(
        folder / "metrics.jsonl",
        [{"step": s, "loss": 1 / s, "reward": None, "entropy": s if s % 7 else None, "odd": s} for s in range(1, 31)],
    )
    write_lines(folder / "events.jsonl", [{"event": "resumed_from", "resumed_from": 10}])
    write_lines(
        folder / "rollouts.jsonl", [{"step": s, "task": f"r{s}", "text": EVIL, "score": None} for s in range(20)]
    )
    (folder / "config.yaml").write_text(f"model: {EVIL}\nlearning_rate: 2e-5\n")
    (folder / "lineage.json").write_text('{"parents": ["start"]}')
    (folder / "cost.json").write_text('{"seconds": 61.0, "tokens": 12345, "flops": 1.7e14}')
    return folder


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    runs = {name: write_run(tmp_path / name, x) for name, x in (("start", 0.25), ("sft", 0.5), ("rl", 1.0))}
    compare(runs, {"start": None, "sft": "start", "rl": "sft"}, tmp_path)
    return tmp_path


def read(folder: Path) -> tuple[str, Page]:
    out = write_report(folder)
    assert out == folder / "report.html"
    source = out.read_text(encoding="utf-8")
    return source, Page(source)


def test_a_pipeline_page_has_every_section(pipeline: Path) -> None:
    _, page = read(pipeline)
    assert "sft: accuracy +25.0 points over start [25.0, 25.0]" in page.text
    for heading in ("Results", "Retention", "Cost", "Training", "Samples", "Settings and lineage", "Accuracy by stage"):
        assert heading in page.text
    for shown in ("50.0 [50.0, 50.0]", "12.3k", "170T", "learning_rate: 2e-5", "question 7", "knowledge %", "61"):
        assert shown in page.text, shown
    assert page.count("svg") == 3 + 3 * 2  # three forests; loss and entropy of three runs; reward was never computed
    assert page.count("circle") >= 3 + 3 + 2


def test_pages_load_nothing_from_elsewhere(pipeline: Path) -> None:
    for folder in (pipeline, pipeline / "rl"):
        source, page = read(folder)
        assert "://" not in source and "@import" not in source and "url(" not in source
        assert not {"script", "link", "img", "iframe", "object"} & {t for t, _ in page.tags}
        assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "href") or a.startswith("on")]


def test_text_is_escaped(pipeline: Path) -> None:
    for folder in (pipeline, pipeline / "rl"):
        source, page = read(folder)
        assert "<script" not in source
        assert EVIL in page.text  # and nothing of it is lost


def test_samples_start_with_tasks_on_which_stages_differ(pipeline: Path) -> None:
    _, page = read(pipeline)
    order = [int(n) for n in re.findall(r"task-(\d+)", page.text)]
    assert order == [7, 0, 1, 2, 3, 4]


def test_a_run_page_has_curves_events_and_rollouts(pipeline: Path) -> None:
    _, page = read(pipeline / "sft")
    for shown in ("30 steps, 61 seconds, 12.3k tokens, 170T FLOPs", "resumed_from 10", "step 0, r0", "step 19, r19"):
        assert shown in page.text, shown
    assert "step 10, r10" not in page.text
    assert "not scored" in page.text
    assert "held_out/accuracy" in page.text
    assert page.count("svg") == 3  # loss, entropy, and odd among the other metrics


def test_a_run_without_most_files_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    _, page = read(tmp_path)
    assert "no training steps" in page.text and "seed: 3" in page.text


def test_what_was_measured_beside_tasks_is_on_the_page(tmp_path: Path) -> None:
    """A reward model's numbers on held-out pairs, those in lists too, and those of adversarial rounds."""
    (tmp_path / "evaluations").mkdir()
    share = {"value": 0.75, "low": 0.301, "high": 0.954, "n": 4}
    numbers = {"accuracy": share, "length": {"score": None}, "curve": [{"n": 1, "own": 0.1234}]}
    (tmp_path / "evaluations" / "reward_model.json").write_text(json.dumps(numbers))
    (tmp_path / "adversarial.json").write_text(json.dumps({"gold": {"gain": share}}))
    assert list(described(numbers)) == [
        ("accuracy", "0.75 [0.301, 0.954], n=4"),
        ("length.score", "–"),
        ("curve.0.n", "1"),
        ("curve.0.own", "0.123"),
    ]
    assert [name for name, _ in described(numbers, lists=False)] == ["accuracy", "length.score"]
    page = write_report(tmp_path).read_text()
    for text in ("<h2>reward model</h2>", "<td>curve.0.own</td>", "<h2>adversarial</h2>", "<td>gold.gain</td>"):
        assert text in page


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.5)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        with (tmp_path / "run" / name).open("a") as stream:
            stream.write('{"step": 31, "lo')
    _, page = read(tmp_path / "run")
    assert "30 steps" in page.text and "step 19, r19" in page.text


def test_runs_elsewhere_are_found(tmp_path: Path) -> None:
    """What `posttrain compare` writes: names that are not folders beside the page."""
    run = write_run(tmp_path / "far" / "run", 0.5)
    out = tmp_path / "out"
    compare({"x/run": run}, {"x/run": None}, out)
    (out / "runs.json").write_text('{"x/run": "../far/run"}')
    assert "question 0" in read(out)[1].text


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(InputError, match=r"not a run folder.*compare\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- drawings ---------------------------------------------------------------------------------------------------------


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0, 1, 4) == [0, 0.5, 1]
    assert nice_ticks(-3, 27, 4) == [0, 10, 20]
    assert nice_ticks(0.31, 0.62, 3) == pytest.approx([0.4, 0.5, 0.6])
    assert nice_ticks(5, 5) == [5]


def test_a_curve_breaks_where_nothing_was_computed() -> None:
    drawn = curve("loss", [1, 2, 3, 4, 5, 6], [1.0, 2.0, None, 4.0, float("nan"), 2.0])
    assert drawn is not None
    assert len(drawn.segments) == 1 and len(drawn.dots) == 2  # 1-2, 4 alone, 6 alone
    assert drawn.last == "2"
    first = [float(p.split(",")[0]) for p in drawn.segments[0].split()]
    assert first[0] == PANEL_LEFT
    assert drawn.dots[-1][0] == PANEL_WIDTH - PANEL_RIGHT
    assert curve("kl", [1, 2], [None, None]) is None


def test_a_larger_value_is_drawn_higher() -> None:
    drawn = curve("reward", [1, 2], [0.0, 1.0])
    assert drawn is not None
    low, high = (float(p.split(",")[1]) for p in drawn.segments[0].split())
    assert high < low


def test_a_long_curve_is_thinned_by_means() -> None:
    drawn = curve("loss", list(range(1, 1001)), [float(i % 2) for i in range(1000)])
    assert drawn is not None
    assert len(drawn.segments[0].split()) == 200
    assert curve("one", [1], [3.0]) is not None


def test_a_forest_is_to_scale() -> None:
    drawn = forest([("a", 2.0, 1.0, 3.0, "two"), ("b", -1.0, -4.0, 2.0, "minus one")], differences=True)
    assert drawn is not None and drawn.zero is not None
    a, b = drawn.rows
    unit = a.value - a.low
    assert a.high - a.value == pytest.approx(unit, abs=0.2)
    assert a.low - drawn.zero == pytest.approx(unit, abs=0.2)
    assert b.high - b.low == pytest.approx(6 * unit, abs=1)
    assert (a.sure, b.sure) == (True, False)
    assert forest([], differences=True) is None
    without_zero = forest([("a", 2.0, 2.0, 2.0, "two")], differences=False)
    assert without_zero is not None and without_zero.zero is None
