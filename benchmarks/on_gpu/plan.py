"""The parts in the order of their value: what comes last is lost first where a call runs out of time."""

from __future__ import annotations

from on_gpu.parts import Part, Side


def _decode(shape: str, ours: int, theirs: int) -> Part:
    return Part(
        f"decode-{shape}",
        "b",
        f"256 prompts of 200 tokens, 512 new ones each, {shape.upper()}",
        (
            Side("posttrain", "ours:decode", ours, {"shape": shape}),
            Side("generate_batch", "with_transformers:decode", theirs, {"shape": shape, "continuous": True}),
        ),
    )


PARTS = (
    Part(
        "probes",
        "a",
        "rates that nothing exceeds; attention, products, determinism and graphs beside plain references",
        (Side("posttrain", "probes:every", 45),),
    ),
    Part(
        "correct",
        "a",
        "float32 here beside a CPU's, bfloat16 beside float32, sampler beside trainer, TRL's first loss",
        (Side("posttrain", "correctness:every", 60), Side("TRL", "with_trl:first_losses", 30)),
    ),
    Part(
        "sft-0.5b",
        "a",
        "SFT of full weights, 64 ragged rows a step, mean 1,024 tokens",
        (
            Side("posttrain", "ours:sft", 40, {"shape": "0.5b"}),
            Side("TRL, padded", "with_trl:sft", 35, {"shape": "0.5b", "packed": False}),
            Side("TRL, packed", "with_trl:sft", 35, {"shape": "0.5b", "packed": True}),
        ),
    ),
    Part(
        "sft-1.5b",
        "a",
        "the same, 1.5B",
        (
            Side("posttrain", "ours:sft", 40, {"shape": "1.5b"}),
            Side("TRL, padded", "with_trl:sft", 40, {"shape": "1.5b", "packed": False}),
        ),
    ),
    Part(
        "dpo-1.5b",
        "a",
        "DPO of full weights, 64 pairs a step, prompts of 512 tokens, answers of 256",
        (
            Side("posttrain", "ours:dpo", 40, {"shape": "1.5b"}),
            Side("TRL", "with_trl:dpo", 50, {"shape": "1.5b"}),
        ),
    ),
    Part(
        "lora-7b",
        "a",
        "SFT of an adapter of rank 16, 32 ragged rows a step",
        (
            Side("posttrain", "ours:lora", 45, {"shape": "7b"}),
            Side("TRL, padded", "with_trl:sft", 45, {"shape": "7b", "packed": False, "lora": True}),
        ),
    ),
    Part(
        "sft-equal",
        "a",
        "SFT of full weights, 0.5B, 64 rows of 1,024 tokens a step",
        (
            Side("posttrain", "ours:sft", 25, {"shape": "0.5b", "equal": True}),
            Side("TRL, padded", "with_trl:sft", 30, {"shape": "0.5b", "packed": False, "equal": True}),
        ),
    ),
    Part(
        "sft-float32",
        "a",
        "sft-0.5b with float32 weights under autocast on TRL's side too",
        (Side("TRL, padded, float32", "with_trl:sft", 35, {"shape": "0.5b", "packed": False, "float32": True}),),
        beside="sft-0.5b",
    ),
    Part(
        "sft-packed",
        "a",
        "sft-1.5b with packing on TRL's side",
        (Side("TRL, packed", "with_trl:sft", 45, {"shape": "1.5b", "packed": True}),),
        beside="sft-1.5b",
    ),
    Part(
        "grpo-1.5b",
        "b",
        "GRPO of full weights with a KL term, 32 prompts of 200 tokens x 8 answers of 512 a step",
        (
            Side("posttrain", "ours:grpo", 60, {"shape": "1.5b"}),
            Side("TRL, continuous batching", "with_trl:grpo", 60, {"shape": "1.5b", "continuous": True}),
        ),
    ),
    _decode("0.5b", 35, 30),
    Part(
        "forest-0.5b",
        "b",
        "the gradient of 16 groups of 8 rows, prompts of 512 tokens, answers of 256",
        (
            Side("posttrain", "passes:shared", 25, {"shape": "0.5b", "packed": True, "together": True}),
            Side("packed, unshared", "passes:shared", 25, {"shape": "0.5b", "packed": True, "together": False}),
            Side("padded", "passes:shared", 30, {"shape": "0.5b", "packed": False, "together": True}),
        ),
    ),
    _decode("1.5b", 35, 30),
    _decode("7b", 45, 45),
    Part(
        "grpo-generate",
        "b",
        "grpo-1.5b beside TRL with transformers' generate",
        (Side("TRL, generate", "with_trl:grpo", 75, {"shape": "1.5b", "continuous": False}),),
        beside="grpo-1.5b",
    ),
    Part(
        "memory-1.5b",
        "b",
        "peak memory of an SFT step by the tokens of a pass",
        (Side("posttrain", "passes:memory", 25, {"shape": "1.5b"}),),
    ),
    Part(
        "profile-0.5b",
        "b",
        "the kernels of an SFT step that take longest",
        (Side("posttrain", "passes:profiled", 30, {"shape": "0.5b"}),),
    ),
)
