"""The memory that a stage of a recipe would take, estimated from its configuration and the model's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from posttrain.config import ModelShape
from posttrain.rewards.registry import Spec

BYTES = 4
"""Of a number: everything that is trained or sampled from is in float32."""
PROMPT_TOKENS = 256
"""What a prompt is taken to have in the key/value cache; without the data nobody knows."""
SHAPES: Mapping[str, ModelShape] = {
    "smollm2-135m": ModelShape(
        layers=30, hidden=576, intermediate=1536, heads=9, key_heads=3, vocabulary=49152, tied=True
    ),
    "tiny-random": ModelShape(layers=5, hidden=128, intermediate=352, heads=4, key_heads=2, vocabulary=259, tied=True),
}


@dataclass(frozen=True)
class Memory:
    """Bytes that a stage needs, by what for. `engine` and `cache` are there while it samples, `gradients` and
    `activations` while it trains; the others all the time."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    reference: float = 0.0
    critic: float = 0.0
    rewards: float = 0.0
    engine: float = 0.0
    cache: float = 0.0
    activations: float = 0.0

    @property
    def peak(self) -> float:
        """What is there all the time, and the larger of the two phases."""
        always = self.weights + self.optimizer + self.reference + self.critic + self.rewards
        return always + max(self.engine + self.cache, self.gradients + self.activations)


def parameters(shape: ModelShape) -> float:
    """P = V H (twice unless tied) + L (matrices of a layer + 2 H) + H: the embeddings, the layers with their two norms,
    the last norm; or what the shape says."""
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    counted = embeddings + shape.layers * (_layer(shape) + 2 * shape.hidden) + shape.hidden
    return shape.parameters or counted


def adapters(shape: ModelShape, rank: int, dora: bool = False) -> float:
    """LoRA on every linear layer but the head: r (in + out) each, so L r (queries H + A, keys and values 2 (H + K),
    output A + H, gate and up 2 (H + I), down I + H). With DoRA another L (A + 2 K + H + 2 I + H)."""
    h, i = shape.hidden, shape.intermediate
    a, k = _widths(shape)
    lengths = shape.layers * _outputs(shape) if dora else 0
    return shape.layers * rank * (2 * (h + a) + 2 * (h + k) + 3 * (h + i)) + lengths


def memory_of(config: Any, shape: ModelShape) -> Memory:
    """The memory of a stage of this configuration. With P parameters of which T are trained (all, or the adapters,
    which then come on top), 4 bytes each:

    - weights 4 P, gradients 4 T, AdamW's two moments 8 T;
    - reference 4 T where a copy is kept: RL with a KL and online DPO (with adapters only once `reference_every` moves
      it), and DPO with `reference_every`; else DPO keeps the start's log-probabilities alone. For distillation the
      teacher, taken to be of the same shape, 4 P;
    - critic: a model of its own with gradients and moments, 4 P + 12 T; a head is nothing beside that;
    - rewards 4 P for each model that a reward names, taken to be of the same shape;
    - engine: the matrices once more as decoding wants them, 4 (L layer + V H);
    - cache: keys and values, 4 · 2 L K per token, of as many answers as are decoded at once at their longest and of
      their prompts, taken to have 256 tokens;
    - activations of a micro-batch of N tokens that the backward pass needs, 4 N (L (2 H + 2 A + 2 K + 2 I) + 2 H):
      inputs of the two norms, queries, attended values, keys, values, gate and up of each layer. With adapters the
      inputs of the linear layers too, 4 N L (2 H + I), and with DoRA their outputs, 4 N L (A + 2 K + 2 H + 2 I).

    L layers, H hidden, I intermediate, A = heads · size, K = key heads · size, V vocabulary. An estimate: what
    attention takes inside one block, the allocator and the data are left out, and models that have layers of their own
    run on padded rows and keep more."""
    counted = parameters(shape)
    if getattr(config, "endpoint", None) is not None:
        return Memory(rewards=_models_named(config) * BYTES * counted)
    if not hasattr(config, "learning_rate"):
        return _sampling(config, shape)
    rank = config.lora_rank
    trained = adapters(shape, rank, config.use_dora) if rank else counted
    own = counted + (trained if rank else 0)
    reference = critic = 0.0
    if (config.keeps_reference and not rank) or getattr(config, "reference_every", None):
        reference = trained
    if hasattr(config, "teacher"):
        reference = counted
    if config.trains_critic:
        critic = own + 3 * trained
    return replace(
        _sampling(config, shape),
        weights=BYTES * own,
        gradients=BYTES * trained,
        optimizer=2 * BYTES * trained,
        reference=BYTES * reference,
        critic=BYTES * critic,
        activations=_activations(config, shape),
    )


def _sampling(config: Any, shape: ModelShape) -> Memory:
    """Weights, engine, cache and rewards of a stage, as far as it samples."""
    counted = parameters(shape)
    if not hasattr(config, "max_concurrent"):
        return Memory(weights=BYTES * counted)
    group = getattr(config, "group_size", None) or getattr(config, "samples", None) or 1
    slots = config.max_concurrent
    tokens = slots * config.max_new_tokens + -(-slots // group) * PROMPT_TOKENS
    matrices = shape.layers * _layer(shape) + shape.vocabulary * shape.hidden
    _, keys = _widths(shape)
    return Memory(
        weights=BYTES * counted,
        rewards=BYTES * counted * _models_named(config),
        engine=BYTES * (shape.parameters or matrices),
        cache=BYTES * 2 * shape.layers * keys * tokens,
    )


def _activations(config: Any, shape: ModelShape) -> float:
    attended, keys = _widths(shape)
    layer = 2 * shape.hidden + 2 * attended + 2 * keys + 2 * shape.intermediate
    if config.lora_rank:
        layer += 2 * shape.hidden + shape.intermediate
    if config.use_dora:
        layer += _outputs(shape)
    return BYTES * config.micro_batch_tokens * (shape.layers * layer + 2 * shape.hidden)


def _widths(shape: ModelShape) -> tuple[int, int]:
    """A and K: how wide all queries and all keys of a token are."""
    size = shape.head_size or shape.hidden // shape.heads
    return shape.heads * size, shape.key_heads * size


def _outputs(shape: ModelShape) -> int:
    """How wide the outputs of a layer's matrices are together."""
    attended, keys = _widths(shape)
    return attended + 2 * keys + 2 * shape.hidden + 2 * shape.intermediate


def _layer(shape: ModelShape) -> int:
    """Numbers in the matrices of a layer: queries and output 2 H A, keys and values 2 H K, feed-forward 3 H I."""
    attended, keys = _widths(shape)
    return shape.hidden * (2 * attended + 2 * keys + 3 * shape.intermediate)


def _models_named(config: Any) -> int:
    specs = [Spec.parse(text) for text in getattr(config, "reward", ())]
    return sum(len(part.models) for spec in specs for part in spec.expression.walk())
