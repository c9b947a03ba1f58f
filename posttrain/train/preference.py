"""Direct preference optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from posttrain.chat import EncodedPair
from posttrain.config import DpoConfig
from posttrain.data.formats import load_preferences
from posttrain.data.packing import Branch, Tree, share_prefix
from posttrain.losses import dpo_loss, sequence_sums
from posttrain.models import LanguageModel, load_model
from posttrain.models.head import TokenOutputs
from posttrain.runlog import RunLog, check_out
from posttrain.train.loop import Evaluation, make_policy, resolved, run_stage
from posttrain.train.notices import special_tokens, truncated_rows
from posttrain.train.policy import LocalPolicy, planned_steps, step_rows, training_flops
from posttrain.types import Batch, InputError, LossOutput

LEARNING_RATE = 1e-6
REFERENCE = "reference.safetensors"


def train_dpo(config: DpoConfig) -> None:
    """Train `config.model` on preference pairs and write the run folder `config.out`.

    The reference is the start of the stage: its log-probabilities of the pairs the run will visit are computed once and
    stored. Raises InputError for bad input, before anything is written."""
    settings = resolved(config, LEARNING_RATE)
    if check_out(config.out, settings, config.resume):
        return
    rows = load_preferences(config.data)
    held_out = load_preferences(config.eval_data) if config.eval_data else []
    lm = load_model(config.model, raw=config.raw)
    pairs, cut = encode_pairs(lm, rows, config.max_length)
    held_out_pairs, _ = encode_pairs(lm, held_out, config.max_length)

    def flops(n: int) -> float:  # the reference pass comes on top, so a budget may end the run before these steps
        trees = [pair_tree(pairs[i]) for i in step_rows(len(pairs), config.seed, n, config.batch_size, True)]
        return training_flops(lm, trees, config.micro_batch_tokens, frozen=config.lora_rank > 0)

    steps, repeat = planned_steps(config, len(pairs), flops)
    policy = make_policy(lm, config, settings["learning_rate"], steps)
    with RunLog(config.out, settings, config.resume) as log:
        truncated_rows(log, cut, len(pairs), config.max_length)
        special_tokens(log, lm.chat, config.data, rows)
        stage = Dpo(config, policy, pairs, held_out_pairs, steps, repeat)
        stage.prepare(log)
        run_stage(log, config, stage)


def encode_pairs(lm: LanguageModel, rows: Sequence[Any], max_length: int) -> tuple[list[EncodedPair], int]:
    """Pairs as tokens, responses cut where prompt and response exceed `max_length`, and how many pairs were cut.

    Raises InputError naming a pair whose prompt alone fills the length, or whose cut responses are the same."""
    out: list[EncodedPair] = []
    cut = 0
    limit = min(max_length, lm.context)
    for pair in map(lm.chat.encode_pair, rows):
        room = limit - len(pair.prompt_ids)
        if room < 1:
            raise InputError(
                f"{pair.where}: the prompt has {len(pair.prompt_ids)} tokens and --max-length is {limit}; "
                "raise --max-length or shorten the prompt"
            )
        if max(len(pair.chosen_ids), len(pair.rejected_ids)) > room:
            cut += 1
            pair = EncodedPair(pair.prompt_ids, pair.chosen_ids[:room], pair.rejected_ids[:room], pair.where)
        if pair.chosen_ids == pair.rejected_ids:
            raise InputError(
                f"{pair.where}: chosen and rejected are the same {len(pair.chosen_ids)} tokens"
                f"{' after cutting to --max-length' if cut else ''}; remove the row or raise --max-length"
            )
        out.append(pair)
    return out, cut


def pair_tree(pair: EncodedPair, reference: Sequence[Sequence[float]] | None = None) -> Tree:
    """The prompt as trunk, chosen and rejected as its first and second branch; every response token is trained."""

    def branch(ids: tuple[int, ...], ref: Sequence[float] | None) -> Branch:
        extras = {} if ref is None else {"ref_logprobs": tuple(ref)}
        mask = (False,) * len(pair.prompt_ids) + (True,) * len(ids)
        return Branch(pair.prompt_ids + ids, mask, (0.0,) * len(ids), extras)

    chosen, rejected = reference or (None, None)
    return share_prefix([branch(pair.chosen_ids, chosen), branch(pair.rejected_ids, rejected)])


def preference_loss(
    batch: Batch, outputs: TokenOutputs, *, pairs: int, beta: float, label_smoothing: float
) -> LossOutput:
    """DPO over the pairs of a micro-batch (even sequences chosen, odd ones rejected), each weighing 1/`pairs`."""
    if batch.ref_logprobs is None:
        raise ValueError("DPO needs reference log-probabilities")
    device = outputs.logprobs.device
    owner = batch.sequence[batch.mask].to(device)
    policy = sequence_sums(outputs.logprobs, owner, batch.sequences)
    reference = sequence_sums(batch.ref_logprobs.to(device), owner, batch.sequences)
    return dpo_loss(policy[0::2], policy[1::2], reference[0::2], reference[1::2], 1.0 / pairs, beta, label_smoothing)


class Dpo:
    """See `Stage`."""

    kind = "dpo"

    def __init__(
        self,
        config: DpoConfig,
        policy: LocalPolicy,
        pairs: Sequence[EncodedPair],
        held_out: Sequence[EncodedPair],
        total_steps: int,
        repeat: bool,
    ) -> None:
        self.config = config
        self.policy = policy
        self.pairs = pairs
        self.held_out = held_out
        self.total_steps: int | None = total_steps
        self.repeat = repeat
        self.reference: dict[str, torch.Tensor] = {}

    def prepare(self, log: RunLog) -> None:
        """Log-probabilities of the start for all pairs the run will visit, computed once and stored."""
        file = log.out / "reference" / REFERENCE
        if not file.exists():
            visited = sorted({i for n in range(1, (self.total_steps or 0) + 1) for i in self._rows(n)})
            todo = [(f"{i}", self.pairs[i]) for i in visited]
            todo += [(f"held-out-{i}", pair) for i, pair in enumerate(self.held_out)]
            values = self.policy.logprobs([pair_tree(pair) for _, pair in todo])
            tensors = {"flops": torch.tensor(self.policy.flops, dtype=torch.float64)}
            for (name, _), chosen, rejected in zip(todo, values[0::2], values[1::2], strict=True):
                tensors[f"{name}/chosen"] = torch.tensor(chosen)
                tensors[f"{name}/rejected"] = torch.tensor(rejected)
            log.write_folder("reference", lambda out: save_file(tensors, Path(out) / REFERENCE))
        self.reference = load_file(file)
        self.policy.flops = float(self.reference["flops"])

    def step(self, n: int) -> dict[str, Any]:
        config = self.config
        chosen = self._rows(n)
        trees = [self._tree(f"{i}", self.pairs[i]) for i in chosen]
        loss = partial(preference_loss, pairs=len(chosen), beta=config.beta, label_smoothing=config.label_smoothing)
        metrics = self.policy.forward_backward(trees, loss)
        return {**metrics, **self.policy.step(), "tokens": sum(tree.size for tree in trees)}

    def evaluate(self) -> Evaluation | None:
        """The same loss and metrics on the held-out pairs, against the stored reference."""
        if not self.held_out:
            return None
        trees = [self._tree(f"held-out-{i}", pair) for i, pair in enumerate(self.held_out)]
        values = self.policy.logprobs(trees)
        policy = torch.tensor([sum(v) for v in values])
        names = [f"held-out-{i}/{side}" for i in range(len(trees)) for side in ("chosen", "rejected")]
        reference = torch.stack([self.reference[name].sum() for name in names])
        result = dpo_loss(
            policy[0::2],
            policy[1::2],
            reference[0::2],
            reference[1::2],
            1.0 / len(trees),
            self.config.beta,
            self.config.label_smoothing,
        )
        return Evaluation(dict(result.metrics), result.metrics["loss"])

    def rewind(self, log: RunLog, step: int) -> None:
        """The stored reference serves every step."""

    def save(self, folder: Path) -> None:
        """DPO has no state beyond the policy's."""

    def load(self, folder: Path) -> None:
        """DPO has no state beyond the policy's."""

    def close(self) -> None:
        """DPO holds nothing open."""

    def _rows(self, n: int) -> list[int]:
        return step_rows(len(self.pairs), self.config.seed, n, self.config.batch_size, self.repeat)

    def _tree(self, name: str, pair: EncodedPair) -> Tree:
        return pair_tree(pair, [self.reference[f"{name}/{side}"].tolist() for side in ("chosen", "rejected")])
