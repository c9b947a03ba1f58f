"""DPO against a plain reference."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from posttrain.config import DpoConfig, SftConfig
from posttrain.train.dpo.stage import train_dpo
from posttrain.train.sft import train_sft
from posttrain.types import InputError
from tests.training_helpers import (
    adamw,
    chatml,
    events,
    mask_tensor,
    metrics,
    padded_logprobs,
    pair_rows,
    plain_model,
    sft_rows,
    write_rows,
)

LN2 = math.log(2)


def run(tmp_path: Path, rows: list[dict[str, Any]], name: str = "run", **options: Any) -> Path:
    """Train tiny-random on the pairs and return the run folder."""
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    out = tmp_path / name
    train_dpo(DpoConfig(**{"model": "tiny-random", "data": str(data), "out": out, **options}))
    return out


def response_sums(module: Any, tokenizer: Any, rows: list[dict[str, str]], side: str) -> torch.Tensor:
    """Log-probability of each whole response, its end token included: [pairs]."""
    encoded = [chatml(tokenizer, row["prompt"], row[side]) for row in rows]
    mask = mask_tensor([m for _, m in encoded])
    return (padded_logprobs(module, [ids for ids, _ in encoded]) * mask).sum(1)


def pair_losses(
    module: Any, tokenizer: Any, rows: list[dict[str, str]], reference: list[torch.Tensor], beta: float, smooth: float
) -> torch.Tensor:
    policy = [response_sums(module, tokenizer, rows, side) for side in ("chosen", "rejected")]
    margin = beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    return -(1 - smooth) * logsigmoid(margin) - smooth * logsigmoid(-margin)


def references(module: Any, tokenizer: Any, rows: list[dict[str, str]]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [response_sums(module, tokenizer, rows, side) for side in ("chosen", "rejected")]


@pytest.mark.parametrize(("beta", "smooth"), [(0.1, 0.0), (0.5, 0.2)])
def test_two_steps_equal_a_padded_reference(tmp_path: Path, beta: float, smooth: float) -> None:
    rows = pair_rows(10)
    options = {"batch_size": 10, "max_steps": 2, "learning_rate": 1e-4, "micro_batch_tokens": 300}
    first, second = metrics(run(tmp_path, rows, beta=beta, label_smoothing=smooth, **options))

    module, tokenizer = plain_model("tiny-random")
    ref = references(module, tokenizer, rows)
    pair_losses(module, tokenizer, rows, ref, beta, smooth).mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    adamw(module, 1e-4).step()
    with torch.no_grad():
        after = pair_losses(module, tokenizer, rows, ref, beta, smooth).mean()
        chosen, rejected = (response_sums(module, tokenizer, rows, side) for side in ("chosen", "rejected"))

    assert first["loss"] == pytest.approx(LN2, abs=1e-6)
    assert first["chosen_logprob"] == pytest.approx(ref[0].mean().item(), rel=1e-5)
    assert first["rejected_logprob"] == pytest.approx(ref[1].mean().item(), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    assert second["loss"] == pytest.approx(after.item(), abs=1e-4)
    assert abs(after.item() - LN2) > 0.01  # the update was large enough to tell
    assert second["chosen_logprob"] == pytest.approx(chosen.mean().item(), rel=1e-4)
    assert second["rejected_logprob"] == pytest.approx(rejected.mean().item(), rel=1e-4)
    margins = beta * ((chosen - ref[0]) - (rejected - ref[1]))
    assert second["margin"] == pytest.approx(margins.mean().item(), abs=1e-3)
    assert second["accuracy"] == pytest.approx((margins > 0).float().mean().item(), abs=1e-6)


def test_two_steps_with_an_adapter_equal_a_padded_reference(tmp_path: Path) -> None:
    """Adapters start at B = 0, so the first step leaves A as it was drawn: the adapter of a run of one step, with B set
    back to 0, is the start of a run of two."""
    from peft import PeftModel

    rows = pair_rows(8)
    options = {"batch_size": 8, "learning_rate": 1e-3, "lora_rank": 4}
    one = run(tmp_path, rows, "one", max_steps=1, **options)
    first, second = metrics(run(tmp_path, rows, "two", max_steps=2, **options))

    module, tokenizer = plain_model("tiny-random")
    ref = references(module, tokenizer, rows)
    adapted = PeftModel.from_pretrained(module, str(one / "adapter"), is_trainable=True).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    pair_losses(adapted, tokenizer, rows, ref, 0.1, 0.0).mean().backward()
    torch.nn.utils.clip_grad_norm_([p for p in adapted.parameters() if p.requires_grad], 1.0)
    adamw(adapted, 1e-3).step()
    with torch.no_grad():
        after = pair_losses(adapted, tokenizer, rows, ref, 0.1, 0.0).mean()

    assert first["loss"] == pytest.approx(LN2, abs=1e-6)
    assert second["loss"] == pytest.approx(after.item(), abs=1e-4)
    assert abs(after.item() - LN2) > 0.01


def test_after_sft_with_an_adapter_the_reference_is_the_merged_model(tmp_path: Path) -> None:
    rows = pair_rows(6)
    data = write_rows(tmp_path / "sft.jsonl", sft_rows(6))
    sft = tmp_path / "sft"
    train_sft(SftConfig(model="tiny-random", data=str(data), out=sft, max_steps=8, lora_rank=4, learning_rate=1e-3))
    first = metrics(run(tmp_path, rows, model=str(sft), batch_size=6, max_steps=1))[0]
    merged = references(*plain_model(sft), rows)
    start = references(*plain_model("tiny-random"), rows)
    assert first["loss"] == pytest.approx(LN2, abs=1e-6)
    assert first["chosen_logprob"] == pytest.approx(merged[0].mean().item(), rel=1e-4)
    assert abs((start[0] - merged[0]).mean().item()) > 1.0


def test_it_learns_what_is_preferred(tmp_path: Path) -> None:
    rows = pair_rows(8)
    steps = metrics(run(tmp_path, rows, batch_size=8, max_steps=15, learning_rate=1e-4))
    assert steps[-1]["loss"] < 0.1 < steps[0]["loss"]
    assert steps[-1]["accuracy"] == 1.0


def test_held_out_pairs_are_judged_against_their_own_reference(tmp_path: Path) -> None:
    """At a rate of next to nothing the held-out loss is ln 2 too; at a real one it is the reference's."""
    held_out = pair_rows(5)
    file = write_rows(tmp_path / "held-out.jsonl", held_out)
    options = {"batch_size": 4, "max_steps": 1, "eval_data": str(file), "eval_every": 1}
    still = metrics(run(tmp_path, pair_rows(4), "still", learning_rate=1e-12, **options))[0]
    assert still["eval/loss"] == pytest.approx(LN2, abs=1e-5)
    moved = run(tmp_path, pair_rows(4), "moved", learning_rate=1e-4, **options)
    start, tokenizer = plain_model("tiny-random")
    with torch.no_grad():
        ref = references(start, tokenizer, held_out)
        loss = pair_losses(plain_model(moved)[0], tokenizer, held_out, ref, 0.1, 0.0).mean()
    assert metrics(moved)[0]["eval/loss"] == pytest.approx(loss.item(), abs=1e-4)
    assert abs(loss.item() - LN2) > 0.005


