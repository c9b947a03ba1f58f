"""Engines are opened by what a configuration says."""

from __future__ import annotations

from pathlib import Path

from posttrain.config import DistillConfig, EvalConfig, SampleConfig
from posttrain.engine.open import Slots, open_engine
from posttrain.models import LanguageModel
from posttrain.types import Sampling


def test_a_configuration_says_how_many_answers_are_decoded_at_once(tiny: LanguageModel) -> None:
    config = EvalConfig(model="tiny-random", data="d", reward=("math",), max_concurrent=3)
    assert open_engine(config, tiny).slots == 3 and open_engine(Slots(), tiny).slots == 64


def test_sampling_options_are_read_in_one_place(tmp_path: Path) -> None:
    options = {"max_new_tokens": 7, "temperature": 0.5, "top_k": 4, "top_p": 0.9}
    shared = {"model": "m", "data": "d", "out": tmp_path}
    for config in (
        SampleConfig(**shared, write="all", **options),  # type: ignore[arg-type]
        DistillConfig(**shared, teacher="t", **options),  # type: ignore[arg-type]
    ):
        assert config.sampling() == Sampling(7, 0.5, 4, 0.9) and config.max_concurrent == 64
