"""Model families: how tiny models of each are computed, whether forests equal single rows, and what sharing saves.

    python benchmarks/families.py            # rewrites the table in docs/models.md
    python benchmarks/families.py --print    # prints it only

The models have random weights and two layers, written to a folder by transformers and loaded from there. About three
minutes on one core.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from posttrain.threads import configure_threads

configure_threads()

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

import posttrain  # noqa: E402
from posttrain.batch.packing import Branch, Tree, pack, share_prefix  # noqa: E402
from posttrain.batch.types import Batch  # noqa: E402
from posttrain.models import LanguageModel, load_model  # noqa: E402
from posttrain.models.compute import FLOAT32_CPU, Compute, use  # noqa: E402
from posttrain.models.padded import padded_rows  # noqa: E402
from posttrain.models.tiny import tiny_tokenizer  # noqa: E402

DOC = Path(__file__).resolve().parent.parent / "docs" / "models.md"
START, END = "<!-- figures: python benchmarks/families.py -->\n", "<!-- end of figures -->\n"
BFLOAT16_CPU = Compute(torch.device("cpu"), torch.bfloat16)
VOCABULARY = 259
SMALL = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 8}
TIMED = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
ROUNDS = 5

OWN, PACKED, PADDED = "our layers", "packed", "padded"
"""How a forest is computed: by this package's layers, by transformers' layers on the packed tokens, or by
transformers' layers on a padded row a path."""


