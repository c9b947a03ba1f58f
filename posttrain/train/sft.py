"""Supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from posttrain.alerts import Observer
from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.batch.types import Batch, LossOutput
from posttrain.chat import ChatFormat, EncodedRow
from posttrain.chat.template_date import on_one_date
from posttrain.config import SftConfig
from posttrain.config.compute import on_its_device
from posttrain.data.fitting import DoesNotFit, Fitted, Limit, fit
from posttrain.data.formats import load_sft
from posttrain.losses.policy import sft_loss
from posttrain.models import LanguageModel
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rows import SftRow
from posttrain.train.dataset_stage import DatasetMethod, prepare_dataset
from posttrain.train.loop import train
from posttrain.train.policy import Policy

LEARNING_RATE = 2e-5


@on_its_device
@on_one_date
def train_sft(config: SftConfig, observers: Sequence[Observer] = ()) -> None:
    """Fine-tune `config.model` on examples and write the run folder `config.out`: the mean negative log-likelihood over
    the trained tokens of a step. Raises InputError for bad input, before anything is written."""
    method = DatasetMethod(
        kind="sft",
        shown=("loss", "grad_norm"),
        load=load_sft,
        encode=lambda lm, rows, _: encode_rows(lm, rows, config.max_length),
        trees=sft_trees,
        loss=loss_of,
        evaluate=token_mean_nll,
    )
    train(config, partial(prepare_dataset, config, method), LEARNING_RATE, observers)


def encode_rows(lm: LanguageModel, rows: Sequence[SftRow], max_length: int) -> Fitted[EncodedRow]:
    """Rows as tokens, cut at `max_length`; those of which the cut leaves nothing to train do not fit."""
    limit = Limit.of(max_length, lm.context)
    chat = lm.chat_within(limit.tokens)
    return fit(rows, lambda row: encode_row(chat, row, limit))


def encode_row(chat: ChatFormat, row: SftRow, limit: Limit) -> tuple[list[EncodedRow], bool]:
    """The token rows of a row (see `ChatFormat.encode_sft`) that have a trained token, and whether any was cut."""
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
    return [share_prefix([Branch.of(row.token_ids, row.mask, 1.0 / total)]) for row in rows]


def loss_of(batch: Batch, outputs: TokenOutputs) -> LossOutput:
    return sft_loss(outputs.logprobs, batch.weights)


def token_mean_nll(policy: Policy, rows: Sequence[EncodedRow]) -> dict[str, float]:
    """Token-mean negative log-likelihood of the rows."""
    values = policy.logprobs(sft_trees(rows))
    return {"loss": -sum(sum(of_row.tolist()) for of_row in values) / sum(map(len, values))}
