"""What this torch does on this card: rates that nothing exceeds, and operations that the trainer relies on, each beside
a plain float64 reference. On a CPU the plain form in float32 stands in for what a card alone has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from on_gpu.measure import difference, round_figures, seconds_of, timed
from on_gpu.parts import NeedsCuda, Record, several
from on_gpu.setting import SEED, Setting
from posttrain.models import LanguageModel

LARGEST_DIFFERENCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Of a result from float64, relative: rounding of the inputs and of the result, with room for long sums."""
HEADS, KEY_HEADS, WIDTH = 14, 2, 64


def ceilings(setting: Setting, record: Record) -> None:
    """The largest rates: products in the device's type, copies, and the time between two small operations."""
    device, dtype, n = setting.device, setting.dtype, setting.sizes.square
    record({f"TFLOP/s {n}³": product_rate(device, dtype, n, n, n)})
    tokens = setting.sizes.pass_tokens
    for name in ("0.5b", "1.5b", "7b"):
        shape = setting.shape(name)
        for what, out in (("square", shape.hidden), ("SwiGLU", shape.inner), ("head", shape.vocabulary)):
            rows = tokens // 4 if what == "head" else tokens
            record({f"TFLOP/s {name} {what}": product_rate(device, dtype, rows, shape.hidden, out)})
    source = torch.ones(setting.sizes.copy_numbers, device=device)
    target = torch.empty_like(source)
    seconds = seconds_of(device, lambda: target.copy_(source))
    record({"copy TB/s": float(f"{2 * source.nbytes / seconds / 1e12:.4g}")})
    small = torch.zeros(8, device=device)
    record({"µs a small operation": round(seconds_of(device, lambda: small.add_(1), 200) * 1e6, 2)})


def product_rate(device: torch.device, dtype: torch.dtype, m: int, k: int, n: int) -> float:
    x, w = (torch.randn(a, b, device=device).to(dtype) for a, b in ((m, k), (n, k)))
    return float(f"{2 * m * k * n / seconds_of(device, lambda: x @ w.T, 5) / 1e12:.4g}")


# -- attention ------------------------------------------------------------------------------------------------------


def varlen(setting: Setting, record: Record) -> None:
    """`varlen_attn` with more keys than queries (the ancestors of a node come first): causal must be aligned to the
    lower right. With a key head for several heads, and with one for each. Forward and gradients."""
    several(
        record,
        ("fewer key heads", partial(attention, setting, key_heads=KEY_HEADS)),
        ("as many key heads", partial(attention, setting, key_heads=HEADS)),
    )


def attention(setting: Setting, record: Record, key_heads: int) -> None:
    device, dtype = setting.device, setting.dtype
    queries, keys = [5, 1, 130, 64], [5, 40, 200, 64]
    generator = torch.Generator().manual_seed(SEED)

    def drawn(tokens: int, heads: int) -> torch.Tensor:
        return torch.randn(tokens, heads, WIDTH, generator=generator).to(device, dtype).requires_grad_()

    q, k, v = drawn(sum(queries), HEADS), drawn(sum(keys), key_heads), drawn(sum(keys), key_heads)
    out = attention_under_test(setting)(q, k, v, queries, keys)
    weight = torch.randn(out.shape, generator=generator).to(device, dtype)
    gradients = torch.autograd.grad((out * weight).sum(), (q, k, v))
    exact = [t.detach().double().cpu().requires_grad_() for t in (q, k, v)]
    wanted = plain_attention(*exact, queries, keys)
    exact_gradients = torch.autograd.grad((wanted * weight.double().cpu()).sum(), exact)
    found = {"output": difference(out, wanted)}
    names = ("query gradient", "key gradient", "value gradient")
    for name, one, other in zip(names, gradients, exact_gradients, strict=True):
        found[name] = difference(one, other)
    record(round_figures(found) | {"right": max(found.values()) < LARGEST_DIFFERENCE[dtype]})


