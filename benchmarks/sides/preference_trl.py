"""TRL's side of preference_losses.py: losses and gradients by the code of its trainers, on given log-probabilities.

A JSON request on standard input; one line of JSON, a list of losses and gradients for each case, at the end of standard
output. The trainers are made without their constructors, which want a model: what their loss methods read is set here,
and the model is a stand-in that answers with the given log-probabilities.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

Data = dict[str, Any]


class Model(torch.nn.Module):
    """Answers each call with the next of some [R, T] log-probabilities."""

    is_gradient_checkpointing = False

    def __init__(self, *answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = list(answers)

    def forward(self, **_: Any) -> SimpleNamespace:
        values = self.answers.pop(0)
        empty = torch.zeros_like(values)
        return SimpleNamespace(log_probs=values, entropy=empty, mean_logits=empty, is_top1=empty.bool())


def trainer_of(kind: type, **settings: Any) -> Any:
    """A trainer with what its loss reads."""
    trainer = object.__new__(kind)
    same = lambda value: value  # noqa: E731
    vars(trainer).update(
        accelerator=SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )
    return trainer


def tokens(lengths: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
    """Padded rows of one prompt token and a response each."""
    mask = (torch.arange(width) < lengths[:, None]).long()
    prompt = torch.zeros(len(lengths), 1, dtype=torch.long)
    return {
        "input_ids": torch.zeros(len(lengths), width + 1, dtype=torch.long),
        "attention_mask": torch.cat([prompt + 1, mask], 1),
        "completion_mask": torch.cat([prompt, mask], 1),
    }


def dpo(policy: torch.Tensor, data: Data, one_at_a_time: bool = False, **settings: Any) -> torch.Tensor:
    """`DPOTrainer._compute_loss`."""
    pairs = len(policy) // 2
    if one_at_a_time:
        rows = [torch.tensor([i, i + pairs]) for i in range(pairs)]
        parts = [{key: value[at] for key, value in data.items()} for at in rows]
        losses = [dpo(policy[at], part, **settings) for at, part in zip(rows, parts, strict=True)]
        return torch.stack(losses).mean()
    defaults = {
        "beta": 0.1,
        "label_smoothing": 0.0,
        "ld_alpha": None,
        "loss_weights": [1.0],
        "f_divergence_type": "reverse_kl",
    }
    trainer = trainer_of(DPOTrainer, **(defaults | settings), model=Model(policy), ref_model=Model(data["reference"]))
    loss: torch.Tensor = trainer._compute_loss(trainer.model, tokens(data["lengths"], policy.shape[1]), False)
    return loss


def kto(policy: torch.Tensor, data: Data, **settings: Any) -> torch.Tensor:
    """`KTOTrainer._compute_loss`, which asks for the mismatched responses first."""
    defaults = {"beta": 0.1, "calculate_KL": True, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    trainer = trainer_of(
        KTOTrainer,
        **(defaults | settings),
        model=Model(data["other_policy"], policy),
        ref_model=Model(data["other_reference"], data["reference"]),
    )
    rows = tokens(data["lengths"], policy.shape[1])
    inputs = rows | {f"KL_{name}": value for name, value in rows.items()}
    inputs["label"] = torch.arange(len(policy)) < len(policy) // 2
    loss: torch.Tensor = trainer._compute_loss(trainer.model, inputs, False)
    return loss


def cpo(policy: torch.Tensor, data: Data, **settings: Any) -> torch.Tensor:
    """`CPOTrainer.cpo_loss` on the sums or means that its trainer would give it."""
    trainer = trainer_of(CPOTrainer, **({"beta": 0.1, "label_smoothing": 0.0, "alpha": 0.0} | settings))
    scores = policy.sum(1) / (data["lengths"] if trainer.loss_type == "simpo" else 1)
    losses: torch.Tensor = trainer.cpo_loss(*scores.chunk(2))[0]
    return losses.mean()


def orpo(policy: torch.Tensor, data: Data, **settings: Any) -> torch.Tensor:
    """`ORPOTrainer.odds_ratio_loss`, of which the trainer subtracts the mean from its SFT loss."""
    trainer = trainer_of(ORPOTrainer, **({"beta": 0.1} | settings))
    losses: torch.Tensor = trainer.odds_ratio_loss(*(policy.sum(1) / data["lengths"]).chunk(2))[0]
    return -losses.mean()


LOSSES = {"dpo": dpo, "kto": kto, "cpo": cpo, "orpo": orpo}


def answer(case: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    data = {name: torch.tensor(value) for name, value in batch.items() if name == "lengths"}
    data |= {name: torch.tensor(value, dtype=torch.float64) for name, value in batch.items() if name != "lengths"}
    policy = data.pop("policy").requires_grad_()
    loss = LOSSES[case["trainer"]](policy, data, **case["settings"])
    return {"loss": float(loss.detach()), "gradient": torch.autograd.grad(loss, policy)[0].tolist()}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    print(json.dumps([[answer(case, batch) for batch in request["batches"]] for case in request["cases"]]))