def test_cut_responses_are_counted_and_left_out_where_they_are_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*pair_rows(2), {"prompt": "p", "chosen": "a" + "x" * 300, "rejected": "b" + "x" * 300}]
    out = run(tmp_path, rows, max_length=150)
    assert events(out, "truncated_rows") == [
        {"event": "truncated_rows", "data": f"{tmp_path}/pairs.jsonl", "rows": 1, "of": 3, "max_length": 150}
    ]
    assert "warning: 1 of 3 rows are longer" in capsys.readouterr().err
    same = {"prompt": "p", "chosen": "x" * 300 + "a", "rejected": "x" * 300 + "b"}
    full = {"prompt": "p" * 300, "chosen": "a", "rejected": "b"}
    out = run(tmp_path, [same, *pair_rows(2), full], "some", max_length=150)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "2 of 4 rows do not fit and are left out" in line
    assert re.search(r"pairs\.jsonl:1 \(chosen and rejected are the same \d+ tokens after cutting", line)
    assert re.search(r"pairs\.jsonl:4 \(the prompt has \d+ tokens and --max-length is 150\)", line)
    assert metrics(out, timeless=True) == metrics(run(tmp_path, pair_rows(2), "rest", max_length=150), timeless=True)
    with pytest.raises(InputError, match=r"2 of 4 rows do not fit"):
        run(tmp_path, [same, *pair_rows(2), full], "strict", max_length=150, strict=True)
    assert not (tmp_path / "strict").exists()
