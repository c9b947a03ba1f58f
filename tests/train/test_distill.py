"""On-policy distillation against a padded reference, and that it brings the student nearer to its teacher."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from posttrain.cli.main import main
from posttrain.config import DistillConfig, SftConfig
from posttrain.models.load import model_folder
from posttrain.train.distill import train_distill
from posttrain.train.sft import train_sft
from posttrain.types import InputError
from tests.training_helpers import chatml, events, metrics, plain_model, read_rows, sft_rows, write_rows


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """tiny-random after a few steps on examples: it writes words and knows when to end."""
    folder = tmp_path_factory.mktemp("teacher")
    data = write_rows(folder / "train.jsonl", sft_rows(40))
    out = folder / "run"
    train_sft(SftConfig(model="tiny-random", data=str(data), out=out, batch_size=8, max_steps=40, learning_rate=2e-3))
    return str(out / "model")


def run(
    tmp_path: Path, teacher: str, name: str = "run", rows: list[dict[str, Any]] | None = None, **options: Any
) -> Path:
    """Distil into tiny-random and return the run folder."""
    data = write_rows(tmp_path / "tasks.jsonl", rows or [{"prompt": row["prompt"]} for row in sft_rows(8)])
    out = tmp_path / name
    given = {"model": "tiny-random", "teacher": teacher, "data": str(data), "out": out, "max_new_tokens": 12}
    train_distill(DistillConfig(**given | options))
    return out


def reference(
    student: Any, teacher: Any, answers: list[tuple[list[int], list[bool]]], beta: float, temperature: float
) -> tuple[torch.Tensor, float]:
    """The loss by the paper's equations, row by row, and the divergence a token."""
    means, values = [], []
    for ids, mask in answers:
        at = torch.tensor(mask).nonzero()[:, 0] - 1
        logits = student(input_ids=torch.tensor([ids])).logits[0, at]
        with torch.no_grad():
            p = (teacher(input_ids=torch.tensor([ids])).logits[0, at] / temperature).softmax(-1)
        q = (logits / temperature).softmax(-1)
        if beta == 0:
            each = (p * (p / q).log()).sum(-1)
        elif beta == 1:
            each = (q * (q / p).log()).sum(-1)
        else:
            m = beta * p + (1 - beta) * q
            each = beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1)
        means.append(each.mean())
        values += each.tolist()
    return torch.stack(means).mean(), sum(values) / len(values)


def recorded(out: Path, step: int) -> list[tuple[list[int], list[bool]]]:
    segments = [row["segments"][0] for row in read_rows(out / "rollouts.jsonl") if row["step"] == step]
    return [(s["token_ids"], [bool(x) for x in s["sampled"]]) for s in segments]


@pytest.mark.parametrize(("beta", "temperature"), [(0.0, 1.0), (0.3, 0.7), (1.0, 1.0)])
def test_first_step_equals_a_padded_reference(tmp_path: Path, teacher: str, beta: float, temperature: float) -> None:
    options = {"jsd_beta": beta, "temperature": temperature, "batch_size": 8, "max_steps": 1}
    out = run(tmp_path, teacher, **options)
    answers = recorded(out, 1)
    assert len(answers) == 8
    student, _ = plain_model("tiny-random")
    loss, jsd = reference(student, plain_model(teacher)[0], answers, beta, temperature)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in student.parameters() if p.grad is not None])
    (row,) = metrics(out)
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert row["jsd"] == pytest.approx(jsd, rel=1e-4)
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-3)
    lengths = [sum(mask) for _, mask in answers]
    assert row["response_length"] == sum(lengths) / 8
    assert row["on_policy"] == 1 and 0 < row["entropy"] < 6
    assert events(out, "teacher")[0]["model"] == teacher


