"""Rewards that a model computes: by path, in expressions, in a real scorer and in training."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from posttrain.batch.packing import pack
from posttrain.cli.main import main
from posttrain.config import DpoConfig, RlConfig, ScoreConfig
from posttrain.models import load_model
from posttrain.rewards.models import encoded, scored_ids
from posttrain.rewards.registry import Spec
from posttrain.rewards.score import run_score
from posttrain.rewards.scorer import Scorer
from posttrain.rows import PreferenceRow
from posttrain.train.dpo.data import counts_of, encode_examples, example_trees
from posttrain.train.dpo.stage import preference_loss
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.train.rl.setup import train_rl
from posttrain.types import InputError, Message, Sample, Score
from tests.processes import with_torch
from tests.training_helpers import chatml, metrics, read_rows, write_rows

TEXTS = ["apple", "river stone", "", "apple apple apple cloud"]


def sample(text: str, prompt: str = "Say it") -> Sample:
    return Sample(prompt, (Message("assistant", text),), (), {})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reward model of three members, in place of a finished run."""
    folder = tmp_path_factory.mktemp("reward") / "rm"
    lm = load_model("tiny-random")
    lm.add_reward_head(3, seed=1)
    folder.mkdir()
    lm.save(folder / "model")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-random with other weights."""
    folder = tmp_path_factory.mktemp("policy") / "policy"
    lm = load_model("tiny-random")
    with torch.no_grad():
        for i, parameter in enumerate(lm.module.parameters()):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    lm.save(folder)
    return folder


def scores(*specs: str, texts: list[str] = TEXTS) -> list[Score]:
    with Scorer(specs, columns=[], timeout_seconds=20, workers=2) as scorer:
        return scorer.score([sample(text) for text in texts])


@cache
def members(run: Path) -> torch.Tensor:
    """Scores [texts, members] by transformers' classifier on single rows."""
    model = AutoModelForSequenceClassification.from_pretrained(run / "model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([chatml(tokenizer, "Say it", text)[0]])).logits[0] for text in TEXTS]
    return torch.stack(rows)


def test_a_folder_is_a_reward(run: Path) -> None:
    found = scores(str(run))
    assert [s.total for s in found] == pytest.approx(members(run).mean(1).tolist(), abs=1e-4)
    assert [s.parts["learned/mean"] for s in found] == [s.total for s in found]
    assert [s.parts["learned/deviation"] for s in found] == pytest.approx(
        members(run).std(1, correction=0).tolist(), abs=1e-4
    )


def test_minimum_and_variance_penalty(run: Path) -> None:
    least = scores(f'learned({run}, use="min")')
    assert [s.total for s in least] == pytest.approx(members(run).amin(1).tolist(), abs=1e-4)
    careful = scores(f"learned({run}, variance_penalty=0.5)=2 ")
    expected = 2 * (members(run).mean(1) - 0.5 * members(run).var(1, correction=0))
    assert [s.total for s in careful] == pytest.approx(expected.tolist(), abs=1e-4)


def test_inside_other_rewards(run: Path) -> None:
    found = scores(f"clip({run}, low=-0.1, high=0.1)", f"learned({run}) as plain=0", "length(min_length=1)=0")
    mean = members(run).mean(1)
    assert [s.total for s in found] == pytest.approx(mean.clamp(-0.1, 0.1).tolist(), abs=1e-4)
    assert [s.parts["clip/learned"] for s in found] == pytest.approx(mean.tolist(), abs=1e-4)
    assert [s.parts["plain"] for s in found] == pytest.approx(mean.tolist(), abs=1e-4)


def test_one_copy_in_this_process_and_none_in_workers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posttrain.models

    loaded: list[str] = []
    real = posttrain.models.load_reward_model
    monkeypatch.setattr(posttrain.models, "load_reward_model", lambda name: loaded.append(name) or real(name))
    with Scorer([f"{run} as a", f"clip({run}, low=0) as b"], columns=[], timeout_seconds=20, workers=2) as scorer:
        assert scorer.whole_batch
        assert len(scorer.score([sample(text) for text in TEXTS * 5])) == 20
        found = with_torch(scorer)  # one worker may have done it all before the other began
        assert found and not any(found)
    assert loaded == [str(run)]


def test_what_samples_begin_with_is_computed_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where those of one prompt do not follow each other, over several micro-batches; the order is kept."""
    texts = ["apple " * n for n in (30, 3, 31)]
    prompts = ["first " * 30, "second " * 30]
    samples = [sample(text, prompt) for text in texts for prompt in prompts]
    computed: list[int] = []

    def counted(trees: Any) -> Any:
        batch = pack(trees)
        computed.append(len(batch.token_ids))
        return batch

    with Scorer([str(run)], columns=[], timeout_seconds=20) as scorer:
        alone = [scorer.score([each])[0].total for each in samples]
        monkeypatch.setattr("posttrain.models.read.pack", counted)
        monkeypatch.setattr("posttrain.rewards.models.MICRO_BATCH_TOKENS", 700)
        together = [score.total for score in scorer.score(samples)]
        apart = sum(len(scored_ids(encoded(load_model("tiny-random").chat, each, 2048)[-1])) for each in samples)
    assert together == pytest.approx(alone, abs=1e-4)
    assert len({round(value or 0.0, 3) for value in alone}) == len(samples)
    assert len(computed) > 1 and sum(computed) < 0.6 * apart, (computed, apart)


def test_what_does_not_fit_is_unscored_and_the_rest_is_scored(run: Path) -> None:
    found = scores(str(run), texts=["apple", "x" * 3000])
    assert found[0].total == pytest.approx(float(members(run).mean(1)[0]), abs=1e-4)
    assert found[1].total is None and found[1].reason is not None
    assert found[1].reason.startswith("learned: prompt and response have ") and "context is 2048" in found[1].reason


def test_a_conversation_is_scored_at_its_last_answer(run: Path) -> None:
    turns = (Message("assistant", "one"), Message("user", "more"), Message("assistant", "two"))
    with Scorer([str(run)], columns=[], timeout_seconds=20) as scorer:
        long, cut, none = scorer.score(
            [
                Sample("q", turns, (), {}),
                Sample("q", (*turns, Message("user", "and?")), (), {}),
                Sample("q", (Message("user", "no answer"),), (), {}),
            ]
        )
    assert long.total == pytest.approx(cut.total)
    assert none.total is None and none.reason == "learned: there is no message from the assistant to score"


def ids_of(prompt: str, chosen: str, rejected: str) -> PreferenceRow:
    return PreferenceRow("here", prompt, chosen, rejected)


def test_implicit_rewards_differ_by_the_margin_of_dpo(other: Path) -> None:
    """log Z(x) cancels within a prompt: r(y_w) − r(y_l) is the margin that DPO trains, whose reference is the start."""
    rows = [ids_of("Say it", "apple river", "stone"), ids_of("And now", "cloud", "cloud cloud!")]
    policy, reference = load_model(str(other)), load_model("tiny-random")
    examples = encode_examples(policy, rows, 1024, single=False).kept
    runner = LocalPolicy(reference, Optimization(1e-3), 4096)
    batch = pack(example_trees(examples, runner.logprobs(example_trees(examples))))
    terms = DpoConfig(model="m", data="d", out=Path("o"), beta=0.3).terms()
    with torch.no_grad():
        outputs = policy.logprobs(batch)
    loss = preference_loss(batch, outputs, terms=terms, counts=counts_of(examples), baseline=0.0)
    margin = float(loss.metrics["margin"])
    samples = [sample(str(text), str(row.prompt)) for row in rows for text in (row.chosen, row.rejected)]
    with Scorer([f"implicit({other}, tiny-random, beta=0.3)"], columns=[], timeout_seconds=20) as scorer:
        found = [s.total for s in scorer.score(samples)]
    assert None not in found
    ours = ((found[0] - found[1]) + (found[2] - found[3])) / 2  # type: ignore[operator]
    assert ours == pytest.approx(margin, abs=1e-4) and abs(margin) > 0.01


def test_a_policy_has_no_implicit_reward_against_itself() -> None:
    found = scores("implicit(tiny-random, tiny-random)")
    assert [s.total for s in found] == pytest.approx([0.0] * 4, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("learned", "write learned(MODEL)"),
        ("learned(a, b)", "write learned(MODEL)"),
        ("implicit(a)", "write implicit(MODEL, REFERENCE)"),
        ("learned(clip(a))", "write learned(MODEL)"),
        ("nothing-here", "a reward model by its folder"),
    ],
)
def test_what_is_no_reward_of_a_model(spec: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Spec.parse(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("learned(./nowhere)", "./nowhere: no such folder"),
        ("learned(tiny-random)", "is a language model, not a reward model"),
        ("learned({run}, use=3)", "use is 3; it must be one of mean, min"),
        ("learned({run}, variance_penalty=-1)", "at least 0"),
        ("learned({run}, colour=1)", "has no option 'colour'; it has use, variance_penalty"),
        ("implicit(tiny-random, tiny-random, beta=0)", "above 0"),
        ("strip_thinking({run})", "put the model's reward outside of it"),
    ],
)
def test_what_a_scorer_refuses(run: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Scorer([spec.replace("{run}", str(run))], columns=[], timeout_seconds=20)
    assert message in str(error.value)


def test_the_score_command(run: Path) -> None:
    rows = "".join(json.dumps({"prompt": "Say it", "completion": text}) + "\n" for text in TEXTS)
    out = io.StringIO()
    assert run_score(ScoreConfig(reward=(str(run),), data="-"), io.BytesIO(rows.encode()), out, io.StringIO()) == 0
    found = [json.loads(line)["score"] for line in out.getvalue().splitlines()]
    assert found == pytest.approx(members(run).mean(1).tolist(), abs=1e-4)


def test_two_steps_of_rl_on_a_reward_model(run: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": f"Say {i}"} for i in range(4)])
    given: dict[str, Any] = {"model": "tiny-random", "data": str(data), "reward": (str(run),), "max_steps": 2}
    for out in ("one", "two"):
        train_rl(
            RlConfig(out=tmp_path / out, batch_size=8, group_size=4, max_new_tokens=6, learning_rate=1e-3, **given)
        )
    rows = metrics(tmp_path / "one", timeless=True)
    assert len(rows) == 2 and all(row["unscored"] == 0 and row["reward"] == row["reward/learned"] for row in rows)
    assert rows == metrics(tmp_path / "two", timeless=True)  # bit for bit
    recorded = read_rows(tmp_path / "one" / "rollouts.jsonl")
    with Scorer([str(run)], columns=[], timeout_seconds=20) as scorer:
        again = scorer.score([sample(row["text"], f"Say {row['task']}") for row in recorded])
    assert [row["score"] for row in recorded] == pytest.approx([s.total for s in again], abs=1e-4)


def test_eval_and_sample_take_it(run: Path, tmp_path: Path) -> None:
    data = str(write_rows(tmp_path / "tasks.jsonl", [{"prompt": f"Say {i}"} for i in range(3)]))
    common = ["--data", data, "--reward", f'learned({run}, use="min")', "--max-new-tokens", "5", "--samples", "3"]
    assert main(["sample", "--model", "tiny-random", "--out", str(tmp_path / "s"), "--truncated", "keep", *common]) == 0
    assert len(read_rows(tmp_path / "s" / "sft.jsonl")) == 3
    assert main(["eval", "tiny-random", "--out", str(tmp_path / "e"), *common]) == 0
    assert read_rows(tmp_path / "e" / "evaluations" / "held_out.jsonl")[0]["samples"][0]["score"] is not None
