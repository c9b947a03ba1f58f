"""Whether the numbers are right: a card's float32 beside a CPU's, the device's type beside float32, the sampler beside
the trainer, and TRL's first loss on the same rows."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from on_gpu.measure import difference, round_figures
from on_gpu.parts import Record, several
from on_gpu.setting import SEED, Setting, language_model, letters
from posttrain.batch.packing import Tree, pack
from posttrain.chat import EncodedRow
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.train.sft import loss_of, sft_trees
from posttrain.types import Sampling

WIDE = 0.1
"""A probability ratio farther than this from 1 is counted."""


def check_rows(setting: Setting) -> list[EncodedRow]:
    """Rows of which each two share their prompt, and ragged answers."""
    sizes, rnd = setting.sizes, random.Random(SEED)
    rows = []
    for i in range(sizes.check_rows):
        if i % 2 == 0:
            prompt = [rnd.randrange(3, 259) for _ in range(sizes.check_row // 2)]
        answer = [rnd.randrange(3, 259) for _ in range(sizes.check_row // 2 - i)]
        rows.append(EncodedRow(tuple(prompt + answer), (False,) * len(prompt) + (True,) * len(answer), "row"))
    return rows


def logprobs(lm: LanguageModel, trees: Sequence[Tree]) -> torch.Tensor:
    with torch.no_grad():
        return lm.logprobs(pack(trees).to(lm.device)).logprobs.double().cpu()


def gradients(lm: LanguageModel, trees: Sequence[Tree]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradient of every parameter, in main memory."""
    policy = LocalPolicy(lm, Optimization(1e-5), 1 << 20)
    loss = policy.forward_backward(trees, loss_of)["loss"]
    found = {}
    for name, parameter in policy.parameters.items():
        assert parameter.grad is not None
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        found[name], parameter.grad = gradient.float().cpu(), None
    return float(loss), found


def exact(setting: Setting, record: Record, shape: str) -> None:
    """Float32 on the device beside float32 on the CPU: log-probabilities, loss, the gradient of each parameter."""
    trees = sft_trees(check_rows(setting))
    module = setting.module(shape, torch.float32)
    there = language_model(shape, module, setting.device, torch.float32)
    here = language_model(shape, copy.deepcopy(module).cpu(), torch.device("cpu"), torch.float32)
    a, b = logprobs(there, trees), logprobs(here, trees)
    record({"largest difference of a log-probability": float(f"{float((a - b).abs().max()):.3g}")})
    loss, one = gradients(there, trees)
    plain_loss, other = gradients(here, trees)
    worst = max(difference(one[name], other[name]) for name in other)
    found = {"loss, relative": abs(loss / plain_loss - 1), "worst gradient, relative": worst}
    record(round_figures(found))


def rounded(setting: Setting, record: Record, shape: str) -> None:
    """The device's type beside float32 on the same device: the differences d of log-probabilities, those of
    transformers' own forward pass on padded rows in that type, and the gradient."""
    trees = sft_trees(check_rows(setting))
    module = setting.module(shape, torch.float32)
    whole = language_model(shape, module, setting.device, torch.float32)
    plain = logprobs(whole, trees)
    plain_loss, other = gradients(whole, trees)
    lm = setting.model(shape)
    d = logprobs(lm, trees) - plain
    record(spread(d))
    peer = setting.module(shape, setting.dtype)
    theirs = language_model(shape, peer, setting.device, setting.dtype)
    theirs.packed = False  # padded rows through the model's own forward pass
    padded = logprobs(theirs, trees) - plain
    rms, of_padded = (float(x.square().mean().sqrt()) for x in (d, padded))
    record(round_figures({"RMS of transformers' own": of_padded, "RMS ÷ its": rms / max(of_padded, 1e-12)}))
    loss, one = gradients(lm, trees)
    names = [name for name in other if bool(other[name].any())]
    cosines = [float(torch.cosine_similarity(one[n].flatten(), other[n].flatten(), dim=0)) for n in names]
    norms = [float(one[n].norm() / other[n].norm()) for n in names]
    total = torch.cat([one[n].flatten() for n in names]), torch.cat([other[n].flatten() for n in names])
    found = {
        "loss, relative": abs(loss / plain_loss - 1),
        "gradient cosine": float(torch.cosine_similarity(*total, dim=0)),
        "least cosine of a parameter": min(cosines),
        "largest change of a norm": max(abs(n - 1) for n in norms),
    }
    record({name: float(f"{value:.6g}") for name, value in found.items()})


def spread(d: torch.Tensor) -> dict[str, Any]:
    """Of differences d = log p − log q of a token: k3 is exp(d) − 1 − d, whose mean estimates a KL divergence."""
    size = d.abs()
    return round_figures(
        {
            "tokens": len(d),
            "mean d": float(d.mean()),
            "sd": float(d.std(correction=0)),
            "p95 |d|": float(size.quantile(0.95)),
            "max |d|": float(size.max()),
            "mean k3": float((d.exp() - 1 - d).mean()),
            "share of ratios beyond ±10%": float(((d.exp() - 1).abs() > WIDE).double().mean()),
        }
    )


def sampler(setting: Setting, record: Record, shape: str) -> None:
    """The sampler's log-probabilities of its own tokens beside those of a forward pass of the trainer."""
    sizes, lm = setting.sizes, setting.model(shape)
    engine = LocalEngine(lm, slots=sizes.decode_rows)
    rnd, rows = random.Random(SEED), 2 * sizes.check_rows
    prompts = [tuple(lm.tokenizer(letters(rnd, sizes.prompt))["input_ids"]) for _ in range(sizes.check_rows)]
    sampling = Sampling(sizes.check_row // 2)
    requests = [Request(i, prompts[i // 2], sampling, seed=i) for i in range(rows)]
    done = dict(engine.generate(requests))
    engine.pause()
    encoded = [
        EncodedRow(p + tuple(ids), (False,) * len(p) + (True,) * len(ids), "row")
        for p, ids in ((requests[i].prompt_ids, done[i].token_ids.tolist()) for i in range(rows))
    ]
    sampled = torch.cat([torch.tensor(done[i].sampler_logprobs.tolist(), dtype=torch.float64) for i in range(rows)])
    record(spread(sampled - logprobs(lm, sft_trees(encoded))))


def first_loss(setting: Setting, record: Record) -> None:
    """Our loss on the rows of `with_trl.first_loss`."""
    lm = language_model("0.5b", setting.module("0.5b", torch.float32), setting.device, torch.float32)
    record({"loss": gradients(lm, sft_trees(check_rows(setting)))[0]})


def every(setting: Setting, record: Record) -> None:
    several(
        record,
        ("float32, tiny", partial(exact, setting, shape="tiny")),
        ("float32, 0.5B", partial(exact, setting, shape="0.5b")),
        ("rounding", partial(rounded, setting, shape="0.5b")),
        ("sampler", partial(sampler, setting, shape="0.5b")),
        ("first loss", partial(first_loss, setting)),
    )