def test_given_completions_take_the_rest_of_the_share(tmp_path: Path, teacher: str) -> None:
    rows = sft_rows(8)
    out = run(tmp_path, teacher, rows=rows, on_policy_share=0.5, batch_size=8, max_steps=1, jsd_beta=0.0)
    answers = recorded(out, 1)
    (row,) = metrics(out)
    assert 0 < len(answers) < 8 and row["on_policy"] == len(answers) / 8
    student, tokenizer = plain_model("tiny-random")
    sampled = {tuple(ids[: mask.index(True)]) for ids, mask in answers}
    given = [chatml(tokenizer, r["prompt"], r["completion"]) for r in rows]
    given = [(ids, mask) for ids, mask in given if tuple(ids[: mask.index(True)]) not in sampled]
    assert len(given) + len(answers) == 8
    loss, _ = reference(student, plain_model(teacher)[0], [*answers, *given], 0.0, 1.0)
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
    off = run(tmp_path, teacher, "off", rows=rows, on_policy_share=0.0, batch_size=8, max_steps=2)
    assert [m["on_policy"] for m in metrics(off)] == [0, 0] and not (off / "rollouts.jsonl").read_text()


@pytest.mark.parametrize("beta", [0.0, pytest.param(1.0, marks=pytest.mark.stress)])
def test_the_student_comes_nearer_on_held_out_prompts(tmp_path: Path, teacher: str, beta: float) -> None:
    held_out = write_rows(tmp_path / "held-out.jsonl", [{"prompt": r["prompt"]} for r in sft_rows(26)[20:]])
    options = {"batch_size": 8, "jsd_beta": beta, "eval_data": str(held_out), "max_new_tokens": 8}
    start = run(tmp_path, teacher, "start", eval_every=1, max_steps=1, learning_rate=1e-9, **options)
    out = run(tmp_path, teacher, eval_every=30, max_steps=30, learning_rate=1e-3, **options)
    before, after = metrics(start)[-1]["eval/loss"], metrics(out)[-1]["eval/loss"]
    assert after < 0.7 * before


def test_micro_batches_do_not_change_the_numbers(tmp_path: Path, teacher: str) -> None:
    options = {"batch_size": 6, "max_steps": 2, "learning_rate": 1e-4}
    one = metrics(run(tmp_path, teacher, "one", micro_batch_tokens=1, **options))
    all_ = metrics(run(tmp_path, teacher, "all", micro_batch_tokens=100_000, **options))
    for a, b in zip(one, all_, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_an_adapter_learns_from_its_own_start_and_others(tmp_path: Path, teacher: str) -> None:
    """From itself there is nothing to learn; from another the adapter alone is trained."""
    options = {"lora_rank": 4, "batch_size": 8, "max_steps": 8, "learning_rate": 5e-3}
    own = metrics(run(tmp_path, "tiny-random", "own", **options | {"max_steps": 1}))
    assert own[0]["loss"] == pytest.approx(0.0, abs=1e-6)
    other = metrics(run(tmp_path, teacher, "other", **options))
    assert other[-1]["loss"] < 0.9 * other[0]["loss"]
    assert (tmp_path / "other" / "adapter" / "adapter_model.safetensors").exists()


def test_other_vocabularies_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(model_folder("tiny-random"), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"--teacher .*: has other tokens.*posttrain sample, then posttrain sft"):
        run(tmp_path, str(folder))
    assert not (tmp_path / "run").exists()


def test_a_share_without_completions_is_refused(tmp_path: Path, teacher: str) -> None:
    with pytest.raises(InputError, match=r"tasks.jsonl: task 0 has no completion, and --on-policy-share 0.5"):
        run(tmp_path, teacher, on_policy_share=0.5)
    assert not (tmp_path / "run").exists()


def test_one_pass_and_the_command_line(tmp_path: Path, teacher: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", sft_rows(10))
    options = ["--model", "tiny-random", "--teacher", teacher, "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(["distill", *options, "--batch-size", "4", "--max-new-tokens", "4"]) == 0
    rows = metrics(tmp_path / "out")
    assert len(rows) == 3
    assert len(read_rows(tmp_path / "out" / "rollouts.jsonl")) == 10
    assert [m["flops"] for m in rows] == sorted(m["flops"] for m in rows)
    assert (tmp_path / "out" / "report.html").exists()
