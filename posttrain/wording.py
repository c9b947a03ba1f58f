"""How numbers are written for people: rounded, with their units and intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from posttrain.stats import Estimate

TOO_FEW = "too few tasks"


ROUNDING = 1e-12
"""Numbers below are differences of sums that should be equal."""


def format_number(value: float, share: bool) -> str:
    """45.1 for the share 0.451 (per cent), else about three significant digits."""
    if share:
        return f"{100 * value:.1f}"
    if abs(value) < ROUNDING:
        return "0"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_estimate(estimate: Estimate | None, share: bool) -> str:
    """`45.1 [41.0, 49.2]`, or a dash where nothing was scored."""
    if estimate is None or estimate["value"] is None:
        return "–"
    return f"{format_number(estimate['value'], share)} {format_interval(estimate['low'], estimate['high'], share)}"


def format_interval(low: float | None, high: float | None, share: bool) -> str:
    """`[41.0, 49.2]`, or why there is no interval."""
    if low is None or high is None:
        return f"[{TOO_FEW}]"
    return f"[{format_number(low, share)}, {format_number(high, share)}]"


def format_bytes(size: float) -> str:
    """`137 GB` or `3.82 MB`, of 10^9 and 10^6 bytes."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def format_quantity(value: float) -> str:
    """A count with a suffix: 950, 12.3k, 4.5M, 6.7G, 8.9T, 1.2P, 3.4E."""
    for suffix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5:
            return f"{value:.3g}{suffix}"
        value /= 1000
    return f"{value:.3g}E"


def described(numbers: Any, name: str = "", *, lists: bool = True) -> Iterator[tuple[str, str]]:
    """(name, words) of everything in nested mappings, and in lists if wanted: `length.score`, `curve.0.own`. An
    estimate is one number with its interval."""
    if isinstance(numbers, Mapping) and numbers.keys() == Estimate.__annotations__.keys():
        yield name, f"{format_estimate(cast(Estimate, numbers), share=False)}, n={numbers['n']}"
    elif isinstance(numbers, Mapping):
        for key, value in numbers.items():
            yield from described(value, f"{name}.{key}" if name else str(key), lists=lists)
    elif isinstance(numbers, Sequence) and not isinstance(numbers, str):
        for i, value in enumerate(numbers if lists else ()):
            yield from described(value, f"{name}.{i}", lists=lists)
    else:
        yield name, "–" if numbers is None else str(numbers) if isinstance(numbers, str | int) else f"{numbers:.3g}"
