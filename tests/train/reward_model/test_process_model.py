"""Process reward models: data in steps, what is learnt from it, and the scores of steps as a reward."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from posttrain.batch.types import read_numbers
from posttrain.cli.main import main
from posttrain.config import AdversarialConfig, RewardModelConfig, ScoreConfig
from posttrain.data.check import check_data, format_report
from posttrain.data.formats import Loader, load_judged, load_preferences, load_stepwise
from posttrain.losses.reward_model import stepwise_loss
from posttrain.methods import METHODS
from posttrain.models import load_model, load_reward_model
from posttrain.models.read import SCORES, read
from posttrain.rewards.models import of_steps
from posttrain.rewards.score import run_score
from posttrain.rewards.scorer import Scorer
from posttrain.rows import split_steps
from posttrain.stats import wilson
from posttrain.train.dataset_stage import Data, DatasetStage
from posttrain.train.loop import make_policy
from posttrain.train.reward_model.pairs import train_reward_model
from posttrain.train.reward_model.process import (
    Solution,
    batch_loss,
    encode_solutions,
    process_method,
    separator_of,
    solution_trees,
)
from posttrain.train.reward_model.validate import clustered_share, stepwise_validation
from posttrain.types import InputError, Message, Sample, Score
from tests.training_helpers import END, chatml, events, metrics, pair_rows, read_rows, stepwise_rows, write_rows

GOOD = {"prompt": "q", "steps": ["a", "b"], "labels": [True, False]}


def settings(tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> RewardModelConfig:
    data = write_rows(tmp_path / "steps.jsonl", rows)
    given = {"model": "tiny-random", "data": str(data), "out": tmp_path / "prm", "batch_size": 4, **changes}
    return RewardModelConfig(**given)


def stage_of(config: RewardModelConfig) -> DatasetStage[Solution]:
    lm = load_model("tiny-random")
    lm.add_reward_head(1, config.seed)
    rows = load_stepwise(config.data)
    data = Data(encode_solutions(lm, rows, config.max_length, "\n").kept, [], [])
    return DatasetStage(config, process_method(config, rows), make_policy(lm, config, 1e-4, 1), data, 1, 1024)


def gradients(stage: DatasetStage[Solution]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Of all the answers as one training step, and its metrics."""
    found = stage.policy.forward_backward(solution_trees(stage.examples), batch_loss, SCORES)
    slopes = {name: p.grad.clone() for name, p in stage.policy.weights().items() if p.grad is not None}
    return slopes, read_numbers(found)


def ids_and_ends(tokenizer: Any, prompt: str, text: str, separator: str = "\n") -> tuple[list[int], list[int]]:
    """The tokens of a one-turn conversation, and where its steps end: of a tokenizer of bytes, at the separator after
    the step, and at the end token."""
    ids, answer = chatml(tokenizer, prompt, text)
    steps = text.split(separator)
    lengths = [len(separator.join(steps[:k]).encode()) + len(separator) - 1 for k in range(1, len(steps))]
    return ids, [*(answer.index(True) + n for n in lengths), len(ids) - 1]


