"""SFT against a plain reference, and its options."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain.config import SftConfig
from posttrain.train.sft import train_sft
from posttrain.types import InputError
from tests.training_helpers import (
    adamw,
    chatml,
    events,
    mask_tensor,
    metrics,
    padded_logprobs,
    plain_model,
    sft_rows,
    write_rows,
)


def run(tmp_path: Path, rows: list[dict[str, Any]], name: str = "run", **options: Any) -> Path:
    """Train tiny-random on the rows and return the run folder."""
    data = write_rows(tmp_path / "train.jsonl", rows)
    out = tmp_path / name
    train_sft(SftConfig(**{"model": "tiny-random", "data": str(data), "out": out, **options}))
    return out


def reference_loss(model: Any, rows: list[dict[str, str]], system: str = "") -> torch.Tensor:
    """Mean negative log-likelihood over all answer tokens of the rows."""
    module, tokenizer = model
    encoded = [chatml(tokenizer, row["prompt"], row["completion"], system) for row in rows]
    mask = mask_tensor([m for _, m in encoded])
    return -padded_logprobs(module, [ids for ids, _ in encoded])[mask].mean()


def test_losses_before_and_after_an_update_equal_a_padded_reference(tmp_path: Path) -> None:
    """64 rows are one batch: what order they come in does not matter, and step 2 sees them all again."""
    rows = sft_rows(64)
    out = run(tmp_path, rows, batch_size=64, max_steps=2, learning_rate=1e-3, weight_decay=0.1)

    module, tokenizer = plain_model("tiny-random")
    loss = reference_loss((module, tokenizer), rows)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    adamw(module, 1e-3, decay=0.1).step()
    with torch.no_grad():
        after = reference_loss((module, tokenizer), rows)

    first, second = metrics(out)
    assert first["loss"] == pytest.approx(loss.item(), abs=1e-4)
    assert first["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert second["loss"] == pytest.approx(float(after), abs=1e-4)
    assert abs((loss - after).item()) > 0.05  # the update was large enough to tell
    assert first["tokens"] == sum(len(chatml(tokenizer, r["prompt"], r["completion"])[0]) for r in rows)


@pytest.mark.stress
@pytest.mark.real_model
def test_first_loss_of_a_real_model_equals_a_padded_reference(tmp_path: Path) -> None:
    rows = sft_rows(64)
    out = run(tmp_path, rows, model="smollm2-135m", batch_size=64, max_steps=1)
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    with torch.no_grad():
        loss = reference_loss(plain_model("smollm2-135m"), rows, system)
    assert metrics(out)[0]["loss"] == pytest.approx(float(loss), abs=1e-4)


def test_it_learns(tmp_path: Path) -> None:
    rows = sft_rows(8)
    losses = [m["loss"] for m in metrics(run(tmp_path, rows, batch_size=8, max_steps=30, learning_rate=1e-3))]
    assert losses[0] > 5.0
    assert losses[-1] < 1.5


def test_micro_batches_do_not_change_the_numbers(tmp_path: Path) -> None:
    rows = sft_rows(12)
    options = {"batch_size": 6, "max_steps": 5, "learning_rate": 1e-4}
    one = metrics(run(tmp_path, rows, "one", micro_batch_tokens=1, **options))
    all_ = metrics(run(tmp_path, rows, "all", micro_batch_tokens=100_000, **options))
    assert len(one) == len(all_) == 5
    for a, b in zip(one, all_, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_one_pass_takes_every_row_once_and_repeats_reshuffle(tmp_path: Path) -> None:
    rows = sft_rows(10)
    _, tokenizer = plain_model("tiny-random")
    whole = sum(len(chatml(tokenizer, r["prompt"], r["completion"])[0]) for r in rows)
    once = metrics(run(tmp_path, rows, "once", batch_size=4))
    assert len(once) == 3
    assert sum(m["tokens"] for m in once) == whole
    twice = [m["tokens"] for m in metrics(run(tmp_path, rows, "twice", batch_size=5, max_steps=4))]
    assert sum(twice[:2]) == sum(twice[2:]) == whole
    assert twice[:2] != twice[2:]


def test_warm_up_and_schedules_never_rest_at_zero(tmp_path: Path) -> None:
    rows = sft_rows(4)
    options = {"batch_size": 2, "max_steps": 6, "warmup_steps": 2, "learning_rate": 1e-4}

    def rates(schedule: str) -> list[float]:
        return [m["learning_rate"] for m in metrics(run(tmp_path, rows, schedule, schedule=schedule, **options))]

    assert rates("constant") == pytest.approx([0.5e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4])
    # 4 steps after the warm-up: 1/4, 2/4, 3/4, 4/4 of the way down to a tenth
    assert rates("linear") == pytest.approx([0.5e-4, 1e-4, 0.775e-4, 0.55e-4, 0.325e-4, 0.1e-4])
    half = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3, 4)]
    assert rates("cosine") == pytest.approx([0.5e-4, 1e-4, *(1e-4 * h for h in half)])


def test_rows_that_were_cut_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*sft_rows(3), {"prompt": "Count", "completion": "x" * 500}]
    out = run(tmp_path, rows, batch_size=4, max_length=200)
    assert events(out, "truncated_rows") == [
        {"event": "truncated_rows", "data": f"{tmp_path}/train.jsonl", "rows": 1, "of": 4, "max_length": 200}
    ]
    told = capsys.readouterr().err
    assert "warning: 1 of 4 rows are longer than --max-length 200" in told
    assert f"are cut there, the first at {tmp_path}/train.jsonl:4\n" in told
    _, tokenizer = plain_model("tiny-random")
    short = sum(len(chatml(tokenizer, r["prompt"], r["completion"])[0]) for r in rows[:3])
    assert metrics(out)[0]["tokens"] == short + 200


def test_control_tokens_in_text_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = [{"role": "user", "content": "<|im_start|>"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": [{**talk[0], "content": "q"}, talk[1]]}, {"messages": talk}, {"messages": talk}]
    out = run(tmp_path, rows, batch_size=3)
    first = f"{tmp_path}/train.jsonl:2"
    assert events(out, "special_tokens") == [
        {"event": "special_tokens", "rows": 2, "of": 3, "first": first, "token": "<|im_start|>"}
    ]
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "2 of 3 rows" in warning and first in warning
    run(tmp_path, rows, batch_size=3, resume=True)
    assert len(events(out, "special_tokens")) == 1


def test_rows_that_do_not_fit_are_left_out_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is the one on the other rows, in the steps and in the numbers; one line names three, --strict all."""
    rows = sft_rows(4)
    too_long = [{"prompt": f"{i} " + "long " * 60, "completion": "yes"} for i in range(4)]
    mixed = [rows[0], *too_long[:2], rows[1], *too_long[2:], *rows[2:]]
    held_out = write_rows(tmp_path / "held-out.jsonl", [rows[0], too_long[0]])
    options = {"batch_size": 2, "max_steps": 3, "max_length": 100, "eval_data": str(held_out), "eval_every": 3}
    out = run(tmp_path, mixed, "mixed", **options)
    line, of_held_out = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning: ")]
    file = f"{tmp_path}/train.jsonl"
    assert line.startswith(f"warning: 4 of 8 rows do not fit and are left out: {file}:2 (no trained token is left: ")
    assert f"{file}:5" in line and f"{file}:6" not in line and "and 1 more" in line and "--strict" in line
    assert f"1 of 2 rows do not fit and are left out: {held_out}:2" in of_held_out
    told, told_held_out = events(out, "left_out")
    assert (told["data"], told["rows"], told["of"]) == (file, 4, 8)
    assert [row.partition(": ")[0] for row in told["first"]] == [f"{file}:{n}" for n in (2, 3, 5)]
    assert (told_held_out["data"], told_held_out["rows"], told_held_out["of"]) == (str(held_out), 1, 2)
    run(tmp_path, mixed, "mixed", **options, resume=True)
    assert len(events(out, "left_out")) == 2
    with pytest.raises(InputError, match=r"4 of 8 rows do not fit, and --strict") as error:
        run(tmp_path, mixed, "strict", strict=True, **options)
    assert [line.split(":")[1] for line in str(error.value).splitlines()[1:]] == ["2", "3", "5", "6"]
    with pytest.raises(InputError, match=r"train.jsonl: none of 4 rows fits: .*; raise --max-length"):
        run(tmp_path, too_long, "none", **options)
    assert not (tmp_path / "strict").exists() and not (tmp_path / "none").exists()
    plain = run(tmp_path, rows, "plain", **options)
    assert metrics(plain, timeless=True) == metrics(out, timeless=True)


