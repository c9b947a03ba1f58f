"""The geometry of the report's drawings: numbers in, coordinates out. The templates draw them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

PANEL_WIDTH, PANEL_HEIGHT = 232.0, 130.0
"""Of a curve, in CSS pixels. A page draws it at least this wide, so that its text is not smaller than its font size."""
PANEL_LEFT, PANEL_RIGHT, PANEL_TOP, PANEL_BOTTOM = 42.0, 8.0, 8.0, 20.0
PANEL_FRAME = 18.0
"""What the padding and border of a curve's frame take of the frame's width."""
ROW_HEIGHT, AXIS_HEIGHT = 28.0, 22.0
"""Of intervals under each other. Their places along the axis are per cent of its width, whatever that is."""
MOST_POINTS = 200
"""A curve with more steps is drawn as means of neighbouring steps."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """One metric over steps. `segments` are polylines, broken where the metric was not computed. `beside` is a second
    metric on the same axes, `marks` are steps to point at; `x_range` are the first and the last step of the axis."""

    title: str
    last: str
    segments: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    x_range: tuple[float, float]
    beside: Curve | None = None
    marks: tuple[Tick, ...] = ()


@dataclass(frozen=True)
class ForestRow:
    """A number with its interval: places along the axis in per cent, and the same in words."""

    name: str
    text: str
    low: float
    value: float
    high: float
    sure: bool
    best: bool


@dataclass(frozen=True)
class Forest:
    """Intervals under each other on one axis. `zero` is where 0 lies, if the axis is of differences."""

    rows: tuple[ForestRow, ...]
    ticks: tuple[Tick, ...]
    zero: float | None


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) inside [low, high]: the widest apart that give at least
    `count` - 1 of them, and at least 2."""
    if not low < high:
        return [low]
    unit = 10.0 ** math.floor(math.log10(high - low))
    ticks: list[float] = []
    for step in (unit, unit / 2, unit / 4, unit / 5, unit / 10):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        ticks = [i * step for i in range(first, last + 1)]
        if len(ticks) >= max(2, count - 1):
            break
    return ticks


def tick_text(value: float) -> str:
    """At most four significant digits; no `-0`."""
    return f"{value + 0.0:.4g}" if value else "0"


Series = tuple[str, Sequence[float], Sequence[float | None]]
"""The name of a metric, steps, and what it was at each."""


def curve(title: str, steps: Sequence[float], values: Sequence[float | None]) -> Curve | None:
    """The drawing of a metric over steps; None where it never was a finite number."""
    return next(_drawn([(title, steps, values)]), None)


def curves(one: Series, other: Series) -> Curve | None:
    """The drawing of two metrics on the same axes; None where one of them never was a finite number."""
    drawn = list(_drawn([one, other]))
    return replace(drawn[0], beside=drawn[1]) if len(drawn) == 2 else None


def _drawn(metrics: Sequence[Series]) -> Iterator[Curve]:
    """Each metric that was a finite number somewhere, on axes that hold all of them."""
    thinned = [
        (title, values, _thin([(s, _finite(v)) for s, v in zip(steps, values, strict=True)]))
        for title, steps, values in metrics
    ]
    found = [(title, values, points) for title, values, points in thinned if any(v is not None for _, v in points)]
    if not found:
        return
    ends = [s for _, steps, _ in metrics for s in (steps[0], steps[-1])]
    x_low, x_high = min(ends), max(max(ends), min(ends) + 1)
    y_low, y_high = _padded([v for _, _, points in found for _, v in points if v is not None])

    def place(step: float, value: float) -> tuple[float, float]:
        y = PANEL_TOP + (y_high - value) / (y_high - y_low) * (PANEL_HEIGHT - PANEL_TOP - PANEL_BOTTOM)
        return _across(step, x_low, x_high), round(y, 1)

    for title, values, points in found:
        runs: list[list[tuple[float, float]]] = [[]]
        for step, value in points:
            if value is None:
                runs.append([])
            else:
                runs[-1].append(place(step, value))
        yield Curve(
            title=title,
            last=tick_text(next(v for v in reversed(values) if v is not None and math.isfinite(v))),
            segments=tuple(" ".join(f"{x},{y}" for x, y in run) for run in runs if len(run) > 1),
            dots=tuple(run[0] for run in runs if len(run) == 1),
            y_ticks=tuple(Tick(place(x_low, v)[1], tick_text(v)) for v in nice_ticks(y_low, y_high, 3)),
            x_ticks=tuple(Tick(place(s, y_low)[0], tick_text(s)) for s in dict.fromkeys((min(ends), max(ends)))),
            x_range=(x_low, x_high),
        )


def marked(drawn: Curve, steps: Sequence[tuple[float, str]]) -> Curve:
    """The drawing with lines at steps, each with a text."""
    return replace(drawn, marks=tuple(Tick(_across(step, *drawn.x_range), text) for step, text in steps))


def _across(step: float, first: float, last: float) -> float:
    return round(PANEL_LEFT + (step - first) / (last - first) * (PANEL_WIDTH - PANEL_LEFT - PANEL_RIGHT), 1)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def forest(
    rows: Sequence[tuple[str, float, float, float, str]], differences: bool, best: str | None = None
) -> Forest | None:
    """The drawing of (name, value, low, high, words) rows; None without rows. With `differences` the axis shows 0, and
    a row is `sure` where its interval leaves 0 out. `best` is the name of the row that is marked."""
    if not rows:
        return None
    ends = [x for _, value, low, high, _ in rows for x in (value, low, high)] + ([0.0] if differences else [])
    axis_low, axis_high = _padded(ends)

    def place(value: float) -> float:
        return round(100 * (value - axis_low) / (axis_high - axis_low), 2)

    return Forest(
        rows=tuple(
            ForestRow(
                name,
                words,
                place(low),
                place(value),
                place(high),
                sure=not differences or low > 0 or high < 0,
                best=name == best,
            )
            for name, value, low, high, words in rows
        ),
        ticks=tuple(Tick(place(v), tick_text(v)) for v in nice_ticks(axis_low, axis_high, 5)),
        zero=place(0.0) if differences else None,
    )


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(low) * 0.1 or 0.5
    return low - room, high + room


def _thin(points: list[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most MOST_POINTS points: means over equal runs of neighbours, ignoring what was not computed."""
    width = math.ceil(len(points) / MOST_POINTS)
    if width <= 1:
        return points
    out: list[tuple[float, float | None]] = []
    for i in range(0, len(points), width):
        part = points[i : i + width]
        known = [v for _, v in part if v is not None]
        out.append((part[len(part) // 2][0], sum(known) / len(known) if known else None))
    return out
