"""Supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.batch.packing import Branch, Tree
from posttrain.batch.types import Batch, LossOutput
from posttrain.chat import ChatFormat, EncodedRow
from posttrain.chat.template_date import dated, on_one_date
from posttrain.config import SftConfig
from posttrain.data.fitting import DoesNotFit, Fitted, Limit, fit
from posttrain.data.formats import load_sft
from posttrain.losses.policy import sft_loss, token_mean_weights
from posttrain.models import LanguageModel
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rows import SftRow
from posttrain.runs.log import RunLog
from posttrain.train.data_order import planned_steps, rows_drawn, step_rows
from posttrain.train.events import fitting, special_tokens
from posttrain.train.loop import Evaluation, Stage, finished, load_trained, make_policy, resolved, run_stage
from posttrain.train.policy import LocalPolicy, training_flops

LEARNING_RATE = 2e-5


@on_one_date
def train_sft(config: SftConfig) -> None:
    """Fine-tune `config.model` on examples and write the run folder `config.out`.

    The loss of a step is the mean negative log-likelihood over its trained tokens. Raises InputError for bad input,
    before anything is written."""
    settings = resolved(config, LEARNING_RATE)
    if finished(config.out, settings, config.resume):
        return
    rows = load_sft(config.data, config.columns)
    held_out = load_sft(config.eval_data, config.columns, optional=True) if config.eval_data else []
    lm = load_trained(config)
    fitted, fitted_held_out = (encode_rows(lm, of, config.max_length) for of in (rows, held_out))
    encoded = fitted.checked(config.data, config.strict)
    held_out_rows = fitted_held_out.checked(str(config.eval_data), config.strict)

    def flops(chosen: list[int]) -> float:
        trees = sft_trees([encoded[i] for i in chosen])
        return training_flops(lm, trees, config.micro_batch_tokens)

    steps = planned_steps(config, len(encoded), flops)
    policy = make_policy(lm, config, settings["learning_rate"], steps)
    with RunLog(config.out, dated(settings, lm.chat.writes_date), config.resume) as log:
        fitting(log, config.data, fitted, config.max_length)
        fitting(log, config.eval_data, fitted_held_out, config.max_length)
        special_tokens(log, lm.chat, config.data, rows)
        run_stage(log, config, Sft(config, policy, encoded, held_out_rows, steps))


def encode_rows(lm: LanguageModel, rows: Sequence[SftRow], max_length: int) -> Fitted[EncodedRow]:
    """Rows as tokens, cut at `max_length`; those of which the cut leaves nothing to train do not fit."""
    limit = Limit.of(max_length, lm.context)
    chat = lm.chat_within(limit.tokens)
    return fit(rows, lambda row: encode_row(chat, row, limit))


def encode_row(chat: ChatFormat, row: SftRow, limit: Limit) -> tuple[list[EncodedRow], bool]:
    """The token rows of one row (see `ChatFormat.encode_sft`) without those of which nothing would be trained, and
    whether anything was cut off."""
    encoded, n = chat.encode_sft(row), limit.tokens
    kept = [EncodedRow(e.token_ids[:n], e.mask[:n], e.where) for e in encoded if any(e.mask[:n])]
    if not kept:
        length = chat.counted(encoded[0].mask.index(True))
        raise DoesNotFit(
            row.where, f"no trained token is left: {length} come before the first, and {limit.text}", limit.advice
        )
    return kept, any(len(e.token_ids) > n for e in encoded)


def sft_trees(rows: Sequence[EncodedRow]) -> list[Tree]:
    """A tree a row, each trained token weighing 1/(trained tokens of all the rows)."""
    total = sum(sum(row.mask) for row in rows)
    return [
        Tree((), (Branch(row.token_ids, row.mask, tuple(token_mean_weights(sum(row.mask), total))),)) for row in rows
    ]


def loss_of(batch: Batch, outputs: TokenOutputs) -> LossOutput:
    return sft_loss(outputs.logprobs, batch.weights)


class Sft(Stage):
    """See `Stage`."""

    kind = "sft"

    def __init__(
        self,
        config: SftConfig,
        policy: LocalPolicy,
        rows: Sequence[EncodedRow],
        held_out: Sequence[EncodedRow],
        total_steps: int,
    ) -> None:
        self.config = config
        self.policy = policy
        self.rows = rows
        self.held_out = held_out
        self.total_steps: int | None = total_steps
        self.drawn = rows_drawn(config, len(rows))

    def step(self, n: int) -> dict[str, Any]:
        config = self.config
        chosen = step_rows(len(self.rows), config.seed, n, config.batch_size, self.drawn)
        trees = sft_trees([self.rows[i] for i in chosen])
        metrics = self.policy.forward_backward(trees, loss_of)
        return {**metrics, **self.policy.step(), "tokens": sum(tree.size for tree in trees)}

    def evaluate(self) -> Evaluation | None:
        """Token-mean negative log-likelihood on the held-out rows."""
        if not self.held_out:
            return None
        values = self.policy.logprobs(sft_trees(self.held_out))
        loss = -sum(map(sum, values)) / sum(map(len, values))
        return Evaluation({"loss": loss}, loss)
