"""The only writer of a run folder.

`config.yaml`, `metrics.jsonl`, `rollouts.jsonl`, `events.jsonl`, `checkpoints/`, `model/`, `lineage.json`, `cost.json`.
Every file is written whole or line by line; a torn last line, left by a kill, is dropped when the run is opened again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, Any, NoReturn

import yaml
from safetensors import SafetensorError

from posttrain.systems import need_posix
from posttrain.types import InputError

CLOCK_SUFFIXES = ("_seconds", "_per_second", "_memory_bytes")
"""Fields that may differ between two runs of the same configuration; no other field may."""
NOT_COMPARED = {"resume", "out", "strict", "trust_remote_code"}
HASHES = {f"{name}_hash": name for name in ("data", "eval_data", "ptx_data", "replay")}
"""Settings that are the SHA-256 of the file which another one names."""
CHECKPOINT = re.compile(r"step-[0-9]{8,}")
TEMPLATE_DATE = "template_date"
"""See `template_date.py`. Whether a run has one is known once its models are loaded, after a look at its folder."""
BEFORE_CONFIG = {".lock", ".config.yaml.partial", "evaluations"}
"""What a folder may hold whose run has not written its configuration yet: a kill may have come first."""


def write_atomic(path: Path, text: str) -> None:
    """Write a file whole or not at all. A link in its place is replaced; what the link points to is left alone."""
    scratch = path.with_name(f".{path.name}.partial")
    try:
        scratch.unlink(missing_ok=True)  # what a kill left, or a link that somebody put there
        with scratch.open("x", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file of ours; a torn last line is dropped. A missing file is empty.

    Raises InputError, naming the line, where one is no JSON object."""
    return [row for _, row in numbered_jsonl(path)]


def numbered_jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """`read_jsonl` with the place of each line, "path:line"."""
    lines = enumerate((read_file(path) or b"").split(b"\n")[:-1], start=1)
    return [(where, parse_object(line, where)) for where, line in ((f"{path}:{i}", line) for i, line in lines if line)]


