"""Attention over a forest: blocks with masks, and rows of any length by one call, against an N x N matrix."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from random import Random

import pytest
import torch
from torch.nn.attention import varlen

from posttrain.batch.types import Node
from posttrain.models.attention import ForestPlan, VarlenPlan, forest, plan_for
from posttrain.models.attention.varlen import Segments, plain_segments
from posttrain.models.compute import FLOAT32_CPU, Compute

CPU, META = torch.device("cpu"), torch.device("meta")
FLOAT64, BFLOAT16 = Compute(CPU, torch.float64), Compute(CPU, torch.bfloat16)


def dense_attention(
    nodes: Sequence[Node], query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Softmax attention with an N x N matrix of who is whose ancestor, in float64. Result [N, heads, D]."""
    n = query.shape[2]
    sees = torch.zeros(n, n, dtype=torch.bool)
    paths: list[list[int]] = []
    start = 0
    for node in nodes:
        before = paths[node.parent] if node.parent >= 0 else []
        own = list(range(start, start + node.length))
        for i, token in enumerate(own):
            sees[token, before + own[: i + 1]] = True
        paths.append(before + own)
        start += node.length
    repeat = query.shape[1] // key.shape[1]
    key, value = (t[0].repeat_interleave(repeat, 0) for t in (key, value))
    scores = (query[0] @ key.transpose(1, 2) * scaling).masked_fill(~sees, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(0, 1)


def random_nodes(random: Random) -> list[Node]:
    """Roots and children of any earlier node, some of them empty."""
    children = (
        Node(random.choice([-1, *range(i)]), random.choice([0, 1, random.randint(2, 40)]))
        for i in range(1, random.randint(2, 20))
    )
    return [Node(-1, random.randint(1, 30)), *children]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("limit", [1 << 6, 1 << 12, forest.BLOCK_LIMIT])
def test_forest_attention_is_attention_to_ancestors(seed: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients for random trees, with blocks of every size."""
    monkeypatch.setattr(forest, "BLOCK_LIMIT", limit)
    # rows of one length, which need no gather, and rows that are attended to one by one
    special = {0: [Node(-1, 9)] * 4, 1: [Node(-1, 40), Node(-1, 31), Node(-1, 55)]}
    nodes = special[seed] if seed in special else random_nodes(Random(seed))
    assert ForestPlan(nodes).apart == ([40, 31, 55] if seed == 1 else [])
    n = sum(node.length for node in nodes)
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        torch.randn(1, heads, n, 8, dtype=torch.float64, generator=generator, requires_grad=True) for heads in (4, 2, 2)
    ]
    weigh = torch.randn(n, 4, 8, dtype=torch.float64, generator=generator)
    got, expected = ForestPlan(nodes).attend(0, *inputs, 0.3), dense_attention(nodes, *inputs, 0.3)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad((out * weigh).sum(), inputs) for out in (got, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_forests_are_cut_into_blocks_of_similar_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equal trunk-less rows need no mask; branches of lengths 3 and 40 do not share a block; nothing is as large as
    tokens x tokens."""
    monkeypatch.setattr(forest, "BLOCK_LIMIT", 1 << 11)
    plan = ForestPlan([Node(-1, 12), Node(-1, 12), Node(-1, 4), Node(2, 40), Node(2, 3), Node(2, 3)])
    masks = [None if b.mask is None else tuple(b.mask.shape) for b in plan.blocks]
    assert masks == [None, None, (1, 1, 40, 44), (2, 1, 3, 7)]
    assert [b.rows for b in plan.blocks] == [2, 1, 1, 2]  # rows of 12, the trunk, the long branch, the short ones
    assert ForestPlan([Node(-1, 12)]).even == 1 and ForestPlan([Node(-1, 5)] * 3).even == 3 and not plan.even
    assert ForestPlan([Node(-1, 40), Node(-1, 30)]).apart == [40, 30] and not ForestPlan([Node(-1, 9)] * 4).apart


# -- rows of any length by one call ------------------------------------------------------------------------------------

FORESTS: dict[str, list[Node]] = {
    "ragged": [Node(-1, 12), Node(-1, 1), Node(0, 40), Node(0, 3), Node(0, 3), Node(3, 9), Node(-1, 31)],
    "alone": [Node(-1, 9), Node(-1, 40), Node(-1, 1)],
    "empty nodes": [Node(-1, 0), Node(0, 5), Node(-1, 6), Node(2, 0), Node(3, 4), Node(3, 0), Node(4, 2)],
    "deep": [Node(i - 1, 1 + i % 4) for i in range(30)],
}


def results(
    plan: ForestPlan | VarlenPlan, nodes: Sequence[Node], heads: tuple[int, int], dim: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Attention of random inputs, and their gradients."""
    generator = torch.Generator().manual_seed(dim)
    n = sum(node.length for node in nodes)
    inputs = [
        torch.randn(1, h, n, dim, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
        for h in (heads[0], heads[1], heads[1])
    ]
    weigh = torch.randn(n, heads[0], dim, dtype=torch.float64, generator=generator)
    out = plan.attend(0, *inputs, dim**-0.5)
    return [out.detach(), *torch.autograd.grad((out * weigh).sum(), inputs)]


@pytest.mark.parametrize("name", FORESTS)
@pytest.mark.parametrize(("heads", "dim"), [((4, 2), 8), ((3, 3), 5), ((6, 1), 16)])
def test_rows_of_any_length_equal_blocks(name: str, heads: tuple[int, int], dim: int) -> None:
    """Values and gradients of both plans: in float64, and in bfloat16 up to its rounding."""
    nodes = FORESTS[name]
    expected = results(ForestPlan(nodes), nodes, heads, dim, torch.float64)
    got = results(VarlenPlan(nodes, FLOAT64, plain_segments), nodes, heads, dim, torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    rounded = results(VarlenPlan(nodes, BFLOAT16, plain_segments), nodes, heads, dim, torch.bfloat16)
    for one, exact in zip(rounded, expected, strict=True):
        assert one.dtype == torch.bfloat16
        assert float((one.double() - exact).norm()) < 0.01 * float(exact.norm())


@pytest.mark.parametrize("seed", range(8))
def test_random_forests_by_one_call(seed: int) -> None:
    nodes = random_nodes(Random(seed))
    expected = results(ForestPlan(nodes), nodes, (4, 2), 8, torch.float64)
    got = results(VarlenPlan(nodes, FLOAT64, plain_segments), nodes, (4, 2), 8, torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_inputs_are_rounded_and_gradients_added_in_float32() -> None:
    """300 children read one token, and each adds 0.5 to the gradient of its value, which in bfloat16 would stay at 128.
    The gradient has the type of the input."""
    nodes = [Node(-1, 1), *[Node(0, 1)] * 300]
    n = len(nodes)
    query, key = torch.zeros(1, 1, n, 4), torch.zeros(1, 1, n, 4)
    value = torch.zeros(1, 1, n, 4, requires_grad=True)
    out = VarlenPlan(nodes, BFLOAT16, plain_segments).attend(0, query, key, value, 1.0)
    assert out.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(out.sum(), [value])
    assert gradient.dtype == torch.float32
    assert gradient[0, 0, 0].tolist() == [1 + 300 * 0.5] * 4  # itself whole, and half of what each child sees


def test_segments_are_made_once_and_ancestors_gathered_only_where_there_are_some() -> None:
    """Nodes of 3, 2 and 0 tokens and a grandchild of 1: rows of 3, 2 and 1 queries and 3, 5 and 6 keys."""
    plan = VarlenPlan([Node(-1, 3), Node(0, 2), Node(1, 0), Node(2, 1)], FLOAT32_CPU)
    assert plan.segments.query_starts.tolist() == [0, 3, 5, 6]
    assert plan.segments.key_starts.tolist() == [0, 3, 8, 14]
    assert plan.index.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5] and plan.gathers
    assert (plan.segments.longest_query, plan.segments.longest_key) == (3, 6)
    assert plan.segments.query_starts.dtype == torch.int32
    assert not VarlenPlan([Node(-1, 3), Node(-1, 2)], FLOAT32_CPU).gathers


class Kernel:
    """A stand-in for a kernel: takes as many key heads as query heads, or fewer if `grouped`; may be wrong."""

    def __init__(self, grouped: bool = False, wrong: bool = False, refuses: bool = False) -> None:
        self.grouped, self.wrong, self.refuses = grouped, wrong, refuses
        self.key_heads: list[int] = []

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scaling: float
    ) -> torch.Tensor:
        self.key_heads.append(key.shape[1])
        if self.refuses or (not self.grouped and query.shape[1] != key.shape[1]):
            raise RuntimeError("heads of this form are not supported\nmore")
        out = plain_segments(query, key, value, segments, scaling)
        return out * 1.1 if self.wrong else out


@pytest.mark.parametrize(
    ("kernel", "key_heads"),
    [(Kernel(grouped=True), 2), (Kernel(), 4), (Kernel(wrong=True), None), (Kernel(refuses=True), None)],
)
def test_a_kernel_is_tried_before_it_is_used(
    kernel: Kernel, key_heads: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It gets fewer key heads where it takes them, else repeated ones; where it refuses or is wrong, blocks with masks
    stand in, which is said once. Results are the same."""
    nodes = FORESTS["ragged"]
    expected = results(ForestPlan(nodes), nodes, (4, 2), 8, torch.float32)
    caplog.set_level(logging.WARNING, "posttrain")
    for _ in range(2):
        tried = len(kernel.key_heads)
        got = results(VarlenPlan(nodes, FLOAT32_CPU, kernel), nodes, (4, 2), 8, torch.float32)
        torch.testing.assert_close(got, expected)
    assert kernel.key_heads[tried:] == ([] if key_heads is None else [key_heads])
    why = "its results are wrong" if kernel.wrong else "heads of this form are not supported"
    said = [] if key_heads else [f"cannot be used with 4 query and 2 key heads of 8 ({why})"]
    assert [record.getMessage()[-len(said[0]) :] for record in caplog.records] == said


def varlen_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size):  # type: ignore[no-untyped-def]
    """torch 2.11's function, which takes fewer key heads or not, without an argument for it."""
    assert window_size == (-1, 0) and return_aux is None
    return plain_segments(query, key, value, Segments(cu_seq_q, cu_seq_k, max_q, max_k), scale)


def varlen_2_13(query, key, *given, enable_gqa=False, block_table=None, **options):  # type: ignore[no-untyped-def]
    assert enable_gqa or query.shape[1] == key.shape[1]
    return varlen_2_11(query, key, *given, **options)


@pytest.mark.parametrize("function", [varlen_2_11, varlen_2_13])
def test_torch_is_called_by_the_signature_that_it_has(
    function: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"scale", "window_size", "return_aux"} <= inspect.signature(varlen.varlen_attn).parameters.keys()
    monkeypatch.setattr(varlen, "varlen_attn", function)
    nodes = FORESTS["ragged"]
    plan = VarlenPlan(nodes, FLOAT64)
    inputs = [torch.randn(1, h, 99, 8, dtype=torch.float64) for h in (4, 2, 2)]
    got = plan.attend_with(1, inputs[0], inputs[1], inputs[2], 0.5)
    torch.testing.assert_close(got, ForestPlan(nodes).attend(0, inputs[0], inputs[1], inputs[2], 0.5))


def test_the_plan_of_a_device_and_type() -> None:
    nodes = [Node(-1, 3)]
    for compute in (FLOAT32_CPU, BFLOAT16, Compute(META, torch.bfloat16)):
        assert isinstance(plan_for(nodes, compute), ForestPlan)


def test_off_the_cpu_key_heads_are_repeated() -> None:
    """No device but the CPU has a kernel for a mask with fewer key heads than query heads."""
    nodes = FORESTS["ragged"]
    query, key = torch.empty(1, 4, 99, 8, device=META), torch.empty(1, 2, 99, 8, device=META)
    assert ForestPlan(nodes, META).attend(0, query, key, key, 1.0).shape == (99, 4, 8)
