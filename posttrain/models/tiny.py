"""`tiny-random`: a Llama of about one million fixed random weights with a byte-level tokenizer, for fast tests."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% if tools %}{{ '<|im_start|>system\nTools:\n' }}{% for tool in tools %}{{ tool | tojson + '\n' }}{% endfor %}"
    """{{ '<tool_call>{"name": NAME, "arguments": {...}}</tool_call> calls one.<|im_end|>\n' }}{% endif %}"""
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{% set call = call['function'] or call %}"
    """{{ '<tool_call>{"name": ' + call['name'] | tojson + ', "arguments": ' + call['arguments'] | tojson }}"""
    "{{ '}</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, with tools in a system message of their own and calls in Hermes tags."""


def build_tiny(out: Path) -> None:
    """Write the model and its tokenizer to `out`. The weights are normal with σ = 1/√fan-in from a fixed seed, drawn
    in name order, so that they do not depend on how transformers initialises."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=2,
    )
    module = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            if parameter.dim() == 2:
                parameter.normal_(0.0, 1.0 / math.sqrt(parameter.shape[1]), generator=generator)
            else:
                parameter.fill_(1.0)
    module.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, after three special tokens; ChatML template; the end token is also the padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer
