"""Writes the data files of the examples, the same ones every time.

    python examples/data/make.py

What people wrote is in the .txt files, a row a line with its parts between bars; the rest is made of it, or of numbers
drawn from a seed, by the modules beside this one. Rows that are held out share no prompt with those that train.
"""

from __future__ import annotations

import json
from pathlib import Path

import make_code
import make_shop
import make_sums
import make_text

HERE = Path(__file__).parent


def files() -> dict[str, str]:
    """The text of each file by its name."""
    rows = {**make_text.files(HERE), **make_sums.files(), **make_code.files(), **make_shop.files()}
    return {name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[name]) for name in rows}


def main() -> None:
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.splitlines())} rows")


if __name__ == "__main__":
    main()
