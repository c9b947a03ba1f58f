"""The pre-training mix: rows that are imitated beside the RL loss (InstructGPT, arXiv:2203.02155, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.batch.types import Batch, LossOutput, Metrics
from posttrain.config import RlConfig
from posttrain.models import LanguageModel
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rows import SftRow
from posttrain.train.data_order import rows_between
from posttrain.train.policy import Policy
from posttrain.train.sft import encode_rows, loss_of, sft_trees


class PretrainingMix:
    """Adds the gradient of `ptx_coefficient` x the mean negative log-likelihood of the next rows to an optimizer step.

    Which rows come next follows from the policy's count of updates, so that a resume needs no state."""

    def __init__(self, config: RlConfig, lm: LanguageModel, rows: Sequence[SftRow]) -> None:
        self.config = config
        self.fitted = encode_rows(lm, rows, config.max_length)
        self.rows = self.fitted.checked(str(config.ptx_data), config.strict)

    def forward_backward(self, policy: Policy) -> Metrics:
        size = self.config.ptx_batch_size
        places = rows_between(len(self.rows), self.config.seed, policy.updates * size, (policy.updates + 1) * size)
        metrics = policy.forward_backward(sft_trees([self.rows[i] for i in places]), self._loss)
        return {"ptx_loss": metrics["loss"] / self.config.ptx_coefficient}

    def _loss(self, batch: Batch, outputs: TokenOutputs) -> LossOutput:
        result = loss_of(batch, outputs)
        scaled = result.loss * self.config.ptx_coefficient
        return LossOutput(scaled, {"loss": scaled.detach()})
