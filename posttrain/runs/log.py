"""The only writer of a run folder.

`config.yaml`, `metrics.jsonl`, `rollouts.jsonl`, `events.jsonl`, `checkpoints/`, `model/`, `lineage.json`, `cost.json`.
Every file is written whole or line by line; a torn last line, left by a kill, is dropped when the run is opened again.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, Any

import yaml
from safetensors import SafetensorError

from posttrain.runs.config import FILE, Change, Progress, compare
from posttrain.runs.files import ROLLOUTS, read_jsonl, refuse_links, write_atomic
from posttrain.runs.folders import sync, write_folder
from posttrain.runs.rollouts import FOLDER, to_disk
from posttrain.systems import need_posix
from posttrain.types import InputError

CLOCK_SUFFIXES = ("_seconds", "_per_second", "_memory_bytes")
"""Fields that may differ between two runs of the same configuration; no other field may."""
CHECKPOINT = re.compile(r"step-[0-9]{8,}")
LINEAGE = "lineage.json"
"""Written last, so that it means "finished"."""
FOR_RESUME = ("best", "reference")
"""Folders beside `checkpoints/` that a finished run reads only to become longer."""
BEFORE_CONFIG = {".lock", ".config.yaml.partial", "evaluations", "inputs"}
"""What a folder may hold whose run has not written its configuration yet: a kill may have come first."""


def is_finished_run(out: Path, config: Mapping[str, Any], resume: bool) -> bool:
    """Whether `out` holds this very run, finished. Raises InputError, and writes nothing, where the folder holds
    something else, another run or a changed configuration."""
    return not change_of(out, config, resume).longer and (out / LINEAGE).exists()


def change_of(out: Path, config: Mapping[str, Any], resume: bool) -> Change:
    """What opening `out` with this configuration changes in the run it may hold; raises as `is_finished_run` does."""
    config_file = out / FILE
    check_place(out, resume)
    if config_file.exists():
        refuse_links(*out.iterdir())
        return compare(config_file, config, (out / LINEAGE).exists(), lambda: progress_of(out))
    return Change()


def check_place(out: Path, resume: bool) -> None:
    """Raise InputError where a run cannot be written to `out`, as far as that is known without its configuration."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    if (out / FILE).exists():
        if not resume:
            raise InputError(f"--out {out}: already holds a run; add --resume to continue it, or choose another folder")
    elif out.exists() and any(p.name not in BEFORE_CONFIG for p in out.iterdir()):
        raise InputError(f"--out {out}: not empty and not a run; choose another folder")
    if not (out / LINEAGE).exists():  # a finished run is left as it is
        check_writable(out, "cannot be written")


def make_folder(out: Path, of_out: str = "") -> None:
    """Make the folder of an output, or `of_out` in it. Raises InputError where that cannot be."""
    try:
        (out / of_out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from error


def check_writable(out: Path, fault: str) -> None:
    """Raise InputError, saying that the folder has this `fault`, where neither it nor the first folder above it that is
    there can be written to."""
    there = next((place for place in (out, *out.absolute().parents) if os.path.lexists(place)), out)
    code = errno.ENOTDIR if not there.is_dir() else 0 if os.access(there, os.W_OK | os.X_OK) else errno.EACCES
    if code:
        raise InputError(f"--out {out}: {fault} ({os.strerror(code)}); choose another folder")


def progress_of(out: Path) -> Progress:
    """How far the run in `out` has come. Raises InputError for a file that is damaged."""
    steps = [row.get("step") for row in read_jsonl(out / "metrics.jsonl")[-1:]]
    ends = [row for row in read_jsonl(out / "events.jsonl") if row.get("event") == "finished"]
    return Progress(
        steps=steps[0] if steps and type(steps[0]) is int else 0,
        finished=(out / LINEAGE).exists(),
        ended_by=ends[-1].get("ended_by") if ends else None,
        checkpoints=bool(checkpoints_of(out)),
    )


def checkpoints_of(out: Path) -> list[Path]:
    """Complete checkpoints of a run folder, oldest first."""
    return sorted(f for f in (out / "checkpoints").glob("step-*") if CHECKPOINT.fullmatch(f.name))


def tidy(out: Path, keep: int) -> None:
    """Remove what only a resume reads from the folder of a run that has finished: all checkpoints but the last `keep`,
    and where none is left, the weights of the best step and the reference too. The files that say that the run has
    finished are on the disk before the first is removed."""
    if not (out / LINEAGE).exists():
        return
    kept = checkpoints_of(out)
    removed = kept[: max(0, len(kept) - keep)] if keep else [out / name for name in ("checkpoints", *FOR_RESUME)]
    if not any(folder.exists() for folder in removed):
        return
    sync(out / LINEAGE)
    sync(out)
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)