@dataclass(frozen=True)
class Family:
    """`config` is the class of a configuration, `options` what is set in it beside the sizes."""

    name: str
    models: str
    config: str
    path: str
    options: dict[str, Any]

    def build(self, sizes: dict[str, int]) -> Any:
        """A model with random weights, large enough that tokens matter to each other, and biases that are not zero."""
        hidden, inner, dim = (sizes[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
        common = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2}
        if self.config == "GPT2Config":
            common |= {"n_embd": hidden, "n_layer": 2, "n_head": 4, "n_positions": 512}
        else:
            common |= {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 2}
            common |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
        own = {k: {"dim": dim, "inner": inner // 2}[v] if isinstance(v, str) else v for k, v in self.options.items()}
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(getattr(transformers, self.config)(**common | own))
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(0.0, 1.5 / math.sqrt(parameter.shape[-1]))
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return module

    def write(self, folder: Path, sizes: dict[str, int] = SMALL) -> str:
        """A folder with such a model, as `load_model` takes it."""
        self.build(sizes).save_pretrained(str(folder))
        tiny_tokenizer().save_pretrained(str(folder))
        return str(folder)


MOE = {"num_experts_per_tok": 2}
LINEAR = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
GRANITE = {"embedding_multiplier": 4.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2, "logits_scaling": 4.0}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
ROUTED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
FAMILIES = [
    Family("Llama", "Llama 3, SmolLM2, TinyLlama", "LlamaConfig", OWN, {}),
    Family("Qwen2", "Qwen2.5", "Qwen2Config", OWN, {}),
    Family("Qwen3", "Qwen3", "Qwen3Config", OWN, {"head_dim": "dim"}),
    Family("Mistral", "Mistral 7B v0.3, Ministral", "MistralConfig", OWN, {"sliding_window": None}),
    Family("Gemma", "Gemma 1", "GemmaConfig", PACKED, {"head_dim": "dim"}),
    Family("GPT-2", "GPT-2", "GPT2Config", PACKED, {}),
    Family("Granite", "Granite 3", "GraniteConfig", PACKED, GRANITE),
    Family("OLMo 2", "OLMo 2", "Olmo2Config", PACKED, {}),
    Family("Phi-3", "Phi-3, Phi-4", "Phi3Config", PACKED, {"sliding_window": None}),
    Family("SmolLM3", "SmolLM3", "SmolLM3Config", PACKED, {"no_rope_layer_interval": 2}),
    Family("Mixtral", "Mixtral 8x7B", "MixtralConfig", PACKED, MOE | {"num_local_experts": 4}),
    Family(
        "Qwen3-MoE",
        "Qwen3-30B-A3B",
        "Qwen3MoeConfig",
        PACKED,
        MOE | {"num_experts": 4, "moe_intermediate_size": "inner", "head_dim": "dim"},
    ),
    Family("Mistral, window", "Mistral 7B v0.1", "MistralConfig", PADDED, {"sliding_window": 4}),
    Family(
        "Gemma 3",
        "Gemma 3 (text)",
        "Gemma3TextConfig",
        PADDED,
        {"head_dim": "dim", "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    Family(
        "Qwen3-Next",
        "Qwen3-Next",
        "Qwen3NextConfig",
        PADDED,
        LINEAR
        | {"num_experts": 0, "mlp_only_layers": [0, 1], "layer_types": ["linear_attention", "full_attention"]}
        | {"head_dim": "dim"},
    ),
    Family(
        "DeepSeek-V3",
        "DeepSeek-V3, Kimi K2",
        "DeepseekV3Config",
        PADDED,
        LATENT | ROUTED | MOE | {"num_key_value_heads": 4, "moe_intermediate_size": "inner"},
    ),
]


def path_of(lm: LanguageModel) -> str:
    if not lm.packed:
        return PADDED
    return OWN if lm.kernels.fused else PACKED


def groups(prompts: int, answers: int, prompt: int, answer: int) -> list[Tree]:
    """Prompts of random tokens with answers of about this many, all of which are trained."""
    random = Random(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(random.randrange(3, VOCABULARY) for _ in range(n))

    trees = []
    for _ in range(prompts):
        start = tokens(prompt)
        ends = [tokens(random.randint(answer // 2, answer + answer // 2)) for _ in range(answers)]
        weight = 1 / (prompts * answers * answer)
        trees.append(
            share_prefix([Branch.of(start + end, [False] * len(start) + [True] * len(end), weight) for end in ends])
        )
    return trees


def by_single_rows(module: Any, batch: Batch) -> torch.Tensor:
    """Log-probabilities of the trained tokens by transformers, a row at a time."""
    rows, places = padded_rows(batch)
    logits: list[torch.Tensor] = []
    with torch.no_grad():
        for i, row in enumerate(rows):
            columns = [column for r, column in places.tolist() if r == i]
            logits.append(module(input_ids=torch.tensor([row]), use_cache=False).logits[0, columns].float())
    return torch.cat(logits).log_softmax(-1).gather(1, batch.token_ids[batch.trained][:, None])[:, 0]


def differences(folder: str) -> tuple[str, float, float, float]:
    """Path; of a forest from single rows in float32 the worst difference; of a forest in bfloat16, and of transformers'
    single rows in bfloat16, the root mean square of the difference from float32."""
    batch = pack(groups(3, 3, 12, 10))
    lm = load_model(folder, compute=FLOAT32_CPU)
    exact = by_single_rows(lm.module, batch)
    rounded = load_model(folder, compute=BFLOAT16_CPU, trained=True)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    assert path_of(rounded) == path_of(lm)
    with torch.no_grad():
        worst = float((lm.logprobs(batch).logprobs - exact).abs().max())
        found = (rounded.logprobs(batch).logprobs, by_single_rows(theirs, batch))
        return (path_of(lm), worst, *(float((logprobs - exact).square().mean().sqrt()) for logprobs in found))


def steps(folder: str, out: Path) -> tuple[posttrain.Run, posttrain.Run]:
    """A step of SFT and one of RL from a model."""
    rows = [{"prompt": f"Say {word}", "completion": word} for word in ("apple", "river", "stone", "cloud")]
    options: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-4}
    sft = posttrain.sft(folder, data=rows, out=out / "sft", batch_size=4, **options)
    tasks = [{"prompt": row["prompt"]} for row in rows]
    return sft, posttrain.rl(
        folder,
        data=tasks,
        out=out / "rl",
        reward=distinct,
        batch_size=8,
        group_size=4,
        max_new_tokens=8,
        beta=0.01,
        **options,
    )


def distinct(response: str) -> float:
    return len(set(response)) / 8


def saved(folder: str) -> float:
    """Processor seconds of a training pass over padded rows divided by those over the forest, medians in turn."""
    lm = load_model(folder, compute=FLOAT32_CPU, trained=True)
    batch = pack(groups(4, 8, 96, 48))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for packed in (True, False):
            lm.packed = packed
            start = time.process_time()
            (batch.weights * lm.logprobs(batch).logprobs).sum().backward()
            seconds[packed].append(time.process_time() - start)
            lm.module.zero_grad()
    return statistics.median(seconds[False]) / statistics.median(seconds[True])


def table(families: Sequence[Family], say: Callable[[str], None] = print) -> str:
    lines = [
        "| family | such as | computed | float32: worst difference | bfloat16: RMS difference (transformers') | a step "
        "of SFT and RL | padded rows take |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in families:
        with tempfile.TemporaryDirectory() as name:
            folder = family.write(Path(name) / "small")
            path, worst, ours, theirs = differences(folder)
            sft, rl = steps(folder, Path(name))
            trained = "yes" if math.isfinite(sft.metrics[-1]["loss"] + rl.metrics[-1]["loss"]) else "no"
            ratio = "–"
            if path != PADDED:
                ratio = f"{saved(family.write(Path(name) / 'timed', TIMED)):.1f} times as long"
        cells = (
            family.name,
            family.models,
            path,
            f"{worst:.0e}" if worst else "0",
            f"{ours:.3f} ({theirs:.3f})",
            trained,
            ratio,
        )
        lines.append(f"| {' | '.join(cells)} |")
        say(lines[-1])
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the table and leave the page as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("posttrain").setLevel(logging.ERROR)
    with use(FLOAT32_CPU):
        rows = table(FAMILIES)
    if not arguments.print:
        text = DOC.read_text(encoding="utf-8")
        block = re.escape(START) + ".*?" + re.escape(END)
        DOC.write_text(re.sub(block, lambda _: START + "\n" + rows + "\n" + END, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