# -- what is learnt ---------------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """σ(ln 3) = 3/4, σ(0) = 1/2; the third step is right with probability 1/4."""
    scores = torch.tensor([math.log(3), 0.0, -math.log(3)], dtype=torch.float64)
    labels, weights = torch.tensor([1.0, 0.0, 0.25]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    expected = 0.5 * -math.log(0.75) + 1.0 * math.log(2) + 2.0 * entropy
    assert float(stepwise_loss(scores, labels, weights)) == pytest.approx(expected, abs=1e-12)
    slopes = scores.clone().requires_grad_()
    stepwise_loss(slopes, labels, weights).backward()
    assert slopes.grad is not None  # w · (σ(s) − y)
    assert slopes.grad.tolist() == pytest.approx([0.5 * -0.25, 0.5, 0.0], abs=1e-12)
    assert stepwise_loss(torch.tensor([1e4, -1e4]), torch.tensor([0.0, 1.0]), torch.ones(2)).item() == 2e4


def test_steps_are_read_at_their_last_tokens() -> None:
    lm = load_model("tiny-random")
    for separator in ("\n", "\n\n"):
        text = separator.join(["Say", "it é", "twice"])
        row = lm.chat.encode_steps("here", "Why?", text.split(separator), separator)
        ids, ends = ids_and_ends(lm.tokenizer, "Why?", text, separator)
        assert list(row.token_ids) == ids
        assert [i for i, end in enumerate(row.mask) if end] == ends


def test_the_gradient_is_the_plain_one_in_float64(tmp_path: Path) -> None:
    """Against transformers' classifier on the answer up to each step, all labels of soft and hard answers alike."""
    rows = stepwise_rows(5)
    rows[2]["labels"] = [0.5, 0.9, 0.0]
    stage = stage_of(settings(tmp_path, rows))
    found, logged = gradients(stage)
    stage.policy.lm.save(tmp_path / "start")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start", dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "start")
    losses, right = [], []
    for row in rows:
        ids, ends = ids_and_ends(tokenizer, row["prompt"], "\n".join(row["steps"]))
        for end, y in zip(ends, map(float, row["labels"]), strict=True):
            s = model(input_ids=torch.tensor([ids[: end + 1]])).logits[0, 0]
            losses.append(y * torch.log1p(torch.exp(-s)) + (1 - y) * torch.log1p(torch.exp(s)))
            right.append((s.item() >= 0) == (y >= 0.5))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert len(losses) == 1 + 2 + 3 + 4 + 5
    assert logged["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert logged["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    plain = {name: p.grad for name, p in model.named_parameters()}
    assert torch.allclose(found.pop("score_head.weight").double(), plain.pop("score.weight"), atol=1e-5)
    assert found.keys() == plain.keys()
    for name, slope in found.items():
        assert (slope.double() - plain[name]).norm() < 1e-4 * plain[name].norm(), name


def test_micro_batches_do_not_change_the_gradient(tmp_path: Path) -> None:
    whole, one = gradients(stage_of(settings(tmp_path, stepwise_rows(7))))
    split, other = gradients(stage_of(settings(tmp_path, stepwise_rows(7), micro_batch_tokens=60)))
    assert one == pytest.approx(other, abs=1e-5) and whole.keys() == split.keys()
    for name, slope in whole.items():
        assert torch.allclose(slope, split[name], atol=1e-5, rtol=1e-3), name


def test_one_row_has_several_positions_and_a_prompt_is_computed_once(tmp_path: Path) -> None:
    """Two answers to one prompt, packed and by padded rows."""
    rows = [{"prompt": "p" * 10, "steps": s, "labels": [1] * len(s)} for s in (["one", "two"], ["1", "2", "3"])]
    stage = stage_of(settings(tmp_path, rows))
    lm, trees = stage.policy.lm, solution_trees(stage.examples)
    prompt = len(lm.chat.prompt_ids("p" * 10))
    lm.forwarded_tokens = 0
    packed = list(read(lm, trees, 4096, SCORES))
    assert lm.forwarded_tokens == prompt + len("one\ntwo.") + len("1\n2\n3.")
    assert [len(scores) for scores in packed] == [2, 3]
    lm.packed = False
    for one, other in zip(packed, list(read(lm, trees, 4096, SCORES)), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert list(read(lm, [], 4096, SCORES)) == []


def world(n: int, seed: int) -> list[dict[str, Any]]:
    """Steps of one or two words; an answer is wrong from the step on that says stone."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        words = ["apple", "river", "cloud", "stone"]
        lengths = rng.integers(1, 3, rng.integers(2, 5))
        steps = [" ".join(rng.choice(words, k, p=[0.3, 0.3, 0.3, 0.1])) for k in lengths]
        right = np.cumsum(["stone" in step for step in steps]) == 0
        rows.append({"prompt": "Say it", "steps": steps, "labels": right.tolist()})
    return rows


def test_it_learns_where_answers_go_wrong(tmp_path: Path) -> None:
    """The file of numbers is that of the model as written; as a reward it takes the answer without an error."""
    rows = world(100, seed=1)
    config = settings(
        tmp_path,
        world(400, seed=0),
        batch_size=16,
        max_steps=24,
        learning_rate=1e-3,
        eval_data=str(write_rows(tmp_path / "held-out.jsonl", rows)),
        eval_every=24,
    )
    train_reward_model(config)
    last = metrics(config.out)[-1]
    assert last["eval/accuracy_low"] < last["eval/accuracy"] <= last["eval/accuracy_high"]
    found = json.loads((config.out / "evaluations" / "reward_model.json").read_text())
    assert found["accuracy"]["value"] == pytest.approx(last["eval/accuracy"], abs=0.01)
    assert found["accuracy"]["n"] == sum(len(row["steps"]) for row in rows) == found["steps"]
    assert found["accuracy"]["value"] > 0.95 and found["wrong_steps"]["value"] > 0.9
    assert found["first_error"]["value"] > 0.9 and found["no_error"]["value"] > 0.9
    assert found["first_error"]["n"] + found["no_error"]["n"] == found["answers"] == 100
    assert sum(bin_["right"]["n"] for bin_ in found["calibration"]["bins"]) == found["steps"]
    good, bad = scored(str(config.out), ["apple\nriver\ncloud", "apple\nstone\ncloud"])
    assert good.total is not None and bad.total is not None and bad.step_values is not None
    assert good.total > 0.5 > bad.total and bad.step_values[0] > 0.5 > bad.step_values[1]
    before = {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()}
    (config.out / "evaluations" / "reward_model.json").unlink()  # killed after the model was written
    train_reward_model(config.model_copy(update={"resume": True}))
    assert {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()} == before


def test_steps_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    lm = load_model("tiny-random")
    rows = [{"prompt": "q", "steps": ["one", "two", "three"], "labels": [1, 0.5, 0]}, GOOD]
    loaded = load_stepwise(str(write_rows(tmp_path / "d.jsonl", rows)))
    start = len(lm.chat.prompt_ids("q"))
    fitted = encode_solutions(lm, loaded, start + len("one\ntwo\nth"), "\n")
    first, second = fitted.kept
    assert fitted.cut == 1
    assert (len(first.token_ids), first.labels, sum(first.ends)) == (start + len("one\ntwo\n"), (1.0, 0.5), 2)
    assert first.ends[-1] and second.labels == (1.0, 0.0)
    fitted = encode_solutions(lm, loaded, start + 3, "\n")
    message = rf"d\.jsonl:1: prompt and first step have {start + 4} tokens and --max-length is {start + 3}"
    assert len(fitted.kept) == 1 and re.search(message, str(fitted.left_out[0]))
    config = settings(tmp_path, rows, max_steps=1, max_length=start + 10)
    train_reward_model(config)
    assert [(e["rows"], e["of"]) for e in events(config.out, "truncated_rows")] == [(1, 2)]


# -- what is measured -------------------------------------------------------------------------------------------------


def test_validation_by_hand() -> None:
    """The first answer has its first error in the second step and is said to; the second is said to have it one step
    early; the third has none and is said to have one, the fourth none."""
    labels = [[1, 0, 0], [1, 0.75, 0.25], [1, 1], [0.5]]
    scores = [[2, -1, 1], [1, -1, -3], [-2, 2], [0.5]]
    found = stepwise_validation([np.array(x, float) for x in labels], [np.array(x, float) for x in scores])
    assert (found["answers"], found["steps"]) == (4, 9)
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (6 / 9, 9)
    assert (found["right_steps"]["value"], found["right_steps"]["n"]) == (4 / 6, 6)
    assert (found["wrong_steps"]["value"], found["wrong_steps"]["n"]) == (2 / 3, 3)
    assert (found["first_error"]["value"], found["first_error"]["n"]) == (1 / 2, 2)
    assert (found["no_error"]["value"], found["no_error"]["n"]) == (1 / 2, 2)
    assert found["f1"] == pytest.approx(1 / 2)
    bins = found["calibration"]["bins"]
    assert sum(b["right"]["n"] for b in bins) == 9
    assert sum(b["right"]["n"] * b["right"]["value"] for b in bins) == pytest.approx(6)
    sound = stepwise_validation([np.ones(2)], [np.ones(2)])
    assert sound["f1"] is None and sound["first_error"]["value"] is None
    assert (sound["wrong_steps"]["value"], sound["wrong_steps"]["n"]) == (None, 0)
    blind = stepwise_validation([np.ones(2), np.zeros(2)], [np.ones(2), np.ones(2)])
    assert blind["f1"] == 0.0


def interval(of: list[int], sizes: list[int]) -> tuple[Any, Any]:
    found = clustered_share(of, sizes)
    return found["low"], found["high"]


def test_an_interval_counts_what_is_independent() -> None:
    """Answers of one step are Wilson's n; answers whose steps are all alike count once each; in between, by hand."""
    assert interval([1, 0, 1, 1, 0], [1] * 5) == pytest.approx(wilson(3, 5))
    assert interval([4, 0, 4, 4, 0], [4] * 5) == pytest.approx(wilson(3, 5))
    assert interval([4, 4, 0], [4, 4, 0]) == pytest.approx(wilson(2, 2))  # all right: still two answers
    assert interval([2] * 5, [4] * 5) == pytest.approx(wilson(10, 20))  # answers that do not differ at all
    # p = 1/2, residuals ±1 of four steps: v = 4/3 · 4/256, p(1 − p)/v = 12
    assert interval([3, 1, 3, 1], [4] * 4) == pytest.approx(wilson(6, 12))
    assert interval([], []) == (0.0, 1.0)


# -- as a reward ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a process model, in place of a finished run."""
    folder = tmp_path_factory.mktemp("process") / "prm"
    lm = load_model("tiny-random")
    lm.add_reward_head(1, seed=1, step_separator="\n")
    folder.mkdir()
    lm.save(folder / "model")
    return folder


def sample(text: str, prompt: str = "Say it") -> Sample:
    return Sample(prompt, (Message("assistant", text),), (), {})


def scored(spec: str, texts: list[str]) -> list[Score]:
    with Scorer([spec], columns=[], timeout_seconds=20) as scorer:
        return scorer.score([sample(text) for text in texts])


@cache
def plain(run: Path, text: str, prompt: str = "Say it") -> list[float]:
    """The probabilities of steps by transformers' classifier, on the answer up to each."""
    model = AutoModelForSequenceClassification.from_pretrained(run / "model", dtype=torch.float32).eval()
    ids, ends = ids_and_ends(AutoTokenizer.from_pretrained(run / "model"), prompt, text)
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([ids[: end + 1]])).logits[0, 0] for end in ends]
    return torch.sigmoid(torch.stack(rows)).tolist()


def test_aggregates_by_hand() -> None:
    p = torch.tensor([0.5, 0.2, 0.8], dtype=torch.float64)
    found = {name: float(of_steps(p, name)) for name in ("min", "product", "last", "mean")}
    assert found == pytest.approx({"min": 0.2, "product": 0.08, "last": 0.8, "mean": 0.5})


def test_a_score_is_made_of_the_steps(run: Path) -> None:
    texts = ["apple\nriver stone\ncloud", "apple", "", "stone\ncloud"]
    steps = [plain(run, text) for text in texts]
    rules: dict[str, Callable[[list[float]], Any]]
    rules = {"min": min, "product": math.prod, "last": lambda p: p[-1], "mean": np.mean}
    for name, rule in rules.items():
        found = scored(f'learned({run}, aggregate="{name}")', texts)
        assert [s.total for s in found] == pytest.approx([rule(p) for p in steps], abs=1e-4)
        assert [s.parts["learned/steps"] for s in found] == [3, 1, 1, 2]  # an answer without a separator is one step
    for score, expected in zip(scored(str(run), texts), steps, strict=True):
        assert score.step_values == pytest.approx(expected, abs=1e-4)
        assert score.total == pytest.approx(min(expected), abs=1e-4)


def test_blank_lines_are_no_steps_and_long_answers_no_score(run: Path) -> None:
    found = scored(str(run), ["apple\n\n \nriver\n", "apple\nriver", "x\n" * 1500])
    assert found[0].step_values == pytest.approx(found[1].step_values, abs=1e-5)
    assert found[0].parts["learned/steps"] == 2
    assert found[2].total is None and found[2].step_values is None
    assert "context is 2048" in str(found[2].reason)


def test_of_a_conversation_the_last_answer_is_scored(run: Path) -> None:
    turns = (Message("assistant", "one"), Message("user", "more"), Message("assistant", "two\nthree"))
    with Scorer([str(run)], columns=[], timeout_seconds=20) as scorer:
        long, none = scorer.score([Sample("q", turns, (), {}), Sample("q", (Message("user", "no answer"),), (), {})])
    before = f"q{END}\n<|im_start|>assistant\none{END}\n<|im_start|>user\nmore"
    assert long.step_values == pytest.approx(plain(run, "two\nthree", before), abs=1e-4)
    assert none.reason == "learned: there is no message from the assistant to score"


def test_beside_and_inside_other_rewards(run: Path) -> None:
    with Scorer(["json=0.5", f"clip({run}, high=0.1) as low"], columns=[], timeout_seconds=20) as scorer:
        (score,) = scorer.score([sample("apple\nriver")])
    least = min(plain(run, "apple\nriver"))
    assert score.parts["low/learned"] == pytest.approx(least, abs=1e-4)
    assert score.parts["low/learned/steps"] == 2
    assert score.total == pytest.approx(min(least, 0.1), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('aggregate="max"', "aggregate is 'max'; it must be one of min, product, last, mean"),
        ('use="min"', "is a process model; say aggregate"),
        ("variance_penalty=0.1", "is a process model; say aggregate"),
    ],
)
def test_wrong_options_of_the_reward(run: Path, options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scorer([f"learned({run}, {options})"], columns=[], timeout_seconds=20)


def test_only_a_process_model_has_steps(tmp_path: Path) -> None:
    lm = load_model("tiny-random")
    lm.add_reward_head(1, seed=1)
    lm.save(tmp_path / "model")
    assert load_reward_model(str(tmp_path)).reward_head.step_separator is None
    with pytest.raises(InputError, match=r"aggregate is for process models, and .* scores whole responses"):
        Scorer([f'learned({tmp_path}, aggregate="min")'], columns=[], timeout_seconds=20)


def test_score_command_rl_and_sample_take_it(run: Path, tmp_path: Path) -> None:
    out = io.StringIO()
    row = json.dumps({"prompt": "Say it", "completion": "apple\nriver"}) + "\n"
    assert run_score(ScoreConfig(reward=(str(run),), data="-"), io.BytesIO(row.encode()), out, io.StringIO()) == 0
    assert json.loads(out.getvalue())["step_values"] == pytest.approx(plain(run, "apple\nriver"), abs=1e-4)

    data = str(write_rows(tmp_path / "tasks.jsonl", [{"prompt": f"Say {i}"} for i in range(2)]))
    common = ["--model", "tiny-random", "--data", data, "--reward", str(run), "--max-new-tokens", "20"]
    rl = ["rl", "--out", str(tmp_path / "rl"), "--max-steps", "1", "--batch-size", "8", "--group-size", "4"]
    assert main([*rl, *common]) == 0
    recorded = read_rows(tmp_path / "rl" / "rollouts.jsonl")
    assert len(recorded) == 8
    for line in recorded:
        assert line["score"] == pytest.approx(min(line["step_values"]))
        assert line["parts"]["learned/steps"] == len(line["step_values"]) == len(split_steps(line["text"], "\n"))
    (step,) = metrics(tmp_path / "rl")
    assert step["reward/learned/steps"] == np.mean([len(line["step_values"]) for line in recorded])

    sampled = ["sample", "--out", str(tmp_path / "best"), "--samples", "4", "--truncated", "keep"]
    assert main([*sampled, *common]) == 0
    assert len(read_rows(tmp_path / "best" / "sft.jsonl")) == 2


# -- data -------------------------------------------------------------------------------------------------------------


def test_both_names_of_steps_are_read(tmp_path: Path) -> None:
    """TRL's too; line breaks around a step are the separator's."""
    rows = [{**GOOD, "steps": ["a\n", "\nb"]}, {"prompt": "q", "completions": ["c"], "labels": [0.25]}]
    data = str(write_rows(tmp_path / "d.jsonl", rows))
    pairs, found = load_judged(data)
    assert not pairs and [(row.steps, row.labels) for row in found] == [(("a", "b"), (1.0, 0.0)), (("c",), (0.25,))]
    report = check_data(data)
    assert (report.kind, report.valid_rows) == ("stepwise", 2)
    assert report.response_chars is not None and report.response_chars.most == 2
    assert "2 stepwise rows, for posttrain reward-model" in format_report(report)
    assert [row.prompt for row in Loader(METHODS["reward-model"].kinds, "it")(data)] == ["q", "q"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GOOD, "labels": [True]}, "there are 2 steps, but 1 labels"),
        ({**GOOD, "steps": [], "labels": []}, "has no steps"),
        ({**GOOD, "steps": ["a", " \n"]}, "step 2 of 2 is empty"),
        ({**GOOD, "steps": "a"}, "column 'steps' must be a list of texts, one a step, not 'a'"),
        ({"prompt": "q", "completions": ["a", 1], "labels": [1, 1]}, "column 'completions' must be a list of texts"),
        ({**GOOD, "labels": True}, "column 'labels' must be a list"),
        ({**GOOD, "labels": [1, -1]}, r"label 2 must be true, false or from 0 \(wrong\) to 1 \(right\), not -1"),
        ({**GOOD, "labels": [1, "yes"]}, "label 2 must be true, false"),
        ({**GOOD, "completions": ["a"]}, "'completions' has no meaning beside 'steps'"),
        ({**GOOD, "margin": 1}, "'margin' has no meaning beside 'steps'"),
        ({"steps": ["a"], "labels": [1]}, "the row fits no method"),
    ],
)
def test_wrong_rows_name_the_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"d\.jsonl:2: .*{message}"):
        load_stepwise(str(write_rows(tmp_path / "d.jsonl", [GOOD, row])))


