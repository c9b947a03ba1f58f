"""What `posttrain dpo` makes of its losses and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.cli.options import parse_options
from posttrain.config import DpoConfig
from posttrain.config.preference import LOSSES
from posttrain.types import InputError

TRAIN = ["--model", "m", "--data", "d", "--out", "o"]


def config(**options: Any) -> DpoConfig:
    return DpoConfig(model="m", data="d", out=Path("o"), **options)


def typed(*args: str) -> DpoConfig:
    return parse_options(DpoConfig, [*TRAIN, *args], "posttrain dpo")


def test_losses_bring_their_own_defaults() -> None:
    found = {name: config(loss=(name,) if name != "sft" else ("sigmoid", "sft")).terms()[-1] for name in LOSSES}
    assert {name: term.numbers.get("beta") for name, term in found.items()} == {
        **dict.fromkeys(("sigmoid", "cdpo", "robust", "ipo", "hinge", "orpo", "kto", "apo_zero", "apo_down"), 0.1),
        "simpo": 2.0,
        "sft": None,
    }
    assert found["sigmoid"].numbers["label_smoothing"] == 0.0
    assert found["cdpo"].numbers["label_smoothing"] == found["robust"].numbers["label_smoothing"] == 0.1
    assert {name for name, term in found.items() if term.mean} == {"ipo", "simpo", "orpo", "sft"}
    assert {name for name, term in found.items() if not term.reference} == {"simpo", "orpo", "sft"}


def test_options_reach_their_losses() -> None:
    sigmoid, sft = typed("--loss", "sigmoid=2", "--loss", "sft=0.2", "--length", "mean").terms()
    assert (sigmoid.weight, sigmoid.mean, sigmoid.numbers["beta"]) == (2.0, True, 5.0)
    assert (sft.weight, sft.mean, sft.reference) == (0.2, True, False)
    (ipo,) = typed("--loss", "ipo", "--length", "sum", "--beta", "0.4").terms()
    assert (ipo.mean, ipo.numbers) == (False, {"beta": 0.4})
    (free,) = typed("--reference-free").terms()
    assert not free.reference
    assert config(loss="kto").loss == ("kto",)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--loss", "dpo"], "loss 'dpo' is unknown; use one of sigmoid, cdpo"),
        (["--loss", "sigmoid=0"], "loss 'sigmoid=0': write it as NAME or NAME=WEIGHT with a weight above 0"),
        (["--loss", "sigmoid=x"], "loss 'sigmoid=x': write it as NAME or NAME=WEIGHT"),
        (["--loss", "sigmoid", "--loss", "sigmoid=2"], "names one loss twice: sigmoid, sigmoid"),
        (["--loss", "sft"], "alone it is posttrain sft"),
        (["--loss", "kto", "--loss", "ipo"], "'kto' reads single responses and cannot be added"),
        (["--loss", "kto", "--batch-size", "1"], "use --batch-size 2 or more"),
        (["--gamma", "1"], "gamma does nothing for loss 'sigmoid'; it belongs to simpo"),
        (
            ["--loss", "simpo", "--label-smoothing", "0.1"],
            "--label-smoothing does nothing for loss 'simpo'; it belongs",
        ),
        (["--loss", "simpo", "--reference-free"], "--reference-free does nothing for loss 'simpo'"),
        (["--loss", "orpo", "--reference-every", "5"], "--reference-every does nothing for loss 'orpo'"),
        (["--loss", "hinge", "--length", "mean"], "length does nothing for loss 'hinge'; it belongs to sigmoid, cdpo"),
        (["--loss", "kto", "--ld-alpha", "0.5"], "--ld-alpha does nothing for loss 'kto'"),
        (["--loss", "ipo", "--ld-alpha", "0.5"], "--ld-alpha weighs a sum over tokens; use it with length sum"),
        (["--desirable-weight", "2"], "--desirable-weight does nothing for loss 'sigmoid'; it belongs to kto"),
        (["--reference-mix", "0.5"], "--reference-mix needs --reference-every"),
        (["--reference-every", "2", "--reference-free"], "--reference-every moves a reference"),
        (["--reference-every", "2", "--reference-mix", "0.5", "--lora-rank", "2"], "with --lora-rank leave it at 1"),
        (["--label-smoothing", "0.5"], "--label-smoothing must be less than 0.5, not '0.5'"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(args: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        typed(*args)
    assert message in str(caught.value)
