"""The HTML report: self-contained, escaped, complete, and drawn to scale."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from posttrain.evals.compare import compare
from posttrain.report.charts import (
    PANEL_FRAME,
    PANEL_LEFT,
    PANEL_RIGHT,
    PANEL_WIDTH,
    curve,
    curves,
    forest,
    nice_ticks,
)
from posttrain.report.html import write_report
from posttrain.types import InputError
from posttrain.wording import described

EVIL = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta"}
ANSWER = {"step": 5, "task": "t2", "index": 0, "excerpt": "42"}


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
    assert "rl is best: accuracy 100.0%, +75.0 points over start [75.0, 75.0], and ahead of sft by 50.0" in page.text
    assert "sft: accuracy +25.0 points over start [25.0, 25.0]" in page.text
    for heading in ("Results", "Retention", "Cost", "Training", "Samples", "Settings and lineage", "Accuracy by stage"):
        assert heading in page.text
    for shown in ("50.0 [50.0, 50.0]", "12.3k", "170T", "learning_rate: 2e-5", "question 7", "knowledge %", "61"):
        assert shown in page.text, shown
    curves = 3 * 2  # loss and entropy of three runs; reward was never computed
    intervals = 3 + 3 + 2  # of three stages; three differences; the retention of two
    assert page.count("svg") == curves + intervals + 3 + 1  # three axes, and the mark of the best stage


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
    for shown in ("in 30 steps", "61 s", "170 TFLOP, 12.3k tokens", "resumed_from 10", "step 0, r0", "step 19, r19"):
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
    assert b.high - b.low == pytest.approx(6 * unit, abs=0.2)
    assert all(0 < x < 100 for row in drawn.rows for x in (row.low, row.value, row.high))
    assert (a.sure, b.sure) == (True, False)
    assert [row.best for row in drawn.rows] == [False, False]
    assert forest([], differences=True) is None
    without_zero = forest([("a", 2.0, 2.0, 2.0, "two")], differences=False)
    assert without_zero is not None and without_zero.zero is None


# -- how it reads -----------------------------------------------------------------------------------------------------


def test_the_winner_is_marked_in_words_and_by_shape(pipeline: Path) -> None:
    source, page = read(pipeline)
    assert '<tr class="best"><th scope="row">rl <span class="badge">★ best</span></th>' in source
    assert '<span class="name best">rl <span class="badge">★ best</span></span>' in source
    assert page.count("path") == 1  # a diamond where the others have circles
    assert page.text.count("★ best") == 2 and "No winner is marked" not in page.text


def test_no_line_ends_inside_an_interval(pipeline: Path) -> None:
    source, _ = read(pipeline)
    assert 'over start <span class="whole">[75.0, 75.0]</span>, and ahead' in source


def test_headings_are_in_order_and_drawings_have_words(pipeline: Path) -> None:
    for folder in (pipeline, pipeline / "rl"):
        source, page = read(folder)
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
        assert source.index("<h1>") < source.index('class="lead"') < source.index("<h2>")
        for tag, attrs in page.tags:
            if tag == "svg" and "overflow" not in attrs:  # a mark inside a drawing
                assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
            if attrs.get("class") == "scroll":
                assert attrs["tabindex"] == "0" and attrs["aria-label"]
            if attrs.get("class") == "forest":
                assert attrs["aria-label"]


def test_text_in_drawings_is_never_below_11_pixels(pipeline: Path) -> None:
    """A curve is scaled by its width over PANEL_WIDTH, so its narrowest frame must leave that much inside; drawings of
    intervals have no viewBox and are not scaled."""
    source, page = read(pipeline)
    (narrowest,) = re.findall(r"minmax\(min\(100%, ([0-9.]+)px\), 1fr\)\); gap: .75rem; }\nfigure ", source)
    (padding,) = re.findall(r"figure { margin: 0; padding: [.0-9]+rem ([.0-9]+)rem", source)
    assert float(padding) * 2 * 16 + 2 == PANEL_FRAME  # two paddings and two borders
    phone = 360 - 2 * 16  # what the page's own margin leaves of a narrow one
    assert min(float(narrowest), phone) - PANEL_FRAME >= PANEL_WIDTH
    sizes = re.findall(r"svg (?:text|\.axis) {[^}]*?([0-9.]+)px", source)
    assert len(sizes) == 2 and all(float(size) >= 11 for size in sizes)
    scaled = [attrs for tag, attrs in page.tags if tag == "svg" and "viewbox" in attrs]
    assert len(scaled) == 6 and all(attrs["viewbox"] == f"0 0 {PANEL_WIDTH} 130.0" for attrs in scaled)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_stand_out_from_the_page(tmp_path: Path) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what is drawn, on both backgrounds, in light and in dark."""
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    themes = re.findall(r":root {([^}]*)}", read(tmp_path)[0])
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", theme))
        for name, least in (("ink", 4.5), ("soft", 4.5), ("mark", 4.5), ("good", 4.5), ("bad", 4.5), ("off", 3)):
            for ground in ("page", "panel"):
                high, low = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= least, (name, ground)


