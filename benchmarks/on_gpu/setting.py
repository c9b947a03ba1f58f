"""What is measured: sizes of models, rows and steps, full or tiny, and models of random weights."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen2Config

from posttrain.config.compute import ComputeOptions
from posttrain.models import LanguageModel
from posttrain.models.compute import compute_for
from posttrain.models.tiny import tiny_tokenizer

SEED = 20
LEARNING_RATE = 1e-5
LORA = {"rank": 16, "alpha": 32}
DEVIATION = 0.02
"""Standard deviation of the weights of matrices, as transformers draws them."""
FIRST_LETTER = 3
"""Ids 3 to 258 of the tokenizer are the 256 bytes."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, those of Qwen2.5: bias on queries, keys and values, RMSNorm, SwiGLU."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    tied: bool

    def config(self) -> PretrainedConfig:
        return Qwen2Config(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            intermediate_size=self.inner,
            vocab_size=self.vocabulary,
            tie_word_embeddings=self.tied,
            max_position_embeddings=32768,
            rope_theta=1e6,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=2,
        )


SHAPES = {
    "tiny": Shape(64, 2, 4, 2, 176, 512, True),
    "0.5b": Shape(896, 24, 14, 2, 4864, 151936, True),
    "1.5b": Shape(1536, 28, 12, 2, 8960, 151936, True),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, False),
}


@dataclass(frozen=True)
class Sizes:
    """Tokens of a row are `row` in the mean, of which the last 60% are trained. A pass has about `pass_tokens`. `warm`
    steps are not counted, `steps` are; fewer of the long ones of RL."""

    warm: int
    steps: int
    rl_warm: int
    rl_steps: int
    decode_steps: int
    rows: int
    row: int
    lora_rows: int
    pass_tokens: int
    lora_pass_tokens: int
    pairs: int
    pair_prompt: int
    pair_answer: int
    prompts: int
    group: int
    prompt: int
    answer: int
    decode_rows: int
    shared_groups: int
    shared_prompt: int
    shared_answer: int
    reward_workers: int | None
    square: int
    copy_numbers: int
    check_rows: int
    check_row: int


FULL = Sizes(
    warm=2,
    steps=3,
    rl_warm=1,
    rl_steps=2,
    decode_steps=2,
    rows=64,
    row=1024,
    lora_rows=32,
    pass_tokens=16384,
    lora_pass_tokens=16384,
    pairs=64,
    pair_prompt=512,
    pair_answer=256,
    prompts=32,
    group=8,
    prompt=200,
    answer=512,
    decode_rows=256,
    shared_groups=16,
    shared_prompt=512,
    shared_answer=256,
    reward_workers=None,
    square=8192,
    copy_numbers=1 << 30,
    check_rows=4,
    check_row=192,
)
TINY = Sizes(
    warm=1,
    steps=1,
    rl_warm=1,
    rl_steps=1,
    decode_steps=1,
    rows=6,
    row=24,
    lora_rows=4,
    pass_tokens=64,
    lora_pass_tokens=64,
    pairs=3,
    pair_prompt=12,
    pair_answer=6,
    prompts=2,
    group=4,
    prompt=10,
    answer=6,
    decode_rows=6,
    shared_groups=2,
    shared_prompt=16,
    shared_answer=6,
    reward_workers=0,
    square=64,
    copy_numbers=1 << 12,
    check_rows=3,
    check_row=20,
)


@dataclass(frozen=True)
class Setting:
    """Where and how large; `tiny` puts the tiny shape in the place of all. `out` is kept, `scratch` is not."""

    device: torch.device
    dtype: torch.dtype
    tiny: bool
    out: Path
    scratch: Path

    @property
    def sizes(self) -> Sizes:
        return TINY if self.tiny else FULL

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def shape(self, name: str) -> Shape:
        return SHAPES["tiny" if self.tiny else name]

    def module(self, name: str, dtype: torch.dtype) -> Any:
        """A transformers model of a shape on the device; its random weights are the same in every type, but rounded."""
        with torch.device(self.device):
            module = AutoModelForCausalLM.from_config(
                self.shape(name).config(), dtype=dtype, attn_implementation="sdpa"
            )
        generator = torch.Generator(self.device).manual_seed(SEED)
        for parameter in module.parameters():
            if parameter.dim() > 1:
                drawn = torch.randn(parameter.shape, generator=generator, device=self.device)
                parameter.data.copy_(drawn.mul_(DEVIATION))
        module.generation_config.eos_token_id = module.generation_config.pad_token_id = 2
        return module.eval()

    def model(self, name: str, trained: bool = True) -> LanguageModel:
        """The same as a language model of ours: float32 where it is trained, held in the device's type else."""
        module = self.module(name, torch.float32 if trained else self.dtype)
        return language_model(name, module, self.device, self.dtype)


def language_model(name: str, module: Any, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """A model of ours, computed as a command with these options computes it."""
    options = ComputeOptions(device=device.type, dtype=str(dtype).removeprefix("torch."))
    return LanguageModel(name, module, tiny_tokenizer(), Path(name), raw=True, compute=compute_for(options))


def letters(rnd: random.Random, n: int) -> str:
    """A text of n tokens: a letter is a byte and so a token."""
    return "".join(rnd.choices(string.ascii_letters, k=n))


def ragged_lengths(n: int, mean: int) -> list[int]:
    """Lengths from a quarter to seven quarters of the mean, evenly spread, in random order: their mean is `mean`."""
    lengths = [round(mean * (0.25 + 1.5 * (i + 0.5) / n)) for i in range(n)]
    random.Random(SEED).shuffle(lengths)
    return lengths


def sft_rows(steps: int, lengths: list[int]) -> list[list[tuple[list[int], list[bool]]]]:
    """The token ids and masks of the rows of each step; the first 40% of a row is the prompt."""
    rnd = random.Random(SEED)
    return [
        [
            ([FIRST_LETTER + rnd.randrange(256) for _ in range(n)], [i >= int(0.4 * n) for i in range(n)])
            for n in lengths
        ]
        for _ in range(steps)
    ]