def read_recorded(path: Path, read: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
    """`read_jsonl` of lines that a resume goes on from, each of a whole `step`. Raises InputError, naming the line,
    where `read` fails on one."""
    rows = []
    for where, row in numbered_jsonl(path):
        try:
            if type(row["step"]) is not int:
                raise TypeError(f"its step is {row['step']!r}")
            read(row)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: damaged, it is no line of this run ({type(error).__name__}: {error})") from None
        rows.append(row)
    return rows


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """`read_recorded` of a run's `metrics.jsonl`, of which every line says what its step cost."""
    return read_recorded(
        out / "metrics.jsonl", lambda row: [row[name] + 0.0 for name in ("tokens", "flops", "step_seconds")]
    )


def read_file(path: Path) -> bytes | None:
    """The content of a file of ours, None where there is none. Raises InputError for what is no file, as a folder or a
    pipe, from which nothing may ever come."""
    if not path.exists():
        return None
    if not path.is_file():
        raise InputError(f"{path}: damaged, it is no file")
    return path.read_bytes()


def parse_object(data: bytes | str, where: str) -> dict[str, Any]:
    """A JSON object of ours. Raises InputError, which begins with `where`, for anything else."""
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: damaged, it is no JSON ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: damaged, it holds no JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of ours; {} where there is none. Raises InputError for anything else."""
    data = read_file(path)
    return {} if data is None else parse_object(data, str(path))


def refuse_links(*places: Path) -> None:
    """Raise InputError for what is neither a file nor a folder at these places of a run folder, or below: through a
    symbolic link whoever made it could have us write elsewhere, and a pipe could keep us waiting."""
    for place in places:
        below = (Path(root, name) for root, folders, files in os.walk(place) for name in (*folders, *files))
        for found in (place, *below):
            if found.is_symlink():
                raise InputError(f"{found} is a symbolic link, and nothing is written through links; remove it")
            if found.exists() and not found.is_file() and not found.is_dir():
                raise InputError(f"{found} is neither a file nor a folder; remove it")


def check_out(out: Path, config: Mapping[str, Any], resume: bool) -> bool:
    """Whether `out` holds this very run, finished. Raises InputError, and writes nothing, where the folder holds
    something else, another run or a changed configuration."""
    config_file = out / "config.yaml"
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    if config_file.exists():
        if not resume:
            raise InputError(f"--out {out}: already holds a run; add --resume to continue it, or choose another folder")
        refuse_links(*out.iterdir())
        _same_config(config_file, config)
    elif out.exists() and any(p.name not in BEFORE_CONFIG for p in out.iterdir()):
        raise InputError(f"--out {out}: not empty and not a run; choose another folder")
    return (out / "lineage.json").exists()


class RunLog:
    """An open run folder, held by one process at a time.

    Opening it raises InputError where the folder holds another run and `resume` is off, where the configuration
    changed, or where another process has it open."""

    def __init__(self, out: Path, config: Mapping[str, Any], resume: bool) -> None:
        self.out = out
        check_out(out, config, resume)
        config_file = out / "config.yaml"
        self.resuming = config_file.exists()
        self._files: dict[str, FileIO] = {}
        refuse_links(*(out.iterdir() if out.exists() else ()))
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(out)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error
        if not self.resuming:
            try:
                with self._storage("config.yaml"):
                    write_atomic(config_file, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
            except InputError:
                self._lock.close()
                raise

    # -- lines ----------------------------------------------------------------------------------------------------

    def metrics(self, row: Mapping[str, Any]) -> None:
        self._append("metrics.jsonl", [row])

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._append("rollouts.jsonl", rows)

    def revisions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._append("revisions.jsonl", rows)

    def event(self, kind: str, **fields: Any) -> None:
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
        """A folder that appears whole: `fill` writes into a scratch folder, which reaches the disk and is then
        renamed, so that a power cut leaves the old folder or the new one."""
        target = self.out / name
        scratch = target.with_name(f".{target.name}.partial")
        with self._storage(name):
            try:
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(parents=True)
                fill(scratch)
                for part in (*scratch.rglob("*"), scratch):
                    _sync(part)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(scratch, target)
                _sync(target.parent)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return target

    def checkpoint(self, step: int, keep: int, fill: Callable[[Path], None]) -> None:
        """Write `checkpoints/step-N` and remove all but the last `keep`."""
        self.write_folder(f"checkpoints/step-{step:08d}", fill)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(old)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(f for f in (self.out / "checkpoints").glob("step-*") if CHECKPOINT.fullmatch(f.name))

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


def _same_config(file: Path, config: Mapping[str, Any]) -> None:
    try:
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        before = None
    if not isinstance(before, dict):
        raise InputError(f"{file}: is not a run's configuration; choose another --out")
    for key, source in HASHES.items():
        # a file that is not there any more is for its reader to tell
        if None not in (a := before.get(key), b := config.get(key)) and a != b and before.get(source) == config[source]:
            raise InputError(
                f"--resume: {config[source]} has other content than when the run in {file.parent} began; put the old "
                "file back, or begin anew with another --out"
            )
    for key in sorted((set(before) | set(config)) - set(HASHES)):
        if key == TEMPLATE_DATE and key not in config:
            continue
        if key == TEMPLATE_DATE and key not in before:
            raise InputError(
                f"--resume: {file} does not say which date its chat template wrote; begin anew with another --out"
            )
        if key not in NOT_COMPARED and before.get(key) != config.get(key):
            raise InputError(
                f"--resume: {key.replace('_', '-')} was {before.get(key)!r} in {file} and is {config.get(key)!r} now; "
                "give the same arguments, or another --out"
            )


def _sync(path: Path) -> None:
    """Have the system write a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    """Cut a file back to its last whole line."""
    if path.exists():
        data = path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end != len(data):
            os.truncate(path, end)