def test_evaluations_every_few_steps_are_one_line(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"step": s, "loss": 1.0, **({"eval/loss": 1 / s} if s % 5 == 0 else {})} for s in range(1, 16)
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    source, page = read(tmp_path)
    assert page.count("circle") == 0
    assert any(len(points.split()) == 3 for points in re.findall(r'points="([^"]*)"', source))


def test_the_sealed_reward_is_drawn_beside_the_reward(tmp_path: Path) -> None:
    """On one axis where both lie in [0, 1], else in a panel of its own; a newcomer is told what is seen."""
    rows = [{"step": s, "reward": s / 10, "sealed_reward": 0.1, "sealed_gap": s / 10 - 0.1} for s in range(1, 11)]
    write_lines(tmp_path / "run" / "metrics.jsonl", [*rows])
    write_lines(tmp_path / "large" / "metrics.jsonl", [{**row, "reward": 10 * row["reward"]} for row in rows])
    source, page = read(tmp_path / "run")
    assert "sealed_reward, dashed" in page.text and source.count('class="line beside"') == 1
    assert "a second grader that the training never sees" in page.text
    assert page.count("svg") == 2  # the two rewards together, and the gap
    (label,) = [a["aria-label"] for t, a in page.tags if t == "svg" and "and" in str(a["aria-label"])]
    assert label == "reward over steps, last 1, and sealed_reward, last 0.1"
    source, page = read(tmp_path / "large")
    assert "dashed" not in page.text and 'class="line beside"' not in source and page.count("svg") == 3


def test_two_metrics_share_their_axes() -> None:
    drawn = curves(("a", [1, 2], [0.0, 1.0]), ("b", [1, 3], [0.5, 0.5]))
    assert drawn is not None and drawn.beside is not None
    assert (drawn.y_ticks, drawn.x_ticks) == (drawn.beside.y_ticks, drawn.beside.x_ticks)
    low, high = (float(point.split(",")[1]) for point in drawn.segments[0].split())
    (level,) = {float(point.split(",")[1]) for point in drawn.beside.segments[0].split()}
    assert level == pytest.approx((low + high) / 2, abs=0.1)
    assert curves(("a", [1], [0.0]), ("b", [1], [None])) is None


def test_a_control_is_called_one_and_its_reward_is_drawn(tmp_path: Path) -> None:
    """The sealed reward stands beside what the reward would have paid."""
    rows = [{"step": s, "reward": 0.5, "reward/true": s / 10, "sealed_reward": 0.1} for s in range(1, 11)]
    write_lines(tmp_path / "metrics.jsonl", [*rows])
    (tmp_path / "config.yaml").write_text("algorithm: grpo\nmodel: m\ncontrol: coin\n")
    _, page = read(tmp_path)
    assert "GRPO, paid by coin in place of its reward, from m" in page.text
    labels = [str(attrs["aria-label"]) for tag, attrs in page.tags if tag == "svg"]
    assert labels == ["reward over steps, last 0.5", "reward/true over steps, last 1, and sealed_reward, last 0.1"]
    assert "This run is a control" in page.text


def test_alarms_are_explained_and_marked(tmp_path: Path) -> None:
    """With the worst answers, escaped; an event of a user's own that is called so stays among the events."""
    write_lines(tmp_path / "metrics.jsonl", [{"step": s, "reward": s / 10, "loss": 1.0} for s in range(1, 12)])
    worst = [{"step": 6, "task": "t1", "index": 2, "excerpt": EVIL}, {**ANSWER, "note": "timed out"}]
    alarm = {"event": "alarm", "monitor": "M1", "step": 6, "value": 0.4612, "threshold": 0.12, "action": "pause"}
    own = {"event": "alarm", "step": 3, "action": "warn", "reason": "my own"}
    raised = {**alarm, "reason": "the grader rejects it", "worst": [*worst, {**ANSWER, "excerpt": "4\u202e2"}]}
    write_lines(tmp_path / "events.jsonl", [own, raised, raised])  # of a run that was killed, and went on
    _, page = read(tmp_path)
    assert r"4\u202e2" in page.text and "\u202e" not in page.text
    assert "Step 6: M1" in page.text and EVIL in page.text and "timed out" in page.text
    assert "The grader rejects it.\nMeasured: 0.461; limit: 0.12. The run paused." in page.text
    assert "Alarms of monitors: M1 at step 6; see Alarms below" in page.text
    assert "step 3, action warn, reason my own" in page.text
    (line,) = [attrs for tag, attrs in page.tags if attrs.get("class") == "alarm"]  # not beside the loss
    middle = PANEL_LEFT + (PANEL_WIDTH - PANEL_LEFT - PANEL_RIGHT) / 2
    assert float(str(line["x1"])) == float(str(line["x2"])) == pytest.approx(middle)
    (label,) = [str(a["aria-label"]) for t, a in page.tags if t == "svg" and "alarm" in str(a["aria-label"])]
    assert label == "reward over steps, last 1.1; lines show alarms of M1"


def test_a_damaged_alarm_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "reward": 0.5}])
    write_lines(tmp_path / "events.jsonl", [{"event": "alarm", "monitor": "M1", "step": "x"}])
    with pytest.raises(InputError, match=r"events.jsonl: damaged, step: "):
        write_report(tmp_path)
