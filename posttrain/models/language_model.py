"""A causal language model with its tokenizer: packed forward passes, log-probabilities, saving."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.batch.types import Batch, Node
from posttrain.chat import ChatFormat
from posttrain.models import attention
from posttrain.models import layers as fused
from posttrain.models.attention import ForestPlan, Plan
from posttrain.models.classifier import save_classifier
from posttrain.models.cpu.linear import adopt
from posttrain.models.decoding import Decoder
from posttrain.models.dtypes import rounded
from posttrain.models.flops import FlopCounter
from posttrain.models.token_logprobs import TokenOutputs, logprobs_from_logits, token_logprobs
from posttrain.text import printable
from posttrain.types import InputError

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger("posttrain")

COUNTED = 8
"""The tokens of a row are counted up to so many times the limit at which it is cut."""
SELF_CHECK_TOLERANCE = 1e-3
"""Largest difference in a log-probability between the packed and the plain forward pass of the self-check."""


class LanguageModel:
    """A transformers causal LM, perhaps with a scalar head, that can be run on packed forests.

    `packed` says whether forests run as they are; otherwise every path of a tree becomes a padded row of its own,
    with the same results. `module` is always an ordinary transformers model."""

    def __init__(
        self, name: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path, raw: bool = False
    ) -> None:
        attention.register()
        self.name = name
        self.module = module.eval()
        adopt(module)
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
        self.flops = FlopCounter.of(module)
        self.forwarded_tokens = 0
        """Tokens that went through the model, padding included; a test compares it with the forest's tokens."""
        self.adapter: PeftModel | None = None
        self.scalar_head: nn.Linear | None = None
        self.score_head: nn.Linear | None = None
        self.saved_scores = 0
        """How many outputs of the score head, the first ones, `save` writes."""
        self.step_separator: str | None = None
        """Of a process reward model, what stands between the steps of an answer, each of which is scored."""
        self._decoder: Decoder | None = None
        self._decoder_weights: list[tuple[int, int]] = []
        self.packed = False
        self.packed = self._can_pack()
        self.forwarded_tokens = 0  # those of the self-check do not count

    def chat_within(self, limit: int) -> ChatFormat:
        """`chat` for rows that are cut at `limit` tokens: of longer ones so many times as much is read as tells by how
        much they are too long, and not a book of which a page is trained."""
        return self.chat.within(min(self.context, COUNTED * limit))

    def check_given_template(self) -> None:
        """Have the model that `save` writes end its answers where the chat template does, now that it was given and did
        not come with the model. Raises InputError for a template that writes no answers, or ends them by no token of
        this model."""
        self.chat.check_given_template()
        generation = self.module.generation_config
        if generation is not None:
            eos = generation.eos_token_id
            ends = [eos] if isinstance(eos, int) else list(eos or [])
            if self.chat.turn_end not in ends:
                generation.eos_token_id = [self.chat.turn_end, *ends]

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    # -- forward passes -------------------------------------------------------------------------------------------

    def hidden_states(
        self, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: Plan, sparse: bool = False
    ) -> torch.Tensor:
        """Last hidden states [N, H] of N packed tokens that attend as `plan` says (packed models only). `sparse`: see
        `fused.hidden_states`; it is for the families that one knows."""
        self.forwarded_tokens += len(token_ids)
        device = self.device
        if fused.knows(self.module):
            return fused.hidden_states(self.module.model, token_ids.to(device), position_ids.to(device), plan, sparse)
        outputs = self.module.base_model(
            input_ids=token_ids[None].to(device),
            position_ids=position_ids[None].to(device),
            attention_mask=torch.empty(1, 1, 1, 1, device=device),  # 4-D: transformers builds no mask of its own
            use_cache=False,
            plan=plan,
        )
        return outputs.last_hidden_state[0]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [.., V] of hidden states (packed models only)."""
        return self.module.get_output_embeddings()(hidden)

    def next_logits(self, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Logits [R, V] after one token of each of R rows (packed models only), faster after `prepare_decoding`."""
        if self._decoder is None:
            return self.head(self.hidden_states(token_ids, position_ids, plan))
        self.forwarded_tokens += len(token_ids)
        return self._decoder.logits(token_ids, position_ids, plan)

    def prepare_decoding(self) -> None:
        """Lay out a copy of the weights for decoding, unless there is one of the weights as they are now."""
        if not (self.packed and fused.knows(self.module)):
            return
        # a tensor's version counts its changes in place
        weights = [(p.data_ptr(), p._version) for p in self.module.parameters()]
        switches = [(int(m.disable_adapters), int(m.merged)) for m in self.module.modules() if hasattr(m, "lora_A")]
        if self._decoder is None or self._decoder_weights != weights + switches:
            self._decoder = None  # never two copies at a time
            self._decoder, self._decoder_weights = Decoder(self.module), weights + switches

    def release_decoding(self) -> None:
        """Give the memory of `prepare_decoding` back."""
        self._decoder = None

    def logprobs(
        self, batch: Batch, temperature: float = 1.0, entropy: bool = False, values: bool = False
    ) -> TokenOutputs:
        """Log-probability of each trained token of a batch on the model's device, [M] in the order of its mask, each
        predicted at its parent, where `values` reads the scalar head too. Differentiable if gradients are on.
        `temperature` divides the logits; the batch's kept tokens apply."""
        targets = batch.token_ids[batch.mask]
        output = self.module.get_output_embeddings()
        if self.packed:
            tied = output.weight is self.module.get_input_embeddings().weight
            hidden = self._states(batch, sparse=tied)
            out = token_logprobs(
                hidden,
                output.weight,
                targets,
                bias=output.bias,
                temperature=temperature,
                kept=batch.kept_token_ids,
                entropy=entropy,
            )
        else:
            logits, hidden = self._padded(batch, values)
            out = logprobs_from_logits(
                logits, targets, temperature=temperature, kept=batch.kept_token_ids, entropy=entropy
            )
        return out._replace(values=self._read(hidden)) if values else out

    def values(self, batch: Batch) -> torch.Tensor:
        """What the scalar head says before each trained token of the batch, [M] float32; differentiable."""
        return self._read(self._states(batch) if self.packed else self._padded(batch, True)[1])

    def scores(self, batch: Batch) -> torch.Tensor:
        """What the K outputs of the score head say of each trained token, read at that token itself and so knowing it,
        [M, K] float32; differentiable. A response is scored at its last token."""
        if self.score_head is None:
            raise ValueError("this model has no score head")
        hidden = self._states(batch, own=True) if self.packed else self._padded(batch, True, own=True)[1]
        out: torch.Tensor = self.score_head(hidden)
        return out.float()

    def _states(self, batch: Batch, own: bool = False, sparse: bool = False) -> torch.Tensor:
        """The hidden states [M, H] that the trained tokens are predicted from, or their `own` (packed models only)."""
        plan = ForestPlan(batch.nodes, self.device)
        hidden = self.hidden_states(batch.token_ids, batch.position_ids, plan, sparse)
        at = batch.mask.nonzero()[:, 0] if own else batch.parent[batch.mask]
        return hidden.index_select(0, at)

    def _read(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.scalar_head is None:
            raise ValueError("this model has no scalar head")
        out: torch.Tensor = self.scalar_head(hidden)
        return out[:, 0].float()

    def padded_logits(self, batch: Batch) -> torch.Tensor:
        """Logits [M, V] that the trained tokens are predicted from, by the model's own forward on padded rows."""
        return self._padded(batch, False)[0]

    def _padded(self, batch: Batch, hidden: bool, own: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [M, V], and with `hidden` last hidden states [M, H], by the model's own forward on padded rows, one
        row a path of the forest: those the trained tokens are predicted from, or their `own`."""
        rows, places = padded_rows(batch)
        if not rows:
            size = self.module.get_output_embeddings().weight.shape[1]
            return torch.empty(0, self.vocabulary, device=self.device), torch.empty(0, size, device=self.device)
        width = max(len(r) for r in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        self.forwarded_tokens += ids.numel()
        outputs = self.module(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            use_cache=False,
            output_hidden_states=hidden,
        )
        at = (places[:, 0].to(self.device), (places[:, 1] + own).to(self.device))
        return outputs.logits[at], outputs.hidden_states[-1][at] if hidden else torch.empty(0, device=self.device)

    def _can_pack(self) -> bool:
        """Whether forests give this model's own numbers: plain full attention in every layer, a plain linear head,
        and a small tree that agrees with padded rows."""
        config = self.module.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or (
            getattr(config, "sliding_window", None) and not getattr(config, "layer_types", None)
        ):
            log.warning(
                "%s has layers other than full attention: rows are padded instead of packed", printable(self.name)
            )
            return False
        if not getattr(self.module, "_supports_attention_backend", False):
            log.warning(
                "%s does not take other attention functions: rows are padded instead of packed", printable(self.name)
            )
            return False
        self.module.set_attn_implementation(attention.IMPLEMENTATION)
        batch = _check_batch(self.vocabulary).to(self.device)
        with torch.no_grad():
            plain = self.logprobs(batch).logprobs
            try:
                self.packed = True
                packed = self.logprobs(batch).logprobs
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                log.warning(
                    "%s cannot run packed rows (%s): rows are padded instead", printable(self.name), printable(error)
                )
                self.module.set_attn_implementation("sdpa")
                return False
        worst = float((plain - packed).abs().max())
        if worst > SELF_CHECK_TOLERANCE:
            log.warning("%s differs by %.2g when packed: rows are padded instead", printable(self.name), worst)
            self.module.set_attn_implementation("sdpa")
            return False
        return True

    # -- adapters -------------------------------------------------------------------------------------------------

    def add_adapter(self, rank: int, alpha: int, seed: int) -> None:
        """Freeze the weights and put a LoRA adapter beside every linear layer but the head. Dropout is 0."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = get_peft_model(self.module, config)
        self.flops = FlopCounter.of(self.module, merges=self.packed and fused.knows(self.module))

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

    def add_scalar_head(self) -> None:
        """Put a linear layer with one output beside the language-model head: a critic's values. It begins with zeros,
        so that the first values say nothing."""
        self.scalar_head = nn.Linear(self.module.get_output_embeddings().weight.shape[1], 1).to(self.device)
        nn.init.zeros_(self.scalar_head.weight)
        nn.init.zeros_(self.scalar_head.bias)

    def add_score_head(self, outputs: int, seed: int, saved: int | None = None) -> None:
        """Put a linear layer beside the language-model head that scores responses. Its weights are normal with
        variance 1/(H+1) (Stiennon et al. 2020, arXiv:2009.01325), each output's from (seed, its number). No bias:
        comparisons do not see one, and transformers' classifiers have none. `saved`: see `saved_scores`; all if not
        given."""
        self.saved_scores = saved or outputs
        size = self.module.get_output_embeddings().weight.shape[1]
        rows = [np.random.default_rng([seed, k]).standard_normal(size) for k in range(outputs)]
        self.score_head = nn.Linear(size, outputs, bias=False).to(self.device)
        with torch.no_grad():
            self.score_head.weight.copy_(torch.from_numpy(np.stack(rows)) / (size + 1) ** 0.5)

    # -- weights --------------------------------------------------------------------------------------------------

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What the optimizer changes, by name; tied weights appear once."""
        named = dict(self.module.named_parameters())
        for kind, head in (("scalar_head", self.scalar_head), ("score_head", self.score_head)):
            named |= {f"{kind}.{name}": p for name, p in head.named_parameters()} if head is not None else {}
        return {name: p for name, p in named.items() if p.requires_grad}

    def save_adapter(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the adapter in the format of peft, its weights rounded to `dtype`."""
        assert self.adapter is not None
        weights = {name: rounded(p, dtype) for name, p in self.adapter.state_dict().items() if "lora_" in name}
        self.adapter.save_pretrained(str(folder), state_dict=weights)

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write `folder` in Hugging Face format: a language model, or with a score head a sequence classifier. An
        adapter is merged into the weights first, and ends with that. With a `dtype` the weights are rounded to it, in
        the model too. Raises RunFailed for a weight that is beyond its range."""
        if self.adapter is not None:
            self.module = self.adapter.merge_and_unload()
            self.adapter = None
            self.flops = self.flops.without_adapter()
        if dtype is not None:
            for module in filter(None, (self.module, self.score_head)):
                for parameter in module.parameters():
                    parameter.data = rounded(parameter.data, dtype)
        if self.score_head is not None:
            rows = self.score_head.weight[: self.saved_scores]
            save_classifier(self.module, rows, self.tokenizer, self.chat, self.step_separator, folder)
            return
        self.module.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))


def weights_hash(folder: Path) -> str:
    """SHA-256 over the safetensors files of a model folder, in name order."""
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} holds no .safetensors file")
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def padded_rows(batch: Batch) -> tuple[list[list[int]], torch.Tensor]:
    """Every path of the forest that ends in a trained node as a row of its own, and where each trained token is
    predicted: [M, 2] row, column."""
    ids, mask = batch.token_ids.tolist(), batch.mask.tolist()
    paths: list[list[int]] = []
    rows: list[list[int]] = []
    places: list[tuple[int, int]] = []
    start = 0
    for node in batch.nodes:
        before = paths[node.parent] if node.parent >= 0 else []
        stop = start + node.length
        paths.append(before + ids[start:stop])
        trained = [i for i in range(node.length) if mask[start + i]]
        if trained:
            places += [(len(rows), len(before) + i - 1) for i in trained]
            rows.append(paths[-1])
        start = stop
    return rows, torch.tensor(places, dtype=torch.long).reshape(-1, 2)


def _check_batch(vocabulary: int) -> Batch:
    """A tree of two branches and a row of fixed tokens: the self-check at load."""
    nodes = (Node(-1, 5), Node(0, 3), Node(0, 6), Node(-1, 7))
    n = sum(node.length for node in nodes)
    ids = torch.tensor([(7 + 13 * i * i) % vocabulary for i in range(n)])
    position = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6])
    parent = torch.tensor([-1, 0, 1, 2, 3, 4, 5, 6, 4, 8, 9, 10, 11, 12, -1, 14, 15, 16, 17, 18, 19])
    mask = torch.tensor([False] * 5 + [True] * 9 + [False] + [True] * 6)
    sequence = torch.tensor([-1] * 5 + [0] * 3 + [1] * 6 + [2] * 7)
    return Batch(ids, position, parent, sequence, mask, nodes, 3, torch.ones(int(mask.sum())))
