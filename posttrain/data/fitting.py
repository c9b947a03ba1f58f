"""Rows that do not fit: right ones that are too long for a run, in a way that no cut mends.

They are left out, counted and named; with `--strict` the run ends before it has begun. A row that is wrong is an
InputError always. Every method has a function that makes one row ready and raises `DoesNotFit`; `fit` goes over the
rows of a source with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from posttrain.types import InputError

Row = TypeVar("Row")
Item = TypeVar("Item")
SHOWN = 3
"""Rows that are named where not all are."""
LISTED = 20
"""Rows that `--strict` names, a line each."""


class DoesNotFit(InputError):
    """A row at `where` that is right and does not fit, for a `reason`; `advice` says what the user can do."""

    def __init__(self, where: str, reason: str, advice: str) -> None:
        super().__init__(f"{where}: {reason}; {advice}")
        self.where = where
        self.reason = reason
        self.advice = advice


@dataclass(frozen=True)
class Limit:
    """The longest row in tokens: `--max-length`, or the model's context where that is shorter. `text` says which, and
    `advice` what can be done about a row that is longer."""

    tokens: int
    text: str
    advice: str

    @staticmethod
    def of(max_length: int, context: int) -> Limit:
        if max_length < context:
            return Limit(max_length, f"--max-length is {max_length}", "raise --max-length or shorten the prompt")
        return Limit(context, f"the model's context is {context}", "shorten the prompt")


@dataclass(frozen=True)
class Fitted(Generic[Item]):
    """What has become of `rows` rows: `kept`, the items made of those that fit, in order; how many of these were `cut`,
    and where the first of them stands; and those that were `left_out`."""

    rows: int
    kept: list[Item]
    cut: int
    left_out: tuple[DoesNotFit, ...]
    first_cut: str | None = None

    @property
    def fitting(self) -> int:
        """Rows that fit."""
        return self.rows - len(self.left_out)

    def checked(self, source: str, strict: bool) -> list[Item]:
        """`kept`. Raises InputError where no row of the `source` fits, and with `strict` where one does not, naming the
        first of them."""
        if self.left_out and strict:
            lines = "".join(f"\n  {row.where}: {row.reason}" for row in self.left_out[:LISTED])
            if (more := len(self.left_out) - LISTED) > 0:
                lines += f"\n  and {more} more"
            raise InputError(
                f"{source}: {len(self.left_out)} of {self.rows} rows do not fit, and --strict leaves none out; "
                f"{self.left_out[0].advice}:{lines}"
            )
        if self.left_out and not self.fitting:
            raise InputError(f"{source}: none of {self.rows} rows fits: {self.named()}; {self.left_out[0].advice}")
        return self.kept

    def named(self) -> str:
        """The first rows that were left out, each with its reason."""
        more = len(self.left_out) - SHOWN
        shown = [f"{row.where} ({row.reason})" for row in self.left_out[:SHOWN]]
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")

    def told(self) -> str:
        """One line on what was left out."""
        count = f"{len(self.left_out)} of {self.rows} rows"
        return f"{count} do not fit and are left out: {self.named()}; --strict stops there"


def fit(rows: Iterable[Row], ready: Callable[[Row], tuple[Sequence[Item], bool]]) -> Fitted[Item]:
    """`ready` makes the items of one row and says whether it had to cut. Raises what it raises, but for DoesNotFit."""
    kept: list[Item] = []
    left_out: list[DoesNotFit] = []
    first_cut: str | None = None
    count = cut = 0
    for row in rows:
        count += 1
        try:
            items, shortened = ready(row)
        except DoesNotFit as error:
            left_out.append(error)
            continue
        kept += items
        cut += shortened
        if shortened and first_cut is None:
            first_cut = getattr(row, "where", None)  # rows of data files have one
    return Fitted(count, kept, cut, tuple(left_out), first_cut)
