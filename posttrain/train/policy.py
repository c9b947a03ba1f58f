"""The policy in one process: gradients over micro-batches, optimizer steps, log-probabilities, checkpoints."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from posttrain.arrays import Floats
from posttrain.batch.packing import Tree, micro_batches, nodes_of, pack, prefix_forest
from posttrain.batch.types import Batch, LossOutput, Metrics, number
from posttrain.models import LanguageModel
from posttrain.models.compute import Compute
from posttrain.models.read import LOGPROBS, Reading, logprobs_at, read_by
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.train.checkpoints import DamagedFile, check_like, load_weights, read_state, save_weights
from posttrain.train.reference import Reference

FUSED_ADAMW = ("cpu", "cuda")
"""Devices on which AdamW is one kernel for all parameters."""
Loss = Callable[[Batch, Any], LossOutput]
"""What to minimise: a function of one micro-batch and what the model says of its trained tokens."""


@dataclass(frozen=True)
class Optimization:
    """How the weights change. `total_steps` is needed by schedules that end."""

    learning_rate: float
    warmup_steps: int = 0
    schedule: str = "constant"
    total_steps: int | None = None
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step` (from 1): i/n of the peak in an n-step warm-up, then constant, or
        falling to a tenth of the peak at the last step along a line or half a cosine. Never 0."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        if self.schedule == "constant" or self.total_steps is None:
            return self.learning_rate
        done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        shape = 1 - done if self.schedule == "linear" else 0.5 * (1 + float(np.cos(np.pi * done)))
        return self.learning_rate * (0.1 + 0.9 * shape)


class Policy(Protocol):
    """The model that a stage trains. `flops` counts what was spent, `optimizer_steps` the steps this process has
    executed, `updates` those of the run."""

    flops: float
    updates: int
    optimizer_steps: int

    @property
    def source(self) -> Path:
        """The folder of the model that it began as."""

    @property
    def has_adapter(self) -> bool: ...

    @property
    def compute(self) -> Compute:
        """Where and in which type it is computed."""

    @property
    def rounding(self) -> dict[str, Any]:
        """What the rounding of its numbers depends on, for a checkpoint to say."""

    def forward_backward(self, trees: Sequence[Tree], loss: Loss, what: Reading = LOGPROBS) -> Metrics:
        """Add the gradient of `loss`, which sees `what` of the model; the metrics are summed over the micro-batches, as
        tensors on the model's device for which nothing has waited."""

    def evaluate(self, trees: Sequence[Tree], loss: Loss, what: Reading = LOGPROBS) -> Metrics:
        """The metrics of `forward_backward` without gradients."""

    def step(self) -> Metrics:
        """Clip the gradient, take an optimizer step, clear the gradient; without any, no weight changes. `grad_norm` is
        the norm before clipping."""

    def read(self, trees: Sequence[Tree], what: Reading = LOGPROBS) -> list[torch.Tensor]:
        """What is read at every trained token, a tensor a branch in order, in main memory and without gradients."""

    def numbers(self, trees: Sequence[Tree], what: Reading) -> list[Floats]:
        """`read`, as an array a branch in float64."""

    def logprobs(self, trees: Sequence[Tree], temperature: float = 1.0) -> list[Floats]:
        """`numbers` of the log-probability of every trained token."""

    def weights(self) -> Mapping[str, torch.Tensor]:
        """The trained weights by name."""

    def reference(self, moves: bool = False) -> Reference:
        """The policy as it is now, to compare with later; `moves` says that it will follow the policy."""

    def save(self, folder: Path) -> None:
        """Write trained weights, optimizer state, counters and random states, for an exact resume."""

    def load(self, folder: Path) -> None:
        """The inverse of `save`. Raises DamagedFile, before any change, for a file that is not of this policy."""

    def save_model(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the model; see `LanguageModel.save`."""

    def save_adapter(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the adapter alone."""


class LocalPolicy:
    """The policy in one process, with AdamW (β 0.9 and 0.999, ε 1e-8; Loshchilov & Hutter, arXiv:1711.05101). See
    `Policy` for its functions."""

    def __init__(self, lm: LanguageModel, optimization: Optimization, micro_batch_tokens: int) -> None:
        self.lm = lm
        self.optimization = optimization
        self.micro_batch_tokens = micro_batch_tokens
        self.flops = 0.0
        self.updates = 0
        self.optimizer_steps = 0
        self.parameters = lm.trained_parameters()
        matrices = [p for p in self.parameters.values() if p.dim() >= 2]
        others = [p for p in self.parameters.values() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": optimization.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=optimization.learning_rate,
            fused=lm.device.type in FUSED_ADAMW,
        )
        # Before the first step, not in it: between activations and gradients the memory would fall to pieces.
        for parameter in self.parameters.values():
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device if self.optimizer.defaults["fused"] else None),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @property
    def source(self) -> Path:
        return self.lm.source

    @property
    def has_adapter(self) -> bool:
        return self.lm.adapter is not None

    @property
    def compute(self) -> Compute:
        return self.lm.compute

    @property
    def rounding(self) -> dict[str, Any]:
        at = self.compute
        return {"device": at.device.type, "dtype": at.dtype_name, "micro_batch_tokens": self.micro_batch_tokens}

    def forward_backward(self, trees: Sequence[Tree], loss: Loss, what: Reading = LOGPROBS) -> Metrics:
        return self._metrics(trees, loss, what, backward=True)

    def evaluate(self, trees: Sequence[Tree], loss: Loss, what: Reading = LOGPROBS) -> Metrics:
        with torch.no_grad():
            return self._metrics(trees, loss, what, backward=False)

    def _metrics(self, trees: Sequence[Tree], loss: Loss, what: Reading, backward: bool) -> Metrics:
        totals: Metrics = {}
        for part in micro_batches(trees, self.micro_batch_tokens):
            batch = pack(part).to(self.lm.device)
            trained = len(batch.trained)
            if trained == 0:
                continue
            outputs = what.forward(self.lm, batch)
            result = loss(batch, outputs)
            if backward:
                result.loss.backward()
            metrics = dict(result.metrics)
            if isinstance(outputs, TokenOutputs) and outputs.entropy is not None:
                metrics["entropy"] = (batch.weights * outputs.entropy.detach()).sum()
            for name, value in metrics.items():
                more = number(value) if isinstance(value, torch.Tensor) else value
                totals[name] = totals.get(name, 0.0) + more
            self.flops += self.lm.flops.training(batch.nodes, trained * what.head)
        return totals

    def step(self) -> Metrics:
        rate = self.optimization.rate(self.updates + 1)
        gradients = [p for p in self.parameters.values() if p.grad is not None]
        for parameter in gradients:  # sparse is an embedding's, where no loss was of the head
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        norm = torch.nn.utils.get_total_norm([p.grad for p in gradients if p.grad is not None]) if gradients else None
        if norm is not None:
            # where it changes nothing it is a pass over all gradients; only a CPU knows that without a wait
            if not norm.is_cpu or not norm <= self.optimization.max_grad_norm:
                torch.nn.utils.clip_grads_with_norm_(gradients, self.optimization.max_grad_norm, norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self.optimizer_steps += 1
        return {"grad_norm": number(norm) if norm is not None else 0.0, "learning_rate": rate}

    def logprobs(self, trees: Sequence[Tree], temperature: float = 1.0) -> list[Floats]:
        return self.numbers(trees, logprobs_at(temperature))

    def numbers(self, trees: Sequence[Tree], what: Reading) -> list[Floats]:
        return [values.double().numpy() for values in self.read(trees, what)]

    def read(self, trees: Sequence[Tree], what: Reading = LOGPROBS) -> list[torch.Tensor]:
        def counted(batch: Batch) -> torch.Tensor:
            values = what.forward(self.lm, batch)[0]
            self.flops += self.lm.flops.forward(batch.nodes, len(values) * what.head)
            return values

        return read_by(self.lm, trees, self.micro_batch_tokens, counted)

    def weights(self) -> Mapping[str, torch.Tensor]:
        return self.parameters

    def reference(self, moves: bool = False) -> Reference:
        return Reference(self.lm, self.parameters, moves)

    def save_model(self, folder: Path, dtype: torch.dtype) -> None:
        self.lm.save(folder, dtype)

    def save_adapter(self, folder: Path, dtype: torch.dtype) -> None:
        self.lm.save_adapter(folder, dtype)

    def save(self, folder: Path) -> None:
        save_weights(self.parameters, folder / "weights.safetensors")
        state = {
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "flops": self.flops,
            "updates": self.updates,
        }
        try:
            torch.save(state, folder / "optimizer.pt")
        except RuntimeError as error:  # torch's own writer hides what the system said
            raise OSError(f"optimizer.pt is not whole: {error}") from error

    def load(self, folder: Path) -> None:
        file = folder / "optimizer.pt"
        state = read_state(file)
        for group in state.get("optimizer", {}).get("param_groups", ()):  # the kernel is a matter of the device
            group["fused"] = self.optimizer.defaults["fused"]
        check_like(state.get("optimizer"), self.optimizer.state_dict(), file)
        check_like(state.get("torch_rng"), torch.get_rng_state(), file)
        for name in ("flops", "updates"):
            if not isinstance(state.get(name), int | float) or not 0 <= state[name] < float("inf"):
                raise DamagedFile(f"{file}: {name} is {state.get(name)!r}")
        load_weights(self.parameters, folder / "weights.safetensors")
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        self.flops, self.updates = state["flops"], state["updates"]


def training_flops(lm: LanguageModel, trees: Sequence[Tree], micro_batch_tokens: int, head: bool = True) -> float:
    """What `forward_backward` will count for these trees, the model having its adapter already."""
    total = 0.0
    for part in micro_batches(trees, micro_batch_tokens):
        trained = sum(tree.trained for tree in part)
        if trained:
            nodes = nodes_of(prefix_forest([row for tree in part for row in tree.rows()]))
            total += lm.flops.training(nodes, trained * head)
    return total


def seed_everything(seed: int) -> None:
    """Seed the global generators once, before a run: nothing of ours draws from them, a user's reward may."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
