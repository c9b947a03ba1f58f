"""A causal language model with its tokenizer: packed forward passes, log-probabilities, saving."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.batch.types import Batch
from posttrain.chat import ChatFormat
from posttrain.models import attention
from posttrain.models.attention import AttentionPlan, plan_for
from posttrain.models.compute import Compute
from posttrain.models.decoding import Decoder
from posttrain.models.flops import FlopCounter
from posttrain.models.heads import RewardHead, ValueHead, as_classifier, logit_divisor, save_classifier
from posttrain.models.kernels import exact_kernels, kernels_for
from posttrain.models.layers.recompute import recompute_layers
from posttrain.models.merging import merged
from posttrain.models.padded import BFLOAT16_TOLERANCE, can_pack, in_float32, packs_alike, padded_outputs
from posttrain.models.token_logprobs import TokenOutputs, logprobs_from_logits, token_logprobs
from posttrain.models.weights import rounded
from posttrain.text import printable

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger("posttrain")

Head = TypeVar("Head", ValueHead, RewardHead)

COUNTED = 8
"""The tokens of a row are counted up to so many times the limit at which it is cut."""


class LanguageModel:
    """A transformers causal LM, perhaps with heads beside its own, that can be run on packed forests.

    `packed` says whether forests run as they are; otherwise every path of a tree becomes a padded row of its own,
    with the same results. `module` is always an ordinary transformers model."""

    def __init__(
        self,
        name: str,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        source: Path,
        raw: bool = False,
        compute: Compute | None = None,
    ) -> None:
        attention.register()
        self.name = name
        self.module = module.eval()
        self.compute = compute or Compute.of(next(module.parameters()))
        self.tokenizer = tokenizer
        self.source = source
        eos = module.generation_config.eos_token_id if module.generation_config is not None else None
        for table in (m for m in module.modules() if isinstance(m, nn.Embedding)):
            # transformers sets the padding token's gradient to 0, and that token is often the end of a turn; padding
            # itself is masked and needs no such rule
            table.padding_idx = None
        embedding: Any = module.get_input_embeddings()
        self.vocabulary = module.get_output_embeddings().weight.shape[0]
        self.context = int(getattr(module.config.get_text_config(), "max_position_embeddings", 0)) or 1 << 30
        self.chat = ChatFormat(
            tokenizer,
            end_ids_extra=[eos] if isinstance(eos, int) else eos or [],
            raw=raw,
            longest=self.context,
            embeddings=min(self.vocabulary, embedding.weight.shape[0]),
        )
        self.logit_divisor = logit_divisor(module.config.get_text_config())
        self.flops = FlopCounter.of(module)
        self.forwarded_tokens = 0
        """Tokens that went through the model, padding included; a test compares it with the forest's tokens."""
        self.adapter: PeftModel | None = None
        self.heads: dict[str, ValueHead | RewardHead] = {}
        self._decoder: Decoder | None = None
        self._decoder_weights: list[tuple[int, int]] = []
        self.packed = False
        own = kernels_for(module, self.compute)
        self.kernels = own if self.compute.dtype == torch.float32 else exact_kernels(module)
        with in_float32(module):
            self.packed = can_pack(name, module, self._checked_logprobs)
        self.kernels = own
        self.kernels.products.use_in(module)
        if self.packed and self.compute.dtype == torch.bfloat16:
            self.packed = packs_alike(name, module, self._checked_logprobs, BFLOAT16_TOLERANCE)
        self.forwarded_tokens = 0  # those of the self-check do not count

    def chat_within(self, limit: int) -> ChatFormat:
        """`chat` for rows that are cut at `limit` tokens: of longer ones so many times as much is read as tells by how
        much they are too long, and not a book of which a page is trained."""
        return self.chat.within(min(self.context, COUNTED * limit))

    def check_given_template(self) -> None:
        """Let a saved model end its answers where a given chat template does. Raises InputError for a template that
        writes no answers, or ends them by no token of this model."""
        self.chat.template.check_given()
        generation = self.module.generation_config
        if generation is not None:
            eos = generation.eos_token_id
            ends = [eos] if isinstance(eos, int) else list(eos or [])
            if self.chat.turn_end not in ends:
                generation.eos_token_id = [self.chat.turn_end, *ends]

    @property
    def device(self) -> torch.device:
        return self.compute.device

    # -- forward passes -------------------------------------------------------------------------------------------

    def hidden_states(
        self, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: AttentionPlan, sparse: bool = False
    ) -> torch.Tensor:
        """Last hidden states [N, H] of packed tokens (packed models only); see `Kernels.hidden_states`."""
        self.forwarded_tokens += len(token_ids)
        token_ids, position_ids = token_ids.to(self.device), position_ids.to(self.device)
        return self.kernels.hidden_states(self.module, token_ids, position_ids, plan, sparse)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [.., V] of hidden states (packed models only)."""
        logits: torch.Tensor = self.module.get_output_embeddings()(hidden)
        return logits if self.logit_divisor == 1.0 else logits / self.logit_divisor

    def next_logits(self, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """Logits [R, V] after one token of each of R rows (packed models only), faster after `prepare_decoding`."""
        if self._decoder is None:
            return self.head(self.hidden_states(token_ids, position_ids, plan))
        self.forwarded_tokens += len(token_ids)
        return self._decoder.logits(token_ids, position_ids, plan)

    def prepare_decoding(self) -> None:
        """Lay out a copy of the weights for decoding, unless there is one of the weights as they are now."""
        if not (self.packed and self.kernels.fused):
            return
        # a tensor's version counts its changes in place
        weights = [(p.data_ptr(), p._version) for p in self.module.parameters()]
        switches = [(int(m.disable_adapters), int(m.merged)) for m in self.module.modules() if hasattr(m, "lora_A")]
        if self._decoder is None or self._decoder_weights != weights + switches:
            self._decoder = None  # never two copies at a time
            self._decoder, self._decoder_weights = Decoder(self.module, self.kernels.products), weights + switches

    def release_decoding(self) -> None:
        """Give the memory of `prepare_decoding` back."""
        self._decoder = None

    def logprobs(
        self, batch: Batch, temperature: float = 1.0, entropy: bool = False, values: bool = False
    ) -> TokenOutputs:
        """Log-probability of each trained token of a batch on the model's device, [M] each
        predicted at its parent, where `values` reads the value head too. Differentiable if gradients are on.
        `temperature` divides the logits; the batch's kept tokens apply."""
        targets = batch.token_ids.index_select(0, batch.trained)
        output = self.module.get_output_embeddings()
        if self.packed:
            tied = output.weight is self.module.get_input_embeddings().weight
            hidden = self._states(batch, sparse=tied and self.device.type == "cpu")
            out = token_logprobs(
                hidden,
                output.weight,
                targets,
                bias=output.bias,
                temperature=temperature * self.logit_divisor,
                kept=batch.kept_token_ids,
                entropy=entropy,
                products=self.kernels.products,
            )
        else:
            logits, hidden = self._padded(batch, values)
            out = logprobs_from_logits(
                logits, targets, temperature=temperature, kept=batch.kept_token_ids, entropy=entropy
            )
        return out._replace(values=self.value_head(hidden)) if values else out

    def values(self, batch: Batch) -> torch.Tensor:
        """What the value head says before each trained token of the batch, [M] float32; differentiable."""
        head = self.value_head
        out: torch.Tensor = head(self._states(batch) if self.packed else self._padded(batch, True)[1])
        return out

    def scores(self, batch: Batch) -> torch.Tensor:
        """What the K outputs of the reward head say of each trained token, read at that token itself and so knowing it,
        [M, K] float32; differentiable. A response is scored at its last token."""
        head = self.reward_head
        out: torch.Tensor = head(
            self._states(batch, own=True) if self.packed else self._padded(batch, True, own=True)[1]
        )
        return out

    def _states(self, batch: Batch, own: bool = False, sparse: bool = False) -> torch.Tensor:
        # of the type that these products see: float32 in the self-check
        plan = plan_for(batch.nodes, Compute(self.device, self.kernels.products.dtype))
        hidden = self.hidden_states(batch.token_ids, batch.position_ids, plan, sparse)
        return hidden.index_select(0, batch.trained if own else batch.parent)

    def padded_logits(self, batch: Batch) -> torch.Tensor:
        """Logits [M, V] that the trained tokens are predicted from, by the model's own forward on padded rows."""
        return self._padded(batch, False)[0]

    def _padded(self, batch: Batch, hidden: bool, own: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        with self.kernels.products.autocast(self.device):
            logits, states, tokens = padded_outputs(self.module, batch, hidden, own)
        self.forwarded_tokens += tokens
        return logits, states

    def _checked_logprobs(self, batch: Batch, packed: bool) -> torch.Tensor:
        self.packed = packed
        return self.logprobs(batch).logprobs

    def recompute_activations(self) -> None:
        """Keep the input of each layer alone for the backward pass, which computes the layer again: less memory for a
        third more operations. Gradients stay the same to the last bit."""
        if self.packed and self.kernels.fused:
            self.kernels = replace(self.kernels, recompute=True)
        elif not recompute_layers(self.module):
            log.warning("%s has no layers that can be computed again: their activations are kept", printable(self.name))

    # -- adapters -------------------------------------------------------------------------------------------------

    def add_adapter(self, rank: int, alpha: int, seed: int, rslora: bool = False, dora: bool = False) -> None:
        """Freeze the weights and put a LoRA adapter beside every linear layer but the head: W + s B A with s = alpha /
        rank, with `rslora` alpha / √rank (arXiv:2312.03732), and with `dora` with rows of trained lengths
        (arXiv:2402.09353). Dropout is 0."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            use_rslora=rslora,
            use_dora=dora,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = get_peft_model(self.module, config)
        self.flops = FlopCounter.of(self.module, merges=self.packed and self.kernels.fused)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The model with its adapter switched off: the start of the stage, which is its reference."""
        if self.adapter is None:
            raise ValueError("this model has no adapter to switch off")
        counter = self.flops
        self.flops = counter.without_adapter()
        try:
            with self.adapter.disable_adapter():
                yield
        finally:
            self.flops = counter

    # -- heads ----------------------------------------------------------------------------------------------------

    @property
    def value_head(self) -> ValueHead:
        return self._head(ValueHead)

    @property
    def reward_head(self) -> RewardHead:
        return self._head(RewardHead)

    def _head(self, kind: type[Head]) -> Head:
        head = self.heads.get(kind.NAME)
        if not isinstance(head, kind):
            raise ValueError(f"this model has no {kind.NOUN}")
        return head

    def add_value_head(self) -> None:
        self.heads[ValueHead.NAME] = ValueHead(self._width).to(self.device)

    def add_reward_head(
        self, outputs: int, seed: int, saved: int | None = None, step_separator: str | None = None
    ) -> RewardHead:
        """Put a `RewardHead` beside the language-model head. Raises InputError for a model of another form."""
        head = RewardHead(self._width, outputs, saved, step_separator)
        head.draw(seed)
        as_classifier(self.module, head.weight)
        self.heads[RewardHead.NAME] = head.to(self.device)
        return head

    @property
    def _width(self) -> int:
        return int(self.module.get_output_embeddings().weight.shape[1])

    # -- weights --------------------------------------------------------------------------------------------------

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What the optimizer changes, by name; tied weights appear once."""
        named = dict(self.module.named_parameters())
        for kind, head in self.heads.items():
            named |= {f"{kind}.{name}": p for name, p in head.named_parameters()}
        return {name: p for name, p in named.items() if p.requires_grad}

    def save_adapter(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the adapter in the format of peft, its weights rounded to `dtype`."""
        assert self.adapter is not None
        weights = {name: rounded(p, dtype) for name, p in self.adapter.state_dict().items() if "lora_" in name}
        for config in self.adapter.peft_config.values():
            vars(config)["target_modules"] = sorted(vars(config)["target_modules"])  # a set differs between processes
        self.adapter.save_pretrained(str(folder), state_dict=weights)

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write `folder` in Hugging Face format: a language model, or with a reward head a sequence classifier. An
        adapter is merged into the weights first, and ends with that. With a `dtype` the weights are rounded to it, in
        the model too. Raises RunFailed for a weight that is beyond its range."""
        if self.adapter is not None:
            self.module = merged(self.adapter, self.source)
            self.adapter = None
            self.flops = self.flops.without_adapter()
        reward_head = self.heads.get(RewardHead.NAME)
        if dtype is not None:
            for module in filter(None, (self.module, reward_head)):
                for parameter in module.parameters():
                    parameter.data = rounded(parameter.data, dtype)
        if isinstance(reward_head, RewardHead):
            save_classifier(self.module, reward_head, self.tokenizer, self.chat, folder)
            return
        self.module.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