def plain_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: Sequence[int], keys: Sequence[int]
) -> torch.Tensor:
    """[N, heads, D] of segments one after the other: query i of n sees the first m − n + i + 1 of m keys."""
    out = []
    for a, b, c in zip(q.split(list(queries)), k.split(list(keys)), v.split(list(keys)), strict=True):
        b, c = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (b, c))
        scores = torch.einsum("qhd,khd->hqk", a, b) * q.shape[-1] ** -0.5
        seen = torch.ones(len(a), len(b), dtype=torch.bool, device=q.device).tril(len(b) - len(a))
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), c))
    return torch.cat(out)


def attention_under_test(setting: Setting) -> Callable[..., torch.Tensor]:
    """`varlen_attn` as this torch has it; the plain form on a CPU, where it is not."""
    if not setting.cuda:
        return plain_attention
    from torch.nn.attention.varlen import varlen_attn

    grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: Sequence[int], keys: Sequence[int]) -> Any:
        starts = (torch.tensor([0, *n], device=q.device).cumsum(0).int() for n in (queries, keys))
        ways: dict[str, Any] = {"scale": q.shape[-1] ** -0.5, "window_size": (-1, 0), **grouped}
        return varlen_attn(q, k, v, *starts, max(queries), max(keys), **ways)

    return call


# -- products ------------------------------------------------------------------------------------------------------


def products(setting: Setting, record: Record) -> None:
    """`mm` and `addmm` of bfloat16 with float32 output: error, and seconds beside bfloat16 output."""
    device, sizes, dtype = setting.device, setting.sizes, setting.dtype
    shape = setting.shape("0.5b")
    m, k, n = sizes.pass_tokens // 8, shape.hidden, shape.vocabulary
    x, w = (torch.randn(a, b, device=device).to(dtype) for a, b in ((m, k), (k, n)))
    start = torch.randn(m, n, device=device)
    out_dtype = {"out_dtype": torch.float32} if setting.cuda else {}  # no CPU kernel has it
    rows = slice(0, 64)
    exact = x[rows].double().cpu() @ w.double().cpu()
    found: dict[str, float] = {}
    for name, function, wanted in (
        ("mm", lambda: torch.mm(x, w, **out_dtype), exact),
        ("addmm", lambda: torch.addmm(start, x, w, **out_dtype), exact + start[rows].double().cpu()),
    ):
        try:
            result = function()
            found[f"{name} difference"] = difference(result[rows], wanted)
            found[f"{name} seconds"] = seconds_of(device, function, 3)
            record({f"{name} gives": str(result.dtype)})
        except (RuntimeError, TypeError, NotImplementedError) as error:
            record({f"{name} fails": f"{type(error).__name__}: {str(error)[:300]}"})
    found["mm seconds in the inputs' type"] = seconds_of(device, lambda: x @ w, 3)
    record(round_figures(found))


# -- determinism -----------------------------------------------------------------------------------------------------


def deterministic(setting: Setting, record: Record) -> None:
    """Whether a gradient comes out the same to the last bit twice, without and with deterministic algorithms, and what
    these cost: attention and the gather of ancestors, whose gradient is an `index_add`."""
    device, dtype = setting.device, setting.dtype
    function = attention_under_test(setting)
    unit = 4 if setting.tiny else 512
    queries, keys = [unit] * 16, [2 * unit] * 16  # nodes of one parent: its keys are gathered 16 times
    generator = torch.Generator().manual_seed(SEED)
    q = torch.randn(16 * unit, HEADS, WIDTH, generator=generator).to(device, dtype).requires_grad_()
    k, v = (
        torch.randn(17 * unit, HEADS, WIDTH, generator=generator).to(device, dtype).requires_grad_() for _ in range(2)
    )
    parent = torch.arange(unit)
    index = torch.cat([torch.cat([parent, parent + (i + 1) * unit]) for i in range(16)]).to(device)
    weight = torch.randn(q.shape, generator=generator).to(device, dtype)

    def gradients() -> list[torch.Tensor]:
        out = function(q, k.index_select(0, index), v.index_select(0, index), queries, keys)
        return [g.clone() for g in torch.autograd.grad((out * weight).sum(), (q, k, v))]

    for name, mode in (("usual", False), ("deterministic", True)):
        torch.use_deterministic_algorithms(mode)
        try:
            same = all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))
            record({f"{name}: same bits": same, f"{name}: ms": round(seconds_of(device, gradients, 3) * 1e3, 3)})
        except RuntimeError as error:
            record({f"{name} fails": str(error)[:300]})
        finally:
            torch.use_deterministic_algorithms(False)


# -- graphs --------------------------------------------------------------------------------------------------------


def graph(setting: Setting, record: Record) -> None:
    """A decoding step captured as a CUDA graph and replayed: the same tokens as step by step, and the seconds of both.
    On a CPU the steps are made twice."""
    rows, width, steps = (4, 16, 4) if setting.tiny else (64, 128, 32)
    lm = setting.model("0.5b", trained=False)
    with torch.inference_mode():
        one = DecodeStep(lm, rows, width)
        eager = [one.step() for _ in range(steps)]
        seconds = timed(setting.device, lambda n: float(len(one.step())), 1, 5).median
        record({"eager ms a step": round(seconds * 1e3, 3)})
        one.reset()
        replay = one.step
        if setting.cuda:
            replay = captured(one)
        again = [replay() for _ in range(steps)]
        equal = all(torch.equal(a, b) for a, b in zip(eager, again, strict=True))
        seconds = timed(setting.device, lambda n: float(len(replay())), 1, 5).median
        record({"same tokens": equal, "graph ms a step": round(seconds * 1e3, 3)})
    if not setting.cuda:
        raise NeedsCuda("the capture; the step itself ran")


def captured(one: DecodeStep) -> Callable[[], torch.Tensor]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        one.step()
    stream.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        one.step()
    one.reset()

    def replay() -> torch.Tensor:
        recorded.replay()
        return one.tokens.clone()

    return replay


class DecodeStep:
    """Greedy decoding of some rows in static tensors, so that a graph can hold a step: the attention plan writes keys
    and values at each row's length and reads the whole width under a mask."""

    def __init__(self, lm: LanguageModel, rows: int, width: int) -> None:
        self.lm, self.width, device = lm, width, lm.device
        lm.prepare_decoding()
        self.cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # keys and values [R, width, key heads, D]
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.length = torch.zeros((), dtype=torch.long, device=device)
        self.places = torch.arange(width, device=device)
        self.reset()

    def reset(self) -> None:
        self.tokens.copy_(torch.arange(len(self.tokens)) + 3)
        self.length.zero_()

    def step(self) -> torch.Tensor:
        """The next token of every row."""
        positions = self.length.expand(len(self.tokens))
        logits = self.lm.next_logits(self.tokens, positions, self)
        self.tokens.copy_(logits.argmax(-1))
        self.length.add_(1)
        return self.tokens.clone()

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        new = [t[0].transpose(0, 1)[:, None] for t in (key, value)]  # [R, 1, key heads, D]
        if layer not in self.cache:
            size = (new[0].shape[0], self.width, *new[0].shape[2:])
            self.cache[layer] = new[0].new_zeros(size), new[0].new_zeros(size)
        keys, values = self.cache[layer]
        for whole, one in zip((keys, values), new, strict=True):
            whole.index_copy_(1, self.length[None], one)
        seen = (self.places <= self.length)[None, None, None]
        q, k, v = query[0].transpose(0, 1)[:, :, None], keys.transpose(1, 2), values.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling, enable_gqa=True)
        return out[:, :, 0]


def every(setting: Setting, record: Record) -> None:
    probes = (ceilings, varlen, products, deterministic, graph)
    several(record, *((probe.__name__, partial(probe, setting)) for probe in probes))
