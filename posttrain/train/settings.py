"""What `config.yaml` and `lineage.json` of a run say of its configuration, data and libraries."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.chat.given import template_hash, template_text
from posttrain.config import TrainConfig
from posttrain.console import info
from posttrain.data.sources import data_files
from posttrain.models import LanguageModel
from posttrain.models.compute import Compute
from posttrain.runs.audit import audit_file
from posttrain.runs.config import FILE, HASHES, read_settings
from posttrain.runs.log import is_finished_run, tidy
from posttrain.types import InputError


def resolved_settings(config: TrainConfig, learning_rate: float) -> dict[str, Any]:
    """The configuration for `config.yaml`: defaults filled in, hashes of data; LoRA takes ten times the full rate."""
    out = with_hashes(config.model_dump(mode="json"))
    if config.learning_rate is None:
        out["learning_rate"] = learning_rate * (10 if config.lora_rank else 1)
    return out


def nothing_to_do(out: Path, settings: Mapping[str, Any], resume: bool) -> bool:
    """Whether `out` holds this very run, finished; then it is tidied. Raises what `is_finished_run` raises."""
    if not is_finished_run(out, settings, resume):
        return False
    tidy(out, read_settings(out / FILE)[0].get("keep", 1))
    info(f"{out}: finished, there is nothing to do")
    return True


def data_hash(source: str) -> str | None:
    """SHA-256 of a data file, or of several; None for built-in sets and hub ids, and where nothing can be read."""
    try:
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in data_files(source)]
    except (OSError, InputError):  # for its reader to tell
        return None
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else None


def with_hashes(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the hashes of the data files, the chat template and the audit that they name, so that a resume
    notices changed content. Raises InputError where there is no such template."""
    hashes = {
        key: _content_hash(source, given)
        for key, source in HASHES.items()
        if (given := settings.get(source)) is not None
    }
    return settings | {key: value for key, value in hashes.items() if value is not None}


def _content_hash(source: str, given: str) -> str | None:
    if source == "chat_template":
        return template_hash(template_text(given))
    return data_hash(str(audit_file(Path(given))) if source == "audit" else given)


def tokens_at_once(config: TrainConfig, lm: LanguageModel) -> int:
    """The tokens of a micro-batch of a model."""
    return config.tokens_at_once(lm.device.type)


def made_on(compute: Compute) -> dict[str, Any]:
    """The fields of a lineage that say where its models were computed."""
    card = {"card": compute.device_name} if compute.device.type == "cuda" else {}
    return {"device": compute.device.type, **card, "dtype": compute.dtype_name}


def versions() -> dict[str, str]:
    """What a result depends on."""
    names = ("posttrain", "torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")
    out = {}
    for name in names:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out