def test_the_separator_is_what_divides_the_steps(tmp_path: Path) -> None:
    lines = load_stepwise(str(write_rows(tmp_path / "a.jsonl", [GOOD])))
    paragraphs = load_stepwise(str(write_rows(tmp_path / "b.jsonl", [GOOD, {**GOOD, "steps": ["a\nb", "c"]}])))
    assert (separator_of(lines), separator_of(paragraphs)) == ("\n", "\n\n")
    assert settings(tmp_path, [GOOD], step_separator=r"\n\n").step_separator == "\n\n"
    config = settings(tmp_path, [GOOD], step_separator=" | ", max_steps=1)
    train_reward_model(config)
    assert load_reward_model(str(config.out)).reward_head.step_separator == " | "
    assert [s.parts["learned/steps"] for s in scored(str(config.out), ["a | b\nc", "a"])] == [2, 1]
    for steps, separator in ((["a", "b | c"], " | "), (["a\n\nb\nc"], None)):
        wrong = settings(tmp_path, [{**GOOD, "steps": steps, "labels": [1] * len(steps)}], step_separator=separator)
        with pytest.raises(InputError, match=r"steps\.jsonl:1: a step holds the separator .* --step-separator"):
            train_reward_model(wrong.model_copy(update={"out": tmp_path / "none"}))
    assert not (tmp_path / "none").exists()


