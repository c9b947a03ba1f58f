"""Forests as padded rows, for models that cannot run packed and to check those that can."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from posttrain.batch.types import Batch, Node
from posttrain.models import attention
from posttrain.models.layers.elementwise import wide
from posttrain.text import printable

log = logging.getLogger("posttrain")

SELF_CHECK_TOLERANCE = 1e-3
"""Largest difference in a log-probability between the packed and the plain forward pass of the self-check."""
BFLOAT16_TOLERANCE = 1.0
"""The same in bfloat16, where rounding moves the log-probability of an unlikely token by some tenths: enough to find a
kernel that does something else."""


class PaddedOutputs(NamedTuple):
    """`logits` [M, V], `hidden` [M, H] ([0] if not asked for), and the tokens that went through the model."""

    logits: torch.Tensor
    hidden: torch.Tensor
    tokens: int


def padded_outputs(module: Any, batch: Batch, hidden: bool, own: bool = False) -> PaddedOutputs:
    """Logits, and with `hidden` last hidden states, by the model's own forward on padded rows, one row a path of the
    forest: those the trained tokens are predicted from, or their `own`."""
    head = module.get_output_embeddings().weight
    device = head.device
    rows, places = padded_rows(batch)
    if not rows:
        return PaddedOutputs(head.new_empty(0, head.shape[0]), head.new_empty(0, head.shape[1]), 0)
    width = max(len(r) for r in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    outputs = module(
        input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, output_hidden_states=hidden
    )
    at = (places[:, 0].to(device), (places[:, 1] + own).to(device))
    states = wide(outputs.hidden_states[-1][at]) if hidden else torch.empty(0, device=device)
    return PaddedOutputs(wide(outputs.logits[at]), states, ids.numel())


def padded_rows(batch: Batch) -> tuple[list[list[int]], torch.Tensor]:
    """Every path that ends in a trained node as a row; [M, 2] row and column that predict each trained token."""
    ids, trained = batch.token_ids.tolist(), set(batch.trained.tolist())
    paths: list[list[int]] = []
    rows: list[list[int]] = []
    places: list[tuple[int, int]] = []
    start = 0
    for node in batch.nodes:
        before = paths[node.parent] if node.parent >= 0 else []
        stop = start + node.length
        paths.append(before + ids[start:stop])
        own = [i for i in range(node.length) if start + i in trained]
        if own:
            places += [(len(rows), len(before) + i - 1) for i in own]
            rows.append(paths[-1])
        start = stop
    return rows, torch.tensor(places, dtype=torch.long).reshape(-1, 2)


def can_pack(name: str, module: Any, logprobs: Callable[[Batch, bool], torch.Tensor]) -> bool:
    """Whether forests give this model's own numbers: full attention in every layer, a plain linear head, and a small
    tree that agrees with padded rows. `logprobs` are a batch's, packed or not. A model that can keeps our attention."""
    shown = printable(name)
    config = module.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None):
        module.set_attn_implementation("eager")  # torch's attention would leave the cap out
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (
        getattr(config, "sliding_window", None) and not getattr(config, "layer_types", None)
    ):
        log.warning("%s has layers other than full attention: rows are padded instead of packed", shown)
        return False
    if getattr(config, "final_logit_softcapping", None):
        log.warning("%s caps its logits: rows are padded instead of packed", shown)
        return False
    if not getattr(module, "_supports_attention_backend", False):
        log.warning("%s does not take other attention functions: rows are padded instead of packed", shown)
        return False
    module.set_attn_implementation(attention.IMPLEMENTATION)
    return packs_alike(name, module, logprobs, SELF_CHECK_TOLERANCE)


def packs_alike(name: str, module: Any, logprobs: Callable[[Batch, bool], torch.Tensor], tolerance: float) -> bool:
    """Whether a small tree agrees with padded rows; the model gets its own attention back if not."""
    shown = printable(name)
    head = module.get_output_embeddings().weight
    batch = _check_batch(head.shape[0]).to(head.device)
    with torch.no_grad():
        plain = logprobs(batch, False)
        try:
            worst = float((plain - logprobs(batch, True)).abs().max())
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            log.warning("%s cannot run packed rows (%s): rows are padded instead", shown, printable(error))
            module.set_attn_implementation("sdpa")
            return False
    if worst > tolerance:
        log.warning("%s differs by %.2g when packed: rows are padded instead", shown, worst)
        module.set_attn_implementation("sdpa")
        return False
    return True


@contextmanager
def in_float32(module: nn.Module) -> Iterator[None]:
    """Within, each part of a model that is held in fewer bits computes with a float32 copy of its weights, which lives
    for that part's own forward pass: the exact model without the memory of it."""
    held: dict[nn.Parameter, torch.Tensor] = {}

    def widen(part: nn.Module, _: Any) -> None:
        for parameter in part.parameters(recurse=False):
            held[parameter] = parameter.data
            parameter.data = wide(parameter.data)

    def give_back(part: nn.Module, *_: Any) -> None:
        for parameter in part.parameters(recurse=False):
            parameter.data = held.pop(parameter)

    parts = [m for m in module.modules() if any(p.dtype.itemsize < 4 for p in m.parameters(recurse=False))]
    hooks = [
        hook
        for part in parts
        for hook in (part.register_forward_pre_hook(widen), part.register_forward_hook(give_back))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, data in held.items():  # of parts that failed
            parameter.data = data


def _check_batch(vocabulary: int) -> Batch:
    """A tree of two branches and a row of fixed tokens: the self-check at load."""
    nodes = (Node(-1, 5), Node(0, 3), Node(0, 6), Node(-1, 7))
    n = sum(node.length for node in nodes)
    ids = torch.tensor([(7 + 13 * i * i) % vocabulary for i in range(n)])
    position = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6])
    trained = torch.tensor([5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 20])
    parent = torch.tensor([4, 5, 6, 4, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19])
    sequence = torch.tensor([0] * 3 + [1] * 6 + [2] * 6)
    return Batch(ids, position, trained, parent, sequence, nodes, 3, torch.ones(len(trained)))