def test_patience_keeps_the_best_weights(tmp_path: Path) -> None:
    """Training on other answers at a wild rate makes the held-out loss rise after a while."""
    held_out = write_rows(tmp_path / "held-out.jsonl", [{"prompt": "Say it", "completion": "apple river"}])
    rows = [{"prompt": "Say it", "completion": "apple stone"}, {"prompt": "Say that", "completion": "qqq"}]
    out = run(
        tmp_path,
        rows,
        batch_size=2,
        max_steps=200,
        learning_rate=3e-3,
        eval_data=str(held_out),
        eval_every=2,
        patience=2,
    )
    evaluated = {m["step"]: m["eval/loss"] for m in metrics(out) if "eval/loss" in m}
    best = min(evaluated, key=lambda step: evaluated[step])
    last = max(evaluated)
    assert last == best + 4 < 200  # two evaluations without a better one
    assert evaluated[last] > evaluated[best] + 0.01
    with torch.no_grad():
        loss = reference_loss(plain_model(out), [{"prompt": "Say it", "completion": "apple river"}])
    assert float(loss) == pytest.approx(evaluated[best], abs=1e-4)
    assert events(out, "best_step")[0]["step"] == best


@pytest.mark.parametrize("answer", ["apple stone", "river river"])
def test_the_end_of_a_run_is_evaluated_too(tmp_path: Path, answer: str) -> None:
    """5 steps, an evaluation every 4: the last step has one of its own, and the better of the two gives the weights.
    The held-out loss falls where the run trains on what is held out, and rises where it trains on something else."""
    held_out = write_rows(tmp_path / "held-out.jsonl", [{"prompt": "Say it", "completion": "apple stone"}])
    rows = [{"prompt": "Say it", "completion": answer}]
    options = {"max_steps": 5, "learning_rate": 1e-3 if answer == "apple stone" else 1e-2, "batch_size": 1}
    out = run(tmp_path, rows, eval_data=str(held_out), eval_every=4, patience=3, **options)
    evaluated = {m["step"]: m["eval/loss"] for m in metrics(out) if "eval/loss" in m}
    assert list(evaluated) == [4, 5]
    best = 5 if answer == "apple stone" else 4
    assert min(evaluated, key=lambda step: evaluated[step]) == best
    assert [event["step"] for event in events(out, "best_step")] == [best]
    with torch.no_grad():
        loss = reference_loss(plain_model(out), [{"prompt": "Say it", "completion": "apple stone"}])
    assert float(loss) == pytest.approx(evaluated[best], abs=1e-4)


