"""Linear layers beside the language-model head: a critic's values, and a reward model's scores.

On disk a reward model is transformers' sequence classifier, with a label a member of an ensemble.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from posttrain.chat import ChatFormat
from posttrain.types import InputError


def logit_divisor(config: Any) -> float:
    """What a family divides the output of its language-model head by: Granite by `logits_scaling`, Cohere by the
    inverse of `logit_scale`."""
    scale: float = getattr(config, "logit_scale", None) or 1.0
    divisor: float = getattr(config, "logits_scaling", None) or 1.0 / scale
    return divisor


class ValueHead(nn.Linear):
    """Hidden states [.., H] to values [..] in float32. It begins with zeros, so that the first values say nothing."""

    NOUN, NAME = "value head", "scalar_head"
    """What people and what checkpoints call it."""

    def __init__(self, size: int) -> None:
        super().__init__(size, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden.to(self.weight.dtype))[..., 0].float()


class RewardHead(nn.Linear):
    """Hidden states [.., H] to the scores [.., K] of K outputs in float32, without a bias, as transformers'
    classifiers. The first `saved` outputs are saved. `step_separator` stands between the steps that a process reward
    model scores."""

    NOUN, NAME = "reward head", "score_head"
    """What people and what checkpoints call it."""

    def __init__(self, size: int, outputs: int, saved: int | None = None, step_separator: str | None = None) -> None:
        super().__init__(size, outputs, bias=False)
        self.saved = saved or outputs
        self.step_separator = step_separator

    def draw(self, seed: int) -> None:
        """Normal weights of variance 1/(H+1) (Stiennon et al. 2020, arXiv:2009.01325), each output's from (seed, k)."""
        rows = [np.random.default_rng([seed, k]).standard_normal(self.in_features) for k in range(self.out_features)]
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(np.stack(rows)) / (self.in_features + 1) ** 0.5)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden.to(self.weight.dtype)).float()

    @staticmethod
    def of(classifier: Any) -> RewardHead:
        """The head of a classifier that transformers has loaded."""
        rows = classifier.score.weight
        with torch.device("meta"):  # it is filled at once, and draws no random numbers before
            head = RewardHead(rows.shape[1], len(rows), None, getattr(classifier.config, "step_separator", None))
        head.weight = rows
        return head


def save_classifier(
    module: PreTrainedModel, head: RewardHead, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, folder: Path
) -> None:
    """Write trunk and saved rows so that `AutoModelForSequenceClassification` gives the same scores, label k those of
    member k; `raw_prompts` and `step_separator` stand in its configuration.

    transformers scores the last token that is not padding, so padding must be no end token: another special token
    becomes the padding, or none where there is none, and transformers takes single rows only."""
    model = as_classifier(module, head.weight[: head.saved])
    padding = padding_apart(tokenizer, chat)
    model.config.get_text_config().pad_token_id = padding
    model.config.raw_prompts = chat.raw
    if head.step_separator is not None:
        model.config.step_separator = head.step_separator
    written = copy.deepcopy(tokenizer)
    written.pad_token = None if padding is None else tokenizer.convert_ids_to_tokens(padding)
    model.save_pretrained(str(folder))
    written.save_pretrained(str(folder))
    if module.generation_config is not None:  # it names end tokens, and a classifier would not write it
        module.generation_config.save_pretrained(str(folder))


def as_classifier(module: PreTrainedModel, rows: torch.Tensor) -> Any:
    """transformers' classifier around the trunk of a causal model and a head's `rows` [K, H]; nothing but the
    configuration is copied. Raises InputError for an architecture without one of that form."""
    config = copy.deepcopy(module.config)
    config.num_labels = len(rows)
    name = type(module).__name__
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise InputError(
            f"{name}: transformers has no sequence classifier for it; give a model of another kind"
        ) from error
    trunk = getattr(model, model.base_model_prefix, None)
    score = getattr(model, "score", None)
    if type(trunk) is not type(module.base_model) or not isinstance(score, nn.Linear) or score.bias is not None:
        raise InputError(f"{name}: its sequence classifier is no linear layer on its trunk; give another kind of model")
    setattr(model, model.base_model_prefix, module.base_model)
    score.weight = nn.Parameter(rows.detach().clone())
    return model


def as_causal(classifier: Any, folder: Path) -> PreTrainedModel:
    """A causal model around a classifier's trunk; its language-model head is the embedding, and never used."""
    config = copy.deepcopy(classifier.config)
    config.get_text_config().tie_word_embeddings = config.tie_word_embeddings = True
    with torch.device("meta"):
        module: Any = AutoModelForCausalLM.from_config(config)
    setattr(module, module.base_model_prefix, classifier.base_model)
    module.tie_weights()
    if (folder / "generation_config.json").is_file():
        module.generation_config = GenerationConfig.from_pretrained(folder)
    return module


def padding_apart(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> int | None:
    """A token of the model that ends no response: the tokenizer's padding, else one of its special tokens."""
    choices = [tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids]
    known = [token for token in choices if token is not None and chat.embeds(token)]
    return next((token for token in known if token not in chat.end_ids), None)
