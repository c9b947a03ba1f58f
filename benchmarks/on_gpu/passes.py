"""Single passes: what sharing prefixes gains, what a token takes in memory, and where the time of a step goes."""

from __future__ import annotations

import random

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from on_gpu.measure import peak_gb, reset_peak, timed
from on_gpu.ours import figures
from on_gpu.parts import Record
from on_gpu.setting import LEARNING_RATE, SEED, Setting, ragged_lengths, sft_rows
from posttrain.batch.packing import Tree
from posttrain.chat import EncodedRow
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.train.sft import loss_of, sft_trees

PROFILED_KERNELS = 15


def shared(setting: Setting, record: Record, shape: str, packed: bool, together: bool) -> None:
    """The gradient of groups that share a prompt: as forests, as packed rows that share nothing, or as padded rows."""
    sizes, lm = setting.sizes, setting.model(shape)
    lm.packed = packed
    reset_peak(setting.device)
    policy = LocalPolicy(lm, Optimization(LEARNING_RATE), sizes.pass_tokens // (1 if packed else 4))
    rnd = random.Random(SEED)
    rows = []
    for _ in range(sizes.shared_groups):
        prompt = [rnd.randrange(256) for _ in range(sizes.shared_prompt)]
        for i in range(sizes.group):
            start = prompt if together else [256 + i, *prompt[1:]]  # another first token: nothing is shared
            answer = [rnd.randrange(256) for _ in range(sizes.shared_answer)]
            mask = (False,) * len(prompt) + (True,) * len(answer)
            rows.append(EncodedRow(tuple(start + answer), mask, "row"))
    trees = sft_trees(rows)
    tokens = sum(len(row.token_ids) for row in rows)
    flops = [0.0]

    def step(n: int) -> float:
        policy.forward_backward(trees, loss_of)
        for parameter in policy.parameters.values():
            parameter.grad = None
        flops.append(policy.flops)
        return float(tokens)

    note = lambda steps: record(figures(setting, steps, flops, "row tokens/s"))  # noqa: E731
    timed(setting.device, step, sizes.warm, sizes.steps, note)


def memory(setting: Setting, record: Record, shape: str) -> None:
    """Peak memory of a step by the tokens of a pass: what a token takes beyond weights, gradients and moments."""
    sizes, lm = setting.sizes, setting.model(shape)
    policy = LocalPolicy(lm, Optimization(LEARNING_RATE), sizes.pass_tokens)
    trees = one_step(setting)
    peaks: dict[int, float] = {}
    for tokens in (sizes.pass_tokens // 2, sizes.pass_tokens, 2 * sizes.pass_tokens):
        policy.micro_batch_tokens = tokens
        reset_peak(setting.device)
        policy.forward_backward(trees, loss_of)
        policy.step()
        peaks[tokens] = peak_gb(setting.device)
        record({f"GB at {tokens} tokens a pass": round(peaks[tokens], 2)})
    (least, low), *_, (most, high) = sorted(peaks.items())
    record({"MB a token": round((high - low) / (most - least) * 1e3, 4)})


def one_step(setting: Setting) -> list[Tree]:
    (rows,) = sft_rows(1, ragged_lengths(setting.sizes.rows, setting.sizes.row))
    return sft_trees([EncodedRow(tuple(ids), tuple(mask), "row") for ids, mask in rows])


def profiled(setting: Setting, record: Record, shape: str) -> None:
    """The kernels of one SFT step that take longest, after a step that is not counted; all of them in `profile.txt`."""
    sizes, lm = setting.sizes, setting.model(shape)
    policy = LocalPolicy(lm, Optimization(LEARNING_RATE), sizes.pass_tokens)
    trees = one_step(setting)

    def step() -> None:
        policy.forward_backward(trees, loss_of)
        policy.step()

    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.cuda else [])]
    with profile(activities=activities) as seen:
        step()
        if setting.cuda:
            torch.cuda.synchronize()
    by = "self_cuda_time_total" if setting.cuda else "self_cpu_time_total"
    averages = seen.key_averages()
    text = averages.table(sort_by=by, row_limit=60, max_name_column_width=90)
    (setting.out / "profile.txt").write_text(text)
    time_of = "self_device_time_total" if setting.cuda else "self_cpu_time_total"
    kind = DeviceType.CUDA if setting.cuda else DeviceType.CPU  # an operation has the time of its kernels too
    kernels = [event for event in averages if event.device_type == kind]
    top = sorted(kernels, key=lambda event: -getattr(event, time_of))[:PROFILED_KERNELS]
    record({event.key[:90]: f"{getattr(event, time_of) / 1e3:.3f} ms, {event.count} times" for event in top})
    record({"launches": sum(e.count for e in averages if "LaunchKernel" in e.key)})
