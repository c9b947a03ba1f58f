"""One card measured in minutes: ceilings, probes, correctness, and training and decoding beside TRL and transformers.

    python benchmarks/gpu.py --call a --out runs/gpu-a      # what answers most, at most 280 seconds
    python benchmarks/gpu.py --call b --out runs/gpu-b      # reinforcement learning and decoding, as long again
    python benchmarks/gpu.py --only sft,decode-7b           # parts whose names begin so
    python benchmarks/gpu.py --list                         # the parts and their time limits
    python benchmarks/gpu.py --device cpu --shape tiny      # every part on a CPU in seconds: does it run?

Writes `gpu.json` and the table `gpu.md` as each side of a part ends, and prints the table last; `log.txt` has what the
sides printed. With `--wheels DIR` it runs from a source tree on a machine without network: the packages in the wheels
stand before those installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from on_gpu.parts import STARTING_SECONDS, Outcome, Part, run_apart, run_here  # noqa: E402
from on_gpu.plan import PARTS  # noqa: E402
from on_gpu.report import report  # noqa: E402

PEERS = ("trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer.grpo_trainer")
MODULES = ("ours", "passes", "probes", "correctness", "with_trl", "with_transformers")


def main(arguments: Sequence[str] | None = None) -> int:
    args = parsed(arguments)
    parts = chosen(args.call, args.only)
    if args.list:
        print("\n".join(f"{p.name:14} {p.call}  {sum(s.seconds for s in p.sides):4} s  {p.what}" for p in parts))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="gpu-") as scratch:
        print(measured(args, parts, Path(scratch)))
    return 0


def measured(args: argparse.Namespace, parts: Sequence[Part], scratch: Path) -> str:
    """Run the parts, writing after each side what there is; the text of all."""
    end = time.monotonic() + args.seconds
    if args.wheels:
        unpack(args.wheels, scratch / "site")
    prepare()
    setting = setting_of(args, scratch)
    about, start = about_this(setting)
    results: dict[str, dict[str, Any]] = {}
    text = ""
    for part in parts:
        for side in part.sides:
            left = end - time.monotonic()
            say(f"{part.name}: {side.name} ({left:.0f} s left)")
            run = partial(side.run, setting)
            if args.here:
                outcome = run_here(run)
            elif left < STARTING_SECONDS:
                outcome = Outcome("no time left")
            else:
                outcome = run_apart(run, min(side.seconds, left), args.out / "log.txt", start)
            say(f"  {outcome.status}, {outcome.seconds:.0f} s")
            results.setdefault(part.name, {})[side.name] = asdict(outcome)
            text = report(parts, results, about)
            write(args.out / "gpu.json", json.dumps({"about": about, "parts": results}, indent=1))
            write(args.out / "gpu.md", text + "\n")
    return text


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--call", choices=["a", "b"], help="the parts of one call; all without")
    parser.add_argument("--only", help="names of parts, or how they begin, with commas between")
    parser.add_argument("--list", action="store_true", help="show the parts and run nothing")
    parser.add_argument("--seconds", type=float, default=280, help="the longest the whole may take")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--shape", choices=["full", "tiny"], default="full", help="tiny models and rows, for a CPU")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to unpack and use")
    parser.add_argument("--here", action="store_true", help="all parts in this process, without their time limits")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    return parser.parse_args(arguments)


def chosen(call: str | None, only: str | None) -> list[Part]:
    """The parts asked for. Ends the program where a name fits none."""
    parts = [part for part in PARTS if call is None or part.call == call]
    if only is None:
        return parts
    names = tuple(only.split(","))
    for name in names:
        if not any(part.name.startswith(name) for part in parts):
            raise SystemExit(f"--only {name}: no part begins so; there are {', '.join(p.name for p in parts)}")
    return [part for part in parts if part.name.startswith(names)]


def unpack(wheels: Path, site: Path) -> None:
    """Put the packages of a folder of wheels before all others, here and in child processes."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise SystemExit(f"--wheels {wheels}: holds no wheel; `make gpu-wheels` downloads them")
    for file in files:
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(site)
    sys.path.insert(0, str(site.resolve()))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site.resolve()), os.environ.get("PYTHONPATH")]))


def prepare() -> None:
    """Import what the sides need, so that their processes need not; touch no card, which a child could not use then."""
    os.environ |= {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}
    from posttrain.threads import configure_threads

    configure_threads()
    for name in MODULES:
        importlib.import_module(f"on_gpu.{name}")
    for name in PEERS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            say(f"TRL's sides are left out: {error}")
            break


def setting_of(args: argparse.Namespace, scratch: Path) -> Any:
    import torch
    from on_gpu.setting import Setting

    dtype = args.dtype if args.dtype != "auto" else {"cuda": "bfloat16", "cpu": "float32"}[args.device]
    return Setting(torch.device(args.device), getattr(torch, dtype), args.shape == "tiny", args.out, scratch)


def about_this(setting: Any) -> tuple[dict[str, str], str]:
    """The card and the versions, and how children are started: a child is asked about the card, and where a forked one
    cannot use it, all are spawned."""
    from importlib.metadata import PackageNotFoundError, version

    about = {"device": platform.processor() or platform.machine(), "dtype": str(setting.dtype).removeprefix("torch.")}
    start = "fork"
    if setting.cuda:
        card = run_apart(partial(_card, setting.device), 60)
        if card.status != "ok":
            start = "spawn"
            card = run_apart(partial(_card, setting.device), 60, start=start)
        about["device"] = card.figures.get("name", f"no card: {card.error[-200:]}")
    about["python"] = platform.python_version()
    for package in ("torch", "transformers", "trl", "peft"):
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = "not installed"
    return about, start


def _card(device: Any, record: Any) -> None:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    record({"name": f"{torch.cuda.get_device_name(device)} ({free / 1e9:.0f} of {total / 1e9:.0f} GB free)"})


def write(file: Path, text: str) -> None:
    """The file is whole at any time."""
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)


if __name__ == "__main__":
    sys.exit(main())