def test_options_that_mean_nothing_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = str(write_rows(tmp_path / "steps.jsonl", [GOOD] * 4))
    pairs = str(write_rows(tmp_path / "pairs.jsonl", pair_rows(4)))
    held_out = ["--eval-every", "1", "--eval-data"]
    for data, options, message in (
        (steps, ["--members", "2"], "--members is for pairs, and "),
        (steps, ["--length-head"], "--length-head is for pairs, and "),
        (steps, ["--length-balanced"], "--length-balanced is for pairs, and "),
        (steps, ["--centre-coefficient", "0.1"], "--centre-coefficient is for pairs, and "),
        (pairs, ["--step-separator", "|"], "--step-separator is for data in steps, and "),
        (steps, [*held_out, pairs], "posttrain reward-model with data in steps needs "),
        (pairs, [*held_out, steps], "posttrain reward-model with data in pairs needs "),
    ):
        command = ["reward-model", "--model", "tiny-random", "--data", data, "--out", str(tmp_path / "out"), *options]
        assert main(command) == 2
        assert message in (said := capsys.readouterr().err) and said.count("\n") == 1, said
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"posttrain dpo needs .* Such rows fit posttrain reward-model"):
        load_preferences(steps)
    with pytest.raises(ValueError, match="step_separator is for process models"):
        AdversarialConfig(model="tiny-random", data=pairs, out=tmp_path / "out", step_separator="|")


def test_steps_of_a_text() -> None:
    assert split_steps("a\n\n b\r\n\n\nc", "\n\n") == ("a", " b", "c")
    assert split_steps("a\nb\n", "\n") == ("a", "b")
    assert split_steps("a", "\n") == ("a",)
    assert split_steps(" \n", "\n") == split_steps("", "\n") == ("",)