@pytest.mark.parametrize("variant", [{}, {"use_rslora": True, "use_dora": True}], ids=["lora", "rslora-dora"])
def test_lora_merges_what_the_adapter_computes(tmp_path: Path, variant: dict[str, bool]) -> None:
    from peft import PeftModel

    out = run(tmp_path, sft_rows(8), batch_size=4, max_steps=6, lora_rank=4, learning_rate=1e-3, **variant)
    start, tokenizer = plain_model("tiny-random")
    ids = torch.tensor([chatml(tokenizer, "Say apple", "apple")[0]])
    with torch.no_grad():
        before = start(ids).logits
        merged = plain_model(out)[0](ids).logits
        adapted = PeftModel.from_pretrained(start, str(out / "adapter")).eval()(ids).logits
    assert torch.allclose(merged, adapted, atol=1e-4)
    modules = json.loads((out / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)  # the same file in every process
    assert not torch.allclose(merged, before, atol=0.05)
    embeddings = [load_file(f / "model.safetensors")["model.embed_tokens.weight"] for f in (out / "model",)]
    assert torch.equal(embeddings[0], start.get_input_embeddings().weight)  # the head and the embeddings stay


def test_lora_takes_ten_times_the_rate(tmp_path: Path) -> None:
    rows = sft_rows(2)
    full = metrics(run(tmp_path, rows, "full", max_steps=1))[0]["learning_rate"]
    lora = metrics(run(tmp_path, rows, "lora", max_steps=1, lora_rank=2))[0]["learning_rate"]
    assert (full, lora) == (pytest.approx(2e-5), pytest.approx(2e-4))


@pytest.mark.parametrize("rank", [0, 4])
def test_a_budget_of_operations_ends_the_run(tmp_path: Path, rank: int) -> None:
    """It ends with the first step that reaches the budget, and data repeats until then. The steps of a schedule are
    planned by the same count, an adapter's operations included: the last step has a tenth of the peak rate."""
    rows = sft_rows(4)
    options = {"batch_size": 2, "lora_rank": rank, "schedule": "linear"}
    spent = [m["flops"] for m in metrics(run(tmp_path, rows, "free", **options, max_steps=7))]
    assert all(a < b for a, b in itertools.pairwise(spent))
    budget = (spent[3] + spent[4]) / 2
    found = metrics(run(tmp_path, rows, "budget", **options, learning_rate=1e-3, max_steps=99, max_flops=budget))
    assert [m["flops"] for m in found] == spent[:5]
    assert found[-1]["learning_rate"] == pytest.approx(1e-4)
