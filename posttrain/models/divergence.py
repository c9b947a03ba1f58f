"""How far one model's next-token distributions are from another's: logits are made in chunks as in `token_logprobs`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from posttrain.batch.types import Batch, KeptPlaces
from posttrain.models.attention import plan_for
from posttrain.models.compute import Compute
from posttrain.models.kernels import products_for
from posttrain.models.language_model import LanguageModel
from posttrain.models.layers.compiled import fast
from posttrain.models.layers.products import Products
from posttrain.models.token_logprobs import chunk_rows, restrict, weight_total


class Divergence(NamedTuple):
    """`values` [M] in nats, differentiable in the student; `entropy` [M] of the student, detached, in nats."""

    values: torch.Tensor
    entropy: torch.Tensor


class Head(NamedTuple):
    """Hidden states [M, H] at which tokens are predicted; the weight [V, H] and bias [V] of their logits, and what
    multiplies by them (None: products in the type of the weight)."""

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    products: Products | None = None

    def logits(self, part: slice) -> torch.Tensor:
        """[.., V] of some rows; no gradients of their own."""
        return self.made_by.logits(self.hidden[part], self.weight, self.bias)

    def rounded(self) -> Head:
        """The head as its products see it, rounded once and not for every chunk."""
        products = self.made_by
        return Head(products.rounded(self.hidden), products.rounded(self.weight), self.bias, products)

    @property
    def made_by(self) -> Products:
        return self.products or products_for(Compute.of(self.weight))


def generalised_jsd(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """The generalised Jensen-Shannon divergence of each row, from log-probabilities [M, V] (Agarwal et al. 2023,
    arXiv:2306.13649, equation 1), P being the teacher and Q the student:

    D_β = β KL(P ‖ m) + (1−β) KL(Q ‖ m),  m = βP + (1−β)Q.

    That is 0 at both ends, while D_β/β tends to KL(P ‖ Q) and D_β/(1−β) to KL(Q ‖ P) there; so β = 0 stands for the
    forward KL(P ‖ Q) and β = 1 for the reverse KL(Q ‖ P), neither of them scaled. Symmetric at β = 1/2, where it is at
    most ln 2."""
    if beta == 0:
        return (teacher.exp() * (teacher - student)).sum(-1)
    value = (student.exp() * _gap(student, teacher, beta)).sum(-1)
    if beta == 1:
        return value
    return value + beta * (teacher.exp() * (teacher - _mixture(student, teacher, beta))).sum(-1)


def divergence_from_logits(
    student: torch.Tensor, teacher: torch.Tensor, *, beta: float, temperature: float = 1.0
) -> Divergence:
    """`generalised_jsd` of softmax(logits / temperature), from logits [M, V] that the models have already made."""
    q = (student.float() / temperature).log_softmax(-1)
    p = (teacher.float() / temperature).log_softmax(-1)
    return Divergence(generalised_jsd(q, p, beta), _entropy(q.detach()))


def token_divergence(student: Head, teacher: Head, *, beta: float, temperature: float = 1.0) -> Divergence:
    """The same numbers as `divergence_from_logits` without a tensor of tokens x vocabulary. Both heads have the same V;
    their widths H may differ. No gradient goes to the teacher."""
    made_by = (student.made_by, teacher.made_by)
    return Divergence(*_ChunkedDivergence.apply(made_by, *student[:3], *teacher[:3], beta, temperature))


def batch_divergence(
    student: LanguageModel, teacher: LanguageModel, batch: Batch, *, beta: float, temperature: float = 1.0
) -> Divergence:
    """The divergence at each trained token of the batch, [M] by its mask; differentiable in the student if gradients
    are on."""
    if student.packed and teacher.packed:
        own = _head(student, batch)
        with torch.no_grad():
            other = _head(teacher, batch)
        return token_divergence(own, other, beta=beta, temperature=temperature)
    logits = _logits(student, batch)
    with torch.no_grad():
        others = _logits(teacher, batch)
    return divergence_from_logits(logits, others, beta=beta, temperature=temperature)


def batch_sampling_kl(
    policy: LanguageModel, reference: LanguageModel, batch: Batch, temperature: float = 1.0
) -> torch.Tensor:
    """`sampling_kl` at each trained token, [M] by its mask; the batch's kept tokens apply. Without gradients."""
    with torch.no_grad():
        if not (policy.packed and reference.packed):
            return sampling_kl(_logits(policy, batch), _logits(reference, batch), temperature, batch.kept_token_ids)
        own, other = _head(policy, batch).rounded(), _head(reference, batch).rounded()
        chunk = chunk_rows(own.weight, heads=2)
        parts = [slice(i, i + chunk) for i in range(0, len(own.hidden), chunk)]
        found = [
            sampling_kl(
                own.logits(part),
                other.logits(part),
                temperature,
                batch.kept_token_ids and batch.kept_token_ids[part],
            )
            for part in parts
        ]
    return torch.cat(found) if found else own.hidden.new_zeros(0)


