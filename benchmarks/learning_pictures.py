"""Curves over steps as an SVG picture that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from posttrain.report.charts import nice_ticks, tick_text

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 44, 44


@dataclass(frozen=True)
class Line:
    """Values of steps 1, 2, …; a line without a name is not in the legend."""

    values: Sequence[float]
    colour: str
    name: str = ""
    thin: bool = False
    dashed: bool = False


def panel(title: str, lines: Sequence[Line]) -> str:
    """All lines on one pair of axes."""
    values = [v for line in lines for v in line.values]
    room = 0.06 * (max(values) - min(values)) or 0.5
    low, high = min(values) - room, max(values) + room
    steps = max(len(line.values) for line in lines)

    def x(step: float) -> float:
        return LEFT + (step - 1) / max(1, steps - 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="600" fill="#111827">{escape(title)}</text>',
    ]
    for tick in nice_ticks(low, high, 5):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#4b5563">{tick_text(tick)}</text>'
        )
    under = HEIGHT - BOTTOM + 18
    parts += [
        f'<text x="{x(tick):.1f}" y="{under}" text-anchor="middle" fill="#4b5563">{tick_text(tick)}</text>'
        for tick in sorted({1.0, *(t for t in nice_ticks(1, steps, 4) if t == int(t))})
    ]
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end" fill="#4b5563">step</text>')
    parts += [_curve(line, [(x(i), y(v)) for i, v in enumerate(line.values, start=1)]) for line in lines]
    parts += _legend([line for line in lines if line.name])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _curve(line: Line, points: Sequence[tuple[float, float]]) -> str:
    style = 'stroke-width="1" stroke-opacity="0.3"' if line.thin else 'stroke-width="2.5"'
    dashes = ' stroke-dasharray="7 5"' if line.dashed else ""
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline fill="none" stroke="{line.colour}" {style}{dashes} points="{path}"/>'


def _legend(lines: Sequence[Line]) -> list[str]:
    parts, left = [], float(LEFT)
    for line in lines:
        parts.append(_curve(line, [(left, 34), (left + 24, 34)]))
        parts.append(f'<text x="{left + 30:.0f}" y="38" fill="#111827">{escape(line.name)}</text>')
        left += 48 + 7.2 * len(line.name)
    return parts
