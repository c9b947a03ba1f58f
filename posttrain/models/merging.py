"""Adapters merged into the weights they were trained beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from peft import PeftModel


def merged(adapter: PeftModel, source: Path) -> PreTrainedModel:
    """The model without its adapter, which is merged into the weights; in float32. A base that is held in another type
    is a rounded copy, so the weights of its `source` files are taken in its place."""
    base: Any = adapter.get_base_model()
    if base.dtype == torch.float32:
        return _unloaded(adapter)
    from peft import get_peft_model

    exact = type(base).from_pretrained(str(source), dtype=torch.float32, use_safetensors=True)
    exact.generation_config = base.generation_config
    trained = {name: weight for name, weight in adapter.state_dict().items() if "lora_" in name}
    with torch.random.fork_rng(devices=[]):  # it draws weights that are replaced at once
        again = get_peft_model(exact, adapter.peft_config[adapter.active_adapter])
    unknown = again.load_state_dict(trained, strict=False).unexpected_keys
    assert not unknown, unknown
    return _unloaded(again)


def _unloaded(adapter: Any) -> PreTrainedModel:
    module: PreTrainedModel = adapter.merge_and_unload()
    return module