def sampling_kl(
    policy: torch.Tensor, reference: torch.Tensor, temperature: float = 1.0, kept: KeptPlaces | None = None
) -> torch.Tensor:
    """KL(π ‖ π_ref) = Σ_v π(v) (log π(v) − log π_ref(v)) of each row, in nats, from logits [M, V]: [M].

    π = softmax(logits / temperature) over the row's `kept` tokens; π_ref has the same temperature and the whole
    vocabulary, else it may give none to a token that π draws. Summed over the prefixes of an answer sampled from π it
    is without bias for the KL of whole answers, with at most the variance of Σ log π/π_ref (Amini et al. 2025,
    arXiv:2504.10637)."""
    out = []
    blocks, start = products_for(Compute.of(policy)).blocks, 0
    for logits in zip(blocks(policy), blocks(reference), strict=True):
        own, other = (_at_temperature(block, temperature) for block in logits)
        part = slice(start, start + len(own))
        start += len(own)
        q = restrict(own, kept and kept[part]).log_softmax(-1)
        gap = q - other.log_softmax(-1)
        if kept is not None:
            gap.masked_fill_(q.isneginf(), 0.0)  # what has no probability adds nothing
        out.append(torch.linalg.vecdot(q.exp_(), gap))
    return torch.cat(out) if out else policy.new_zeros(0)


def _head(lm: LanguageModel, batch: Batch) -> Head:
    hidden, output = _hidden(lm, batch), lm.module.get_output_embeddings()
    bias, divisor = output.bias, lm.logit_divisor
    if divisor != 1.0:
        hidden, bias = hidden / divisor, None if bias is None else bias / divisor
    return Head(hidden, output.weight, bias, lm.kernels.products)


def _hidden(lm: LanguageModel, batch: Batch) -> torch.Tensor:
    hidden = lm.hidden_states(batch.token_ids, batch.position_ids, plan_for(batch.nodes, lm.compute))
    return hidden.index_select(0, batch.parent)


def _logits(lm: LanguageModel, batch: Batch) -> torch.Tensor:
    return lm.head(_hidden(lm, batch)) if lm.packed else lm.padded_logits(batch)


def _mixture(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """log(βP + (1−β)Q) for 0 < β < 1."""
    return torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))


def _gap(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """dD/dQ up to a constant, for β > 0: (1−β)(log Q − log m), at β = 1 log Q − log P."""
    return student - teacher if beta == 1 else (1 - beta) * (student - _mixture(student, teacher, beta))


def _gradient(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """dD/d(student logits at temperature 1): Q (g − Σ Q g) with g = dD/dQ; for the forward KL that is Q − P."""
    q = student.exp()
    if beta == 0:
        return q - teacher.exp()
    gap = _gap(student, teacher, beta)
    return q * (gap - (q * gap).sum(-1, keepdim=True))


def _entropy(logprobs: torch.Tensor) -> torch.Tensor:
    return -(logprobs.exp() * logprobs).sum(-1)


def _at_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1 else logits / temperature


@fast
def _row_divergence(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`generalised_jsd` and the student's entropy, from logits."""
    q, p = student.log_softmax(-1), teacher.log_softmax(-1)
    return generalised_jsd(q, p, beta), _entropy(q)


@fast
def _row_slopes(student: torch.Tensor, teacher: torch.Tensor, beta: float, scale: torch.Tensor) -> torch.Tensor:
    """`scale` [R, 1] times `_gradient`, from logits."""
    return _gradient(student.log_softmax(-1), teacher.log_softmax(-1), beta).mul_(scale)


class _ChunkedDivergence(torch.autograd.Function):
    """The gradient of `_gradient` through the student's head, with the logits made again chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        made_by: tuple[Products, Products],
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        teacher_hidden: torch.Tensor,
        teacher_weight: torch.Tensor,
        teacher_bias: torch.Tensor | None,
        beta: float,
        temperature: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = Head(hidden, weight, bias, made_by[0]).rounded()
        other = Head(teacher_hidden, teacher_weight, teacher_bias, made_by[1]).rounded()
        chunk = chunk_rows(weight, heads=2)
        values = hidden.new_zeros(len(hidden), dtype=torch.promote_types(hidden.dtype, torch.float32))
        entropies = torch.zeros_like(values)
        kept = None
        for i in range(0, len(hidden), chunk):
            part = slice(i, i + chunk)
            kept = student, teacher = [_at_temperature(head.logits(part), temperature) for head in (own, other)]
            blocks = zip(made_by[0].blocks(student), made_by[0].blocks(teacher), strict=True)  # they stay in a cache
            found = [_row_divergence(q, p, beta) for q, p in blocks]
            values[part], entropies[part] = (torch.cat(rows) for rows in zip(*found, strict=True))
        ctx.save_for_backward(*own[:3], *other[:3])
        ctx.made_by, ctx.beta, ctx.temperature, ctx.chunk = made_by, beta, temperature, chunk
        ctx.kept = kept if len(hidden) <= chunk else None
        ctx.mark_non_differentiable(entropies)
        return values, entropies

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias = ctx.saved_tensors
        own = Head(hidden, weight, bias, ctx.made_by[0])
        other = Head(teacher_hidden, teacher_weight, teacher_bias, ctx.made_by[1])
        products = own.made_by
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[1] else None
        grad_weight = weight_total(weight, empty=False) if ctx.needs_input_grad[2] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[3] else None
        kept, ctx.kept = ctx.kept, None  # overwritten below
        for i in range(0, len(hidden), ctx.chunk):
            part = slice(i, i + ctx.chunk)
            student, teacher = kept or [_at_temperature(head.logits(part), ctx.temperature) for head in (own, other)]
            scale = grad[part, None] / ctx.temperature
            for q, p, s in zip(*map(products.blocks, (student, teacher, scale)), strict=True):
                q.copy_(_row_slopes(q, p, ctx.beta, s))
            d = products.rounded(student).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = products.input_gradient(d, weight)
            if grad_weight is not None:
                products.add_weight_gradient(grad_weight, d, hidden[part], first=False)
            if grad_bias is not None:
                grad_bias += d.sum(0, dtype=grad_bias.dtype)
        return None, grad_hidden, grad_weight, grad_bias, None, None, None, None, None
