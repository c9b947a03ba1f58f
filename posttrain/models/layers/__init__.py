"""Decoder layers of this package's own, and what computes them: `decoder` (the layers), `products` (matrix products and
the type they see), `elementwise` (what happens between products), `compiled` (functions compiled on CUDA)."""

from posttrain.models.layers.compiled import fast
from posttrain.models.layers.decoder import FAMILIES, dora_scale, half_angles, hidden_states, is_supported
from posttrain.models.layers.elementwise import inverse_rms, rotate
from posttrain.models.layers.products import Products

__all__ = [
    "FAMILIES",
    "Products",
    "dora_scale",
    "fast",
    "half_angles",
    "hidden_states",
    "inverse_rms",
    "is_supported",
    "rotate",
]
