"""Texts that break graders: numbers that no machine can hold, nesting, repetition, unfinished and foreign signs."""

from __future__ import annotations

from collections.abc import Mapping

MEGABYTE = 1 << 20
LONG, ENDLESS = 4000, 100_000
"""Characters of a text on which a reward may raise, and of one that is longer than any response a model may write."""
CONTROLS = "".join(map(chr, [*range(32), 127, 0x85, 0x2028, 0xFEFF]))

SHORT: Mapping[str, str] = {
    "None as text": "None",
    "null": "null",
    "not a number": "nan",
    "infinity": "inf",
    "a number beyond floats": "1e999",
    "an exponent of ten digits": "1e1000000000",
    "a division by zero": "1/0",
    "zero to the power of -1": "0^{-1}",
    "a NUL": "\0",
    "control characters": CONTROLS,
    "text from right to left": "\u202e42\u202c \u05d0\u0661\u0662",
    "digits of other scripts": "\u0664\u0662 \u00b2 \u2460 \uff14",
    "joined emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 20,
    "a letter with a thousand accents": "a" + "\u0301" * 1000,
    "characters that are none": "\ufffd\ufdd0\uffff\U0010ffff",
    "wrong escapes": r"\x4 \u12 \q \N{none} \8",
    "signs of formatting": "%s %n %(a)s {0} {} {a.b} ${x}",
    "an open box": "\\boxed{",
    "a closed box": "}",
    "an open tag": "<answer>",
    "an open thought": "<think>",
    "an open fence": "```python\n",
    "an open object": '{"a": [',
    "an open string": '"\\u12',
    "a broken pattern": "(?P<a>[*+\\",
    "a broken formula": "\\frac{1}{",
    "brackets the wrong way": ")x(",
    "a date that is none": "2023-02-30T25:61",
}
REPEATED: Mapping[str, str] = {
    "a number of 5000 digits": "9" * 5000,
    "2000 brackets": "(" * 1000 + ")" * 1000,
    "200 nested fractions": "\\frac{1}{" * 200 + "2" + "}" * 200,
    "5000 signs in a row": "-" * 5000 + "1",
    "1000 boxes": "\\boxed{zzqx}" * 1000,
    "1000 tags": "<answer>zzqx</answer>" * 1000,
    "1000 answer lines": "Answer: zzqx\n" * 1000,
    "1000 open boxes": "\\boxed{" * 1000,
    "1000 open thoughts": "<think>" * 1000,
    "1000 fences": "```\n" * 1000,
    "repetition for patterns that look back": "a" * 40 + "!" + "0" * 40 + "x",
    "2000 words that nearly match": "aA1 " * 2000 + "!",
    "blanks without an end": "x" + " " * 8000 + "x",
    "lines without an end": "\n" * 8000 + "x",
    "commas without an end": "1," * 4000 + "x",
    "100000 brackets": "[" * ENDLESS,
    "a megabyte of one letter": "a" * MEGABYTE,
    "a megabyte of digits": "7" * MEGABYTE,
    "a megabyte of lines": "zzqx\n" * (MEGABYTE // 5),
}
COMPUTED: Mapping[str, str] = {
    "a tower of powers": "9**9**9",
    "a tower of powers with carets": "9^9^9^9",
    "a tower of powers in braces": "10^{10^{10^{10}}}",
    "a factorial without an end": "(10^8)!",
    "a sum without an end": "sum(range(10**12))",
    "a wait": "__import__('time').sleep(60)",
    "a call that ends the process": "__import__('os')._exit(0)",
}
"""Whoever computes these never ends, or ends at once; programs may."""
