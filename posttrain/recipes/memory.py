"""The memory that a stage of a recipe would take, estimated from its configuration and the model's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from posttrain.config import REWARDS, ModelShape
from posttrain.rewards.registry import Spec
from posttrain.train.memory import BYTES, FLOAT32, weight_memory

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


def memory_of(config: Any, shape: ModelShape, device: str = "cpu", dtype: str = "float32") -> Memory:
    """The memory of a stage of this configuration on a kind of device. With P parameters and d bytes a number of the
    type that products see:

    - weights, gradients, AdamW's moments, reference, critic: see `weight_memory`. A reference is kept by RL with a KL
      and online DPO (with adapters only once `reference_every` moves it), and by DPO with `reference_every`; else DPO
      keeps the start's log-probabilities alone. A teacher is taken to be of the same shape;
    - rewards d P for each model that a reward names, taken to be of the same shape;
    - engine: the matrices once more as decoding wants them, d (L layer + V H);
    - cache: keys and values, d · 2 L K per token, of as many answers as are decoded at once at their longest and of
      their prompts, taken to have 256 tokens;
    - activations of a micro-batch of N tokens that the backward pass needs, N (L (4 · 2 H + d (2 A + 2 K + 2 I)) +
      4 · 2 H): inputs of the two norms, queries, attended values, keys, values, gate and up of each layer. With
      adapters the inputs of the linear layers too, d N L (2 H + I), and with DoRA their outputs, d N L (A + 2 K + 2 H +
      2 I). With `checkpoint_activations` those of one layer and the inputs of all, 4 N L H.

    L layers, H hidden, I intermediate, A = heads · size, K = key heads · size, V vocabulary. An estimate: what
    attention takes inside one block, the allocator and the data are left out, and models that have layers of their own
    run on padded rows and keep more."""
    counted = parameters(shape)
    if getattr(config, "endpoint", None) is not None:
        return Memory(rewards=_models_named(config) * BYTES[dtype] * counted)
    if not hasattr(config, "learning_rate"):
        return _sampling(config, shape, BYTES[dtype])
    own = weight_memory(config, counted, adapters(shape, config.lora_rank, config.use_dora), dtype)
    return replace(
        _sampling(config, shape, BYTES[dtype]),
        **asdict(own),
        activations=config.tokens_at_once(device) * _activations_of_token(config, shape, BYTES[dtype]),
    )


def _sampling(config: Any, shape: ModelShape, size: int) -> Memory:
    """Weights, engine, cache and rewards of a stage, as far as it samples, with so many bytes a number."""
    counted = parameters(shape)
    if not hasattr(config, "max_concurrent"):
        return Memory(weights=size * counted)
    group = getattr(config, "group_size", None) or getattr(config, "samples", None) or 1
    slots = config.max_concurrent
    tokens = slots * config.max_new_tokens + -(-slots // group) * PROMPT_TOKENS
    matrices = shape.layers * _layer(shape) + shape.vocabulary * shape.hidden
    _, keys = _widths(shape)
    return Memory(
        weights=size * counted,
        rewards=size * counted * _models_named(config),
        engine=size * (shape.parameters or matrices),
        cache=size * 2 * shape.layers * keys * tokens,
    )


def _activations_of_token(config: Any, shape: ModelShape, size: int) -> float:
    attended, keys = _widths(shape)
    layer = FLOAT32 * 2 * shape.hidden + size * (2 * attended + 2 * keys + 2 * shape.intermediate)
    if config.lora_rank:
        layer += size * (2 * shape.hidden + shape.intermediate)
    if config.use_dora:
        layer += size * _outputs(shape)
    layers = shape.layers * layer
    if config.checkpoint_activations:
        layers = layer + FLOAT32 * shape.layers * shape.hidden
    return layers + FLOAT32 * 2 * shape.hidden


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
    specs = [Spec.parse(text) for key in REWARDS for text in getattr(config, key, ())]
    return sum(len(part.models) for spec in specs for part in spec.expression.walk())
