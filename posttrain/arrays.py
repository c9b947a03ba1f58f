"""Numbers of tokens as numpy arrays: plain data that is read only, can be compared, and can be pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
KINDS = {np.int32: "iu", np.float64: "fiu", np.bool_: "biu"}
"""What may become an array of a type: a token id may not be 1.5 or true, and a logarithm may not be null."""


def ints(values: ArrayLike) -> Ints:
    """The values as token ids or versions. Raises TypeError for what are no whole numbers of 32 bits."""
    return _fixed(values, np.int32)


def floats(values: ArrayLike) -> Floats:
    """Raises TypeError for what are no numbers."""
    return _fixed(values, np.float64)


def bools(values: ArrayLike) -> Bools:
    """Raises TypeError for what is neither true, false nor a whole number."""
    return _fixed(values, np.bool_)


def _fixed(values: ArrayLike, dtype: type[Any]) -> NDArray[Any]:
    given = np.asarray(values)
    given = given if given.size else np.zeros(0, dtype)
    fits = given.dtype.kind in KINDS[dtype] and (dtype is not np.int32 or (given == given.astype(dtype)).all())
    if not fits:
        raise TypeError(f"{given.ravel()[:3].tolist()} … cannot be {dtype.__name__}")
    array = given.astype(dtype, copy=False).view()
    array.flags.writeable = False
    return array


class Comparable:
    """For dataclasses of arrays: two are equal where their fields are. They have no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


@dataclass(frozen=True, eq=False)
class KeptTokens(Comparable):
    """The token ids that truncated sampling kept, token by token: those of token i are
    `values[offsets[i]:offsets[i + 1]]`, in rising order."""

    values: Ints
    offsets: NDArray[np.int64]

    @staticmethod
    def of(tokens: Sequence[ArrayLike]) -> KeptTokens:
        """From the ids that each token has."""
        rows = [ints(row) for row in tokens]
        return KeptTokens.counted(np.concatenate(rows) if rows else ints([]), [len(row) for row in rows])

    @staticmethod
    def counted(values: ArrayLike, counts: ArrayLike) -> KeptTokens:
        """From all ids in order and how many each token has."""
        return KeptTokens(ints(values), np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))

    @staticmethod
    def joined(parts: Sequence[KeptTokens]) -> KeptTokens:
        """Those of several runs of tokens, one after the other."""
        values, counts = [part.values for part in parts], [part.counts for part in parts]
        return KeptTokens.counted(np.concatenate(values), np.concatenate(counts))

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many each token has."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Ints]:
        return iter(np.split(self.values, self.offsets[1:-1])) if len(self) else iter(())

    def __getitem__(self, tokens: slice) -> KeptTokens:
        offsets = self.offsets[tokens.start : tokens.stop + 1]
        return KeptTokens(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def where(self, mask: Bools) -> KeptTokens:
        """Those of the tokens that a mask chooses."""
        counts = self.counts
        lost = counts[~mask].any()
        return KeptTokens.counted(self.values[np.repeat(mask, counts)] if lost else self.values, counts[mask])