class RunLog:
    """An open run folder, held by one process at a time.

    Opening it raises InputError where the folder holds another run and `resume` is off, where the configuration
    changed, or where another process has it open."""

    def __init__(self, out: Path, config: Mapping[str, Any], resume: bool) -> None:
        self.out = out
        change = change_of(out, config, resume)
        self.notes = change.notes
        """What a user must hear about how the run is resumed."""
        self.resuming = (out / FILE).exists()
        self._files: dict[str, FileIO] = {}
        refuse_links(*(out.iterdir() if out.exists() else ()))
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(out)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error
        if self.resuming and not change.settings:
            return
        try:
            with self._storage(FILE):
                if change.longer:
                    self._reopen()
                text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
                write_atomic(out / FILE, text)
        except BaseException:
            self._lock.close()
            raise

    def _reopen(self) -> None:
        """Make a finished run an unfinished one. Its model stays until the longer run has its own."""
        for name in (LINEAGE, "report.html"):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.out / "reference", ignore_errors=True)  # of the rows of the shorter run

    # -- lines ----------------------------------------------------------------------------------------------------

    def metrics(self, row: Mapping[str, Any]) -> None:
        self._append("metrics.jsonl", [row])

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Record the rollouts of one step, as `rollout_to_json` writes them; files come before lines that name them."""
        lines, files = to_disk(rows)
        for name, content in files.items():
            with self._storage(name):
                (self.out / name).parent.mkdir(exist_ok=True)
                write_atomic(self.out / name, content)
        self._append(ROLLOUTS, lines)

    def keep_rollouts(self, steps: Container[int]) -> None:
        """Cut the recorded rollouts back to those of some steps."""
        self.keep_lines(ROLLOUTS, lambda row: row["step"] in steps)
        for file in (self.out / FOLDER).glob("*.npz"):
            if not file.stem.isdecimal() or int(file.stem) not in steps:
                file.unlink()

    def revisions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._append("revisions.jsonl", rows)

    def event(self, kind: str, /, **fields: Any) -> None:
        """An alarm, a restart, a stop: `{"event": kind, …}`."""
        self._append("events.jsonl", [{"event": kind, **fields}])

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines, all of them or none."""
        data = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode(
            errors="replace"
        )
        with self._storage(name):
            if name not in self._files:
                _drop_torn_line(self.out / name)
                self._files[name] = FileIO(self.out / name, "a")
            stream = self._files[name]
            end = stream.seek(0, os.SEEK_END)
            try:
                while data:  # a disk that fills up takes the beginning
                    data = data[stream.write(data) :]
            except OSError:
                stream.truncate(end)
                raise

    def keep_lines(self, name: str, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Cut a JSONL file back to the rows that `keep` accepts."""
        if name in self._files:
            self._files.pop(name).close()
        path = self.out / name
        if not path.exists():
            return
        rows = read_jsonl(path)
        try:
            kept = [row for row in rows if keep(row)]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged, a line lacks what every line of it has ({error})") from None
        self.write_lines(name, kept)

    # -- files ----------------------------------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> None:
        with self._storage(name):
            write_atomic(self.out / name, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """A JSONL file that appears whole. What JSON has no form for, as a date that was read, becomes text."""
        text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        with self._storage(name):
            write_atomic(self.out / name, text)

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        """A folder that appears whole: see `folders.write_folder`."""
        with self._storage(name):
            return write_folder(self.out / name, fill)

    def checkpoint(self, step: int, keep: int, fill: Callable[[Path], None]) -> None:
        """Write `checkpoints/step-N` and remove all but the last `keep`, or all but this one: an unfinished run needs
        it."""
        self.write_folder(f"checkpoints/step-{step:08d}", fill)
        for old in self.checkpoints()[: -max(1, keep)]:
            shutil.rmtree(old)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return checkpoints_of(self.out)

    @contextmanager
    def _storage(self, name: str) -> Iterator[None]:
        """What the disk refuses becomes an InputError; what was written before stays and can be resumed."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise InputError(
                f"--out {self.out}: cannot write {name} ({reason}); make room there, then continue with --resume"
            ) from error

    def close(self) -> None:
        for stream in self._files.values():
            stream.close()
        self._files.clear()
        self._lock.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(out: Path) -> IO[str]:
    need_posix("Writing a run")
    import fcntl  # Windows has none

    stream = os.fdopen(os.open(out / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise InputError(
            f"--out {out}: another process is writing this run; wait for it or choose another folder"
        ) from error
    return stream


def _drop_torn_line(path: Path) -> None:
    if path.exists():
        data = path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end != len(data):
            os.truncate(path, end)
