"""bfloat16 on the real model SmolLM2-135M-Instruct: how far numbers move from float32, and that small steps count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.batch.packing import Branch, Tree, pack
from posttrain.batch.types import Batch, LossOutput
from posttrain.evals.retention.retention import retention_text
from posttrain.models import LanguageModel, load_model
from posttrain.models.compute import FLOAT32_CPU, Compute
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.train.policy import LocalPolicy, Optimization

pytestmark = [pytest.mark.stress, pytest.mark.real_model, pytest.mark.timeout(1200)]

BFLOAT16 = Compute(torch.device("cpu"), torch.bfloat16)
WIDTH = 512


@pytest.fixture(scope="module")
def plain() -> LanguageModel:
    return load_model("smollm2-135m", compute=FLOAT32_CPU, trained=True)


@pytest.fixture
def rounded() -> LanguageModel:
    return load_model("smollm2-135m", compute=BFLOAT16, trained=True)


def rows(lm: LanguageModel, count: int, width: int = WIDTH) -> list[Tree]:
    """The first tokens of the retention text; all but the first of each row are trained."""
    ids = lm.tokenizer.encode(retention_text())[: count * width]
    assert len(ids) == count * width
    mask = np.arange(width) > 0
    return [Tree((), (Branch.of(ids[i : i + width], mask, 1 / width),)) for i in range(0, len(ids), width)]


def likelihood(batch: Batch, outputs: TokenOutputs) -> LossOutput:
    loss = -(batch.weights * outputs.logprobs).sum()
    return LossOutput(loss, {"loss": loss.detach()})


@torch.no_grad()
def logprobs(lm: LanguageModel, trees: list[Tree]) -> torch.Tensor:
    return torch.cat([lm.logprobs(pack([tree])).logprobs for tree in trees]).double()


def test_log_probabilities(plain: LanguageModel, rounded: LanguageModel) -> None:
    """Over 4,599 tokens the mean k3, e^d - 1 - d of the difference d to float32, is at most 5e-4, and the root of the
    mean square no more than that of transformers in bfloat16."""
    trees = rows(plain, 9)
    theirs = AutoModelForCausalLM.from_pretrained(plain.source, dtype=torch.bfloat16, attn_implementation="sdpa")
    of_theirs = []
    with torch.no_grad():
        for tree in trees:
            ids = torch.as_tensor(np.array(tree.branches[0].token_ids))[None]
            log_p = theirs(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            of_theirs.append(log_p.gather(1, ids[0, 1:, None])[:, 0])
    exact = logprobs(plain, trees)
    ours, peers = logprobs(rounded, trees) - exact, torch.cat(of_theirs).double() - exact
    k3 = float((ours.exp() - 1 - ours).mean())
    rms = [float(d.square().mean().sqrt()) for d in (ours, peers)]
    print(f"{len(exact)} tokens: k3 {k3:.2e}, rms {rms[0]:.4f}, of transformers {rms[1]:.4f}")
    assert len(exact) >= 4000 and k3 <= 5e-4 and rms[0] <= rms[1]


def test_gradient(plain: LanguageModel, rounded: LanguageModel) -> None:
    """That of all weights together, over 2,044 tokens, has a cosine of at least 0.998 with that of float32."""
    found = []
    for lm in (rounded, plain):
        policy = LocalPolicy(lm, Optimization(1e-6), WIDTH)
        policy.forward_backward(rows(lm, 4), likelihood)
        found.append([p.grad for p in policy.parameters.values()])
    dot = aa = bb = 0.0
    for a, b in zip(*found, strict=True):
        assert a is not None and b is not None and a.dtype == torch.float32
        x, y = a.double(), b.double()
        dot, aa, bb = dot + float((x * y).sum()), aa + float((x * x).sum()), bb + float((y * y).sum())
    cosine = dot / (aa * bb) ** 0.5
    print(f"cosine {cosine:.5f}, norm {(aa / bb) ** 0.5:.4f} of that of float32")
    assert cosine >= 0.998
    plain.module.zero_grad()


def test_small_steps_move_the_weights(rounded: LanguageModel) -> None:
    """100 steps at a learning rate of 1e-6, on 64 tokens each, change at least 99% of all weights. The head is the
    embedding, so that tokens that are not in the text have a gradient too."""
    policy = LocalPolicy(rounded, Optimization(1e-6), 64)
    before = {name: p.detach().clone() for name, p in policy.parameters.items()}
    for tree in rows(rounded, 100, width=64):
        policy.forward_backward([tree], likelihood)
        policy.step()
    moved = {name: int((p != before[name]).sum()) for name, p in policy.parameters.items()}
    sizes = {name: p.numel() for name, p in policy.parameters.items()}
    share = sum(moved.values()) / sum(sizes.values())
    least = min(moved, key=lambda name: moved[name] / sizes[name])
    print(f"{share:.4%} of {sum(sizes.values())} weights moved; least of {least}: {moved[least] / sizes[least]:.4%}")
    assert share >= 0.99
