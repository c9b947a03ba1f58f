"""Token rows on disk: as lists, and as arrays of a step where sampling was truncated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.arrays import KeptTokens
from posttrain.runs.files import read_jsonl, read_rollouts
from posttrain.runs.log import RunLog
from posttrain.runs.reader import Run
from posttrain.runs.rollouts import segments_of
from posttrain.types import Completion, InputError, Segment


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    with RunLog(tmp_path / "run", {"model": "m"}, resume=False) as opened:
        yield opened


def row(step: int, *segments: Segment) -> dict[str, Any]:
    return {"step": step, "task": "t", "segments": segments}


def truncated(seed: int, vocabulary: int = 300, tokens: int = 40) -> Segment:
    """Prompt and answer of random tokens, each with one to nine kept ones, in two turns."""
    rng = np.random.default_rng(seed)
    kept = [np.unique(rng.integers(0, vocabulary, rng.integers(1, 10))) for _ in range(tokens)]
    logprobs = -rng.exponential(1.0, tokens).astype(np.float32)
    ids = [int(own[0]) for own in kept]
    answer = Completion(ids, logprobs, [seed] * tokens, "stop", KeptTokens.of(kept))  # type: ignore[arg-type]
    return Segment.of((1, 2, 3), answer).grown((4, 5), answer)


PLAIN = Segment.of((1, 2), Completion((3, 4), (-0.1, -0.2), (0, 0), "stop"))  # type: ignore[arg-type]


@pytest.mark.parametrize("vocabulary", [200, 60_000, 151_000])
def test_what_is_recorded_is_read_back(log: RunLog, vocabulary: int) -> None:
    """To the bit, whatever width the token ids have; rows without kept tokens stay in their line."""
    wide = truncated(1, vocabulary)
    odd = Segment.of((1,), Completion((2,), (-0.1,), (7,), "stop", KeptTokens.of([[2]])))  # type: ignore[arg-type]
    rows = [row(3, wide, PLAIN), row(3, odd), row(3)]
    log.rollouts(rows)
    lines = read_rollouts(log.out, lambda line: None)
    assert [segments_of(line) for line in lines[3]] == [r["segments"] for r in rows]
    first, second, _ = read_jsonl(log.out / "rollouts.jsonl")
    assert first["segments"][0] == {"file": "rollouts/000003.npz", "start": 0, "stop": 85}
    assert second["segments"] == [{"file": "rollouts/000003.npz", "start": 85, "stop": 87}]
    assert first["segments"][1] == {
        "token_ids": [1, 2, 3, 4],
        "sampled": [0, 0, 1, 1],
        "sampler_logprobs": [0.0, 0.0, -0.1, -0.2],
        "versions": [-1, -1, 0, 0],
        "supports": None,
    }
    (shown, *_) = Run(log.out).rollouts(step=3)
    assert shown["segments"][0]["supports"] == [ids.tolist() for ids in wide.kept_token_ids or ()]


def test_the_same_rows_are_the_same_bytes(log: RunLog, tmp_path: Path) -> None:
    log.rollouts([row(1, truncated(1))])
    with RunLog(tmp_path / "other", {"model": "m"}, resume=False) as other:
        other.rollouts([row(1, truncated(1))])
    name = "rollouts/000001.npz"
    assert (log.out / name).read_bytes() == (other.out / name).read_bytes()


def test_a_step_that_goes_takes_its_file_with_it(log: RunLog) -> None:
    """As when a run is resumed: the steps that are kept can be read, one that is sampled again is written anew."""
    for step in (1, 2, 10):
        log.rollouts([row(step, truncated(step))])
    log.keep_rollouts({1, 10})
    assert sorted(file.name for file in (log.out / "rollouts").iterdir()) == ["000001.npz", "000010.npz"]
    log.rollouts([row(2, truncated(5))])
    found = {n: segments_of(line) for n, (line,) in read_rollouts(log.out, lambda line: None).items()}
    assert found == {1: (truncated(1),), 10: (truncated(10),), 2: (truncated(5),)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "is missing, which belongs beside its rollouts.jsonl"),
        (lambda file: file.write_bytes(file.read_bytes()[:200]), "is damaged"),
        (lambda file: file.write_bytes(file.read_bytes().replace(b"PK", b"XX")), "is damaged"),
        (lambda file: np.savez(file, token_ids=np.zeros(3)), "is damaged"),
        (
            lambda file: np.savez(
                file, **(fields := dict(np.load(file))) | {"kept_counts": fields["kept_counts"][::-1] * 2}
            ),
            "counts",
        ),
        (
            lambda file: np.savez(
                file, **(fields := dict(np.load(file))) | {"kept_counts": -1.0 * fields["kept_counts"]}
            ),
            "counts",
        ),
    ],
)
def test_a_damaged_file_is_told_with_the_line(log: RunLog, damage: Any, message: str) -> None:
    log.rollouts([row(1, PLAIN)])
    log.rollouts([row(2, truncated(1))])
    damage(log.out / "rollouts/000002.npz")
    with pytest.raises(InputError, match=rf"rollouts.jsonl:2: damaged.*{message}"):
        read_rollouts(log.out, segments_of)
    with pytest.raises(InputError, match=rf"rollouts.jsonl:2: damaged.*{message}"):
        Run(log.out).rollouts()


@pytest.mark.parametrize(
    "place",
    [
        {"file": "../../secret.npz"},
        {"file": "rollouts/../x.npz"},
        {"start": -1},
        {"stop": 86},
        {"start": "a"},
        {"start": 1.5},
        {"stop": True},
    ],
)
def test_a_place_that_is_none_is_refused(log: RunLog, place: dict[str, Any]) -> None:
    log.rollouts([row(1, truncated(1))])
    (line,) = read_jsonl(log.out / "rollouts.jsonl")
    line["segments"][0] |= place
    log.write_lines("rollouts.jsonl", [line])
    with pytest.raises(InputError, match="rollouts.jsonl:1: damaged"):
        read_rollouts(log.out, segments_of)
    with pytest.raises(InputError, match="rollouts.jsonl:1: damaged"):
        Run(log.out).rollouts()
