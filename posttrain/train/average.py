"""Checkpoint averaging: one model from the mean of several models' weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer

from posttrain.config import AverageConfig
from posttrain.console import warn
from posttrain.models import weights_hash
from posttrain.models.load import UNLOADABLE, check_config, model_folder
from posttrain.models.weights import DTYPES, rounded
from posttrain.runs.files import write_atomic
from posttrain.runs.log import RunLog
from posttrain.runs.records import Cost, Lineage
from posttrain.text import first_line
from posttrain.train.settings import nothing_to_do, versions
from posttrain.types import InputError

BESIDE_WEIGHTS = {".json", ".jinja", ".model", ".txt"}
"""Endings of the files that make a model of its weights: configuration, tokenizer, template, index of shards."""
HEADS = ("num_attention_heads", "num_key_value_heads")


def average_models(config: AverageConfig) -> None:
    """Write the model whose every weight is the arithmetic mean of that weight in `config.models`, θ = (1/n) Σ θ_i,
    summed in float64 and rounded once, to `save_dtype`; configuration, tokenizer and chat template are those of the
    first, and a warning names the others whose template differs.

    What is averaged is a model's folder, which holds merged weights after LoRA too: the mean of adapters' products is
    meant, not the product of their means. Weights of one kind that start from one model lie near each other, which is
    what makes the mean a good model (Wortsman et al., arXiv:2203.05482); that they do is for the user to know. Raises
    InputError for models that differ in architecture, in the names or shapes of their weights, or in vocabulary."""
    folders = [Path(model_folder(name)) for name in config.models]
    if nothing_to_do(config.out, config.model_dump(mode="json"), config.resume):
        return
    begun = time.perf_counter()
    files = _files(config.models, folders)
    _check_alike(config.models, folders, files)
    with RunLog(config.out, config.model_dump(mode="json"), config.resume) as log:
        folder = log.write_folder("model", lambda out: _write(out, folders[0], files, DTYPES.get(config.save_dtype)))
        seconds = time.perf_counter() - begun
        Cost(steps=0, seconds=seconds, tokens=0, flops=0.0).save(log)
        Lineage(
            stage="average",
            parents=list(config.models),
            parent_weights_hashes=[weights_hash(parent) for parent in folders],
            model=str(folder),
            weights_hash=weights_hash(folder),
            versions=versions(),
        ).save(log)


def _files(names: tuple[str, ...], folders: list[Path]) -> list[dict[str, Path]]:
    out: list[dict[str, Path]] = []
    for name, folder in zip(names, folders, strict=True):
        holds: dict[str, Path] = {}
        try:
            for file in sorted(folder.glob("*.safetensors")):
                with safe_open(file, framework="pt") as weights:
                    holds |= dict.fromkeys(weights.keys(), file)
        except SafetensorError as error:
            raise InputError(f"{name}: {file.name} cannot be read ({error})") from error
        if not holds:
            raise InputError(f"{name}: holds no .safetensors file")
        out.append(holds)
    return out


def _check_alike(names: tuple[str, ...], folders: list[Path], files: list[dict[str, Path]]) -> None:
    first, template = _description(names[0], folders[0], files[0])
    for name, folder, holds in zip(names[1:], folders[1:], files[1:], strict=True):
        other, of_other = _description(name, folder, holds)
        differs = [key for key in (*first, *other) if first.get(key) != other.get(key)]
        if differs:
            key = differs[0]
            raise InputError(
                f"{name} cannot be averaged with {names[0]}: {key} is {other.get(key, 'not there')} and "
                f"{first.get(key, 'not there')}; give models that were trained from one start"
            )
        if of_other != template:
            warn(
                f"{name} was saved with another chat template than {names[0]}, and the average gets that of "
                f"{names[0]}, the first; put the model with the right one first"
            )


def _description(model: str, folder: Path, holds: Mapping[str, Path]) -> tuple[dict[str, Any], Any]:
    """What averaged models have in common (architecture, shapes of weights, vocabulary), and the chat template."""
    check_config(model, folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokens = sorted(tokenizer.get_vocab().items())
    except UNLOADABLE as error:
        raise InputError(f"{model}: configuration or tokenizer cannot be read: {first_line(error)}") from error
    described: dict[str, Any] = {"the architecture": config.architectures}
    for key in HEADS:  # one shape of weights goes with many numbers of heads
        described[key] = getattr(config.get_text_config(), key, None)
    for name in sorted(holds):
        with safe_open(holds[name], framework="pt") as weights:
            described[name] = tuple(weights.get_slice(name).get_shape())
    digest = hashlib.sha256(repr(tokens).encode()).hexdigest()
    return described | {"the vocabulary": f"{len(tokens)} tokens with the hash {digest[:8]}"}, tokenizer.chat_template


def _write(out: Path, first: Path, files: list[dict[str, Path]], dtype: torch.dtype | None) -> None:
    """Shards named as the first model's, one at a time; without `dtype` in the finest type that a weight has."""
    for file in first.iterdir():
        if file.suffix in BESIDE_WEIGHTS and file.is_file():
            shutil.copyfile(file, out / file.name)
    sizes: dict[torch.dtype, int] = {}
    for shard in sorted(set(files[0].values())):
        means = {name: _mean(name, files, dtype) for name, file in files[0].items() if file == shard}
        save_file(means, out / shard.name, metadata={"format": "pt"})
        for mean in means.values():
            sizes[mean.dtype] = sizes.get(mean.dtype, 0) + mean.nbytes
    _describe(out, max(sizes, key=sizes.__getitem__), sum(sizes.values()))


def _describe(out: Path, dtype: torch.dtype, size: int) -> None:
    """What the first model's files say of its weights, as it is here: the type of most, and how many bytes they are."""
    file, index = out / "config.json", out / "model.safetensors.index.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    name = str(dtype).removeprefix("torch.")
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        part |= {key: name for key in ("dtype", "torch_dtype") if (part is config and key == "dtype") or key in part}
    write_atomic(file, json.dumps(config, indent=2) + "\n")
    if index.exists():
        shards = json.loads(index.read_text(encoding="utf-8"))
        shards["metadata"] = {**shards.get("metadata", {}), "total_size": size}
        write_atomic(index, json.dumps(shards, indent=2) + "\n")


def _mean(name: str, files: list[dict[str, Path]], dtype: torch.dtype | None) -> torch.Tensor:
    """In `dtype`, or in the finest of the weight's types, so that the order of the models makes no difference."""
    total: torch.Tensor | None = None
    kind: torch.dtype | None = None
    for holds in files:
        with safe_open(holds[name], framework="pt") as weights:
            value = weights.get_tensor(name)
        kind = value.dtype if kind is None else torch.promote_types(kind, value.dtype)
        total = value.double() if total is None else total.add_(value)
    assert total is not None and kind is not None
    mean = total.div_(len(files))
    return mean.to(kind) if dtype is None or not kind.is_floating_point else rounded(mean, dtype)
