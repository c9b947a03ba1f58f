"""Score heads, and reward models on disk as transformers' classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from posttrain.batch.packing import Branch, Tree, pack, share_prefix
from posttrain.models import LanguageModel, load_model, load_reward_model
from posttrain.types import InputError
from tests.model_helpers import small_model

PROMPT = tuple(range(10, 30))
RESPONSES = ((40, 41, 42, 2), (40, 41, 2), (40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 2))


def trees() -> list[Tree]:
    """Three responses to one prompt and one to another, each scored at its last token."""
    rows = [PROMPT + r for r in RESPONSES]
    branches = [Branch(row, (False,) * (len(row) - 1) + (True,), (1.0,)) for row in rows]
    other = (5, 6, 7, 2)
    return [share_prefix(branches), share_prefix([Branch(other, (False, False, False, True), (1.0,))])]


def scored(outputs: int) -> LanguageModel:
    lm = load_model("tiny-random")
    lm.add_reward_head(outputs, seed=3)
    return lm


def plain_scores(folder: Path, rows: list[tuple[int, ...]]) -> torch.Tensor:
    """By transformers alone, in one batch that is padded on the right."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    padding = AutoTokenizer.from_pretrained(folder).pad_token_id
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def test_scores_are_read_at_the_end_token_packed_and_padded() -> None:
    lm = scored(2)
    batch = pack(trees())
    assert lm.packed
    packed = lm.scores(batch)
    lm.packed = False
    padded = lm.scores(batch)
    assert packed.shape == (4, 2)
    assert torch.allclose(packed, padded, atol=1e-4)
    hidden = lm.module.base_model(input_ids=torch.tensor([[5, 6, 7, 2]])).last_hidden_state[0, -1]
    assert torch.allclose(padded[3], lm.reward_head.weight @ hidden, atol=1e-5)


def test_gradients_agree_packed_and_padded() -> None:
    lm = scored(1)
    batch = pack(trees())
    slopes = []
    for packed in (True, False):
        lm.packed = packed
        (lm.scores(batch)[:, 0] * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        slopes.append({name: p.grad.clone() for name, p in lm.trained_parameters().items() if p.grad is not None})
        lm.module.zero_grad()
        lm.reward_head.zero_grad()
    assert slopes[0].keys() == slopes[1].keys()
    for name, slope in slopes[0].items():
        assert torch.allclose(slope, slopes[1][name], atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize("outputs", [1, 3])
def test_transformers_and_our_loader_give_the_same_scores(tmp_path: Path, outputs: int) -> None:
    lm = scored(outputs)
    batch = pack(trees())
    before = lm.scores(batch)
    lm.save(tmp_path / "model")
    rows = [*(PROMPT + r for r in RESPONSES), (5, 6, 7, 2)]
    assert torch.allclose(plain_scores(tmp_path / "model", rows), before, atol=1e-4)
    again = load_reward_model(str(tmp_path))
    assert again.packed
    assert again.chat.end_ids == lm.chat.end_ids
    assert torch.allclose(again.scores(batch), before, atol=1e-5)
    assert lm.tokenizer.pad_token_id == 2  # the tokenizer in memory is as it was


def test_a_model_that_is_not_packed(tmp_path: Path) -> None:
    """Sliding attention: rows are padded, and transformers says the same of them."""
    lm = small_model("gemma-3")
    lm.add_reward_head(1, seed=3)
    batch = pack(trees())
    before = lm.scores(batch)
    assert not lm.packed
    lm.save(tmp_path / "model")
    rows = [*(PROMPT + r for r in RESPONSES), (5, 6, 7, 2)]
    assert torch.allclose(plain_scores(tmp_path / "model", rows), before, atol=1e-4)
    assert torch.allclose(load_reward_model(str(tmp_path)).scores(batch), before, atol=1e-5)


def test_a_saved_adapter_is_merged(tmp_path: Path) -> None:
    lm = scored(1)
    lm.add_adapter(4, 8, seed=0)
    with torch.no_grad():
        for name, parameter in lm.trained_parameters().items():
            if "lora_B" in name:
                parameter.fill_(0.01)
    batch = pack(trees())
    before = lm.scores(batch).detach()
    lm.save(tmp_path / "model")
    assert torch.allclose(load_reward_model(str(tmp_path)).scores(batch), before, atol=1e-4)


def test_heads_differ_by_number_and_seed() -> None:
    lm = load_model("tiny-random")
    lm.add_reward_head(2, seed=0)
    first = lm.reward_head.weight.detach().clone()
    lm.add_reward_head(2, seed=1)
    second = lm.reward_head.weight.detach()
    assert not torch.allclose(first[0], first[1]) and not torch.allclose(first, second)
    assert float(first.std()) == pytest.approx(1 / 129**0.5, rel=0.2)


def test_a_language_model_is_no_reward_model() -> None:
    with pytest.raises(InputError, match="tiny-random: is a language model, not a reward model; .* implicit"):
        load_reward_model("tiny-random")


def test_a_reward_model_is_no_language_model(tmp_path: Path) -> None:
    scored(1).save(tmp_path / "model")
    with pytest.raises(InputError, match="is a reward model; give a language model"):
        load_model(str(tmp_path))


def test_a_model_without_a_head_says_so(tiny: LanguageModel) -> None:
    with pytest.raises(ValueError, match="no reward head"):
        tiny.scores(pack(trees()))
