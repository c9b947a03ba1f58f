"""Token rows on disk: lists in the line of their rollout in `rollouts.jsonl`, or, where sampling was truncated, arrays
in `rollouts/STEP.npz` beside it, because kept tokens as text would be most of the file.

A line then says where each of its rows lies: `{"file": "rollouts/000010.npz", "start": 0, "stop": 2176}`. The file
holds `token_ids`, `sampled`, `sampler_logprobs`, `versions` and `kept_counts` of all rows of the step one after the
other, each as narrow as its numbers allow. Kept token ids are differences from the one before in the row, in whole
numbers of their own width, which wrap. The lowest bytes of these are `kept_0`, the next ones `kept_1` and so on, since
only the higher ones are worth compressing.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.arrays import KeptTokens
from posttrain.types import Segment

FOLDER = "rollouts"
FILE = re.compile(rf"{FOLDER}/([0-9]+)\.npz")
FIELDS = ("token_ids", "sampled", "sampler_logprobs", "versions")
STORED = ("token_ids", "sampler_logprobs", "kept_0")
"""What deflating would hardly make smaller."""
FASTEST = 1
"""Level of deflating: the next ones take twice as long for a few per cent."""

Arrays = Mapping[str, NDArray[Any]]


def to_disk(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, memoryview]]:
    """Lines from rows of one step whose `segments` are Segments, and the files that they name with their content."""
    lines: list[dict[str, Any]] = []
    stored: list[Segment] = []
    start, name = 0, ""
    for row in rows:
        name = f"{FOLDER}/{row['step']:06d}.npz"
        segments: list[dict[str, Any]] = []
        for segment in row.get("segments", ()):
            if segment.kept_token_ids is None:
                segments.append(_lists(segment))
                continue
            stop = start + len(segment.token_ids)
            segments.append({"file": name, "start": start, "stop": stop})
            stored.append(segment)
            start = stop
        lines.append({**row, "segments": segments} if "segments" in row else dict(row))
    return lines, {name: _packed(stored)} if stored else {}


def locate(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The row of a line of `folder`, with whole paths in place of relative ones. Raises ValueError for a path that
    leads elsewhere."""
    for segment in row.get("segments", ()):
        if "file" in segment:
            if not FILE.fullmatch(segment["file"]):
                raise ValueError(f"its file is {segment['file']!r}")
            segment["file"] = str(folder / segment["file"])
    return row


def by_step(rows: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The rows of each step, in order."""
    steps: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        steps.setdefault(row["step"], []).append(row)
    return steps


def segments_of(row: Mapping[str, Any]) -> tuple[Segment, ...]:
    """The token rows of a line that was located. Raises KeyError, TypeError or ValueError for what are none."""
    return tuple(_stored(s) if "file" in s else _listed(s) for s in row["segments"])


def with_lists(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its token rows as lists, wherever they are kept."""
    if any("file" in segment for segment in row.get("segments", ())):
        row["segments"] = [_lists(segment) for segment in segments_of(row)]
    return row


def _lists(segment: Segment) -> dict[str, Any]:
    kept = segment.kept_token_ids
    return {
        "token_ids": segment.token_ids.tolist(),
        "sampled": segment.sampled.astype(int).tolist(),
        "sampler_logprobs": segment.sampler_logprobs.tolist(),
        "versions": segment.versions.tolist(),
        "supports": None if kept is None else [ids.tolist() for ids in kept],
    }


def _listed(values: Mapping[str, Any]) -> Segment:
    kept = None if values["supports"] is None else KeptTokens.of(values["supports"])
    return _segment(values, kept)


def _segment(values: Mapping[str, Any], kept: KeptTokens | None) -> Segment:
    return Segment(*(values[name] for name in FIELDS), kept_token_ids=kept)  # type: ignore[misc]


def _packed(segments: Sequence[Segment]) -> memoryview:
    kept = [s.kept_token_ids for s in segments if s.kept_token_ids is not None]
    arrays = {name: _narrow([getattr(s, name) for s in segments]) for name in FIELDS}
    arrays["kept_counts"] = _narrow([tokens.counts for tokens in kept])
    arrays |= _bytes_of(kept)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            way = zipfile.ZIP_STORED if name in STORED else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getbuffer(), way, FASTEST)  # always of one date
    return out.getbuffer()


def _bytes_of(kept: Sequence[KeptTokens]) -> dict[str, NDArray[np.uint8]]:
    """The kept token ids of all rows, as differences: their lowest bytes, the next ones, and so on."""
    largest = max((int(tokens.values.max()) for tokens in kept if len(tokens.values)), default=0)
    width = np.min_scalar_type(largest).newbyteorder("<")
    steps = [np.diff(tokens.values.astype(width), prepend=width.type(0)).astype(width, copy=False) for tokens in kept]
    rows = [of_row.view(np.uint8).reshape(len(of_row), width.itemsize) for of_row in steps]
    return {f"kept_{i}": np.concatenate([row[:, i] for row in rows]) for i in range(width.itemsize)}


def _narrow(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The parts joined, in the narrowest type that holds each number exactly."""
    if parts[0].dtype == np.float64:
        exact = all((part.astype(np.float32) == part).all() for part in parts)
        return np.concatenate(parts, dtype=np.float32 if exact else np.float64, casting="same_kind")
    ends = [int(end) for part in parts if len(part) for end in (part.min(), part.max())] or [0]
    kind = np.promote_types(np.min_scalar_type(min(ends)), np.min_scalar_type(max(ends)))
    return np.concatenate(parts, dtype=kind, casting="unsafe")


def _stored(place: Mapping[str, Any]) -> Segment:
    path, start, stop = Path(place["file"]), place["start"], place["stop"]
    if type(start) is not int or type(stop) is not int:
        raise ValueError(f"its tokens are {start!r} to {stop!r}")
    if not path.is_file():
        raise ValueError(f"{path} is missing, which belongs beside its rollouts.jsonl")
    stat = path.stat()
    arrays = _arrays(path, stat.st_ino, stat.st_mtime_ns)
    if not 0 <= start <= stop <= len(arrays["token_ids"]):
        raise ValueError(f"{path} has no tokens {start} to {stop}")
    first, last = arrays["kept_offsets"][[start, stop]]
    steps = arrays["kept_steps"][first:last]
    kept = KeptTokens.counted(np.cumsum(steps, dtype=steps.dtype), arrays["kept_counts"][start:stop])
    return _segment({name: arrays[name][start:stop] for name in FIELDS}, kept)


@lru_cache(maxsize=1)
def _arrays(path: Path, inode: int, changed: int) -> Arrays:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*FIELDS, "kept_counts")}
            kept = np.stack([file[f"kept_{i}"] for i in range(8) if f"kept_{i}" in file], axis=1)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:100]})") from None
    counts = arrays["kept_counts"]
    if counts.dtype.kind not in "iu" or (counts < 0).any() or counts.sum() != len(kept):
        raise ValueError(f"{path} is damaged (its counts of kept tokens do not fit them)")
    arrays["kept_steps"] = kept.view(f"<u{kept.shape[1]}")[:, 0]
    arrays["kept_offsets"] = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return arrays
