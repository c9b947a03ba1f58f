"""Plain data with exact types as JSON text, for values that cross between processes that do not trust each other.

None, bool, float, str and small int are themselves; everything else is a list that begins with the name of its type:
`["int", hex]`, `["list", [...]]`, `["dict", [[key, value], ...]]`. Only exact types cross: an object of a subclass,
whose methods may lie, does not. `encode` writes text, `decode` reads what a JSON parser made of it.
"""

from __future__ import annotations

from _json import encode_basestring_ascii
from collections.abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

quote = encode_basestring_ascii

SMALL = 1 << 53
"""Integers up to here are written as JSON numbers."""


class NotPlain(Exception):
    """A value is not plain data; the message names its type."""


def encode(value: Any) -> str:
    """Raises NotPlain; RecursionError where values are nested too deeply or in a circle."""
    kind = type(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value) if -SMALL < value < SMALL else f'["int","{value:x}"]'
    if kind is float:
        return _number(value)
    if kind is str:
        return quote(value)
    if kind is bytes:
        return f'["bytes","{value.hex()}"]'
    if kind is complex:
        return f'["complex",{_number(value.real)},{_number(value.imag)}]'
    if kind is dict:
        return '["dict",[' + ",".join([f"[{encode(k)},{encode(v)}]" for k, v in value.items()]) + "]]"
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return f'["{kind.__name__}",[{_items(value)}]]'
    raise NotPlain(kind.__name__)


def decode(tree: Any) -> Any:
    """The value of a parsed text. Raises NotPlain for what `encode` does not write."""
    if type(tree) is not list:
        return tree
    match tree:
        case ["int", str(digits)]:
            return int(digits, 16)
        case ["bytes", str(digits)]:
            return bytes.fromhex(digits)
        case ["complex", float(real), float(imaginary)]:
            return complex(real, imaginary)
        case ["dict", list(pairs)]:
            return {decode(key): decode(value) for key, value in pairs}
        case ["list", list(items)]:
            return [decode(item) for item in items]
        case ["tuple", list(items)]:
            return tuple([decode(item) for item in items])
        case ["set", list(items)]:
            return {decode(item) for item in items}
        case ["frozenset", list(items)]:
            return frozenset([decode(item) for item in items])
    raise NotPlain(f"a list that begins with {str(tree[:1])[:40]}")


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    return {"inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value))


def _items(values: Iterable[Any]) -> str:
    return ",".join([encode(value) for value in values])
