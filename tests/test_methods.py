"""The table of methods, from which commands and recipes follow."""

from __future__ import annotations

from typing import get_args

import pytest

from posttrain.data.formats import NEEDS
from posttrain.methods import METHODS, WRITTEN, commands_for
from posttrain.rows import KINDS, Kind


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_function(name: str) -> None:
    assert callable(METHODS[name].function)


def test_every_kind_of_row_is_read_by_a_method() -> None:
    assert {*get_args(Kind)} == {*NEEDS} == {*KINDS.values()}
    assert all(commands_for(kind) for kind in get_args(Kind))
    assert commands_for("unpaired") == ["posttrain dpo --loss kto"]
    assert commands_for("completion") == ["posttrain sft", "posttrain distill"]


def test_what_a_method_writes_another_reads() -> None:
    readers = {write: [name for name, m in METHODS.items() if kind in m.kinds] for write, kind in WRITTEN.items()}
    assert readers == {
        "best": ["sft", "distill"],
        "all": ["sft", "distill"],
        "pairs": ["dpo", "reward-model", "adversarial"],
    }


def test_methods_that_make_data_say_which_file() -> None:
    assert [name for name, method in METHODS.items() if method.writes == "data"] == ["sample", "revise"]
    assert all(hasattr(method.config, "file") for method in METHODS.values() if method.writes == "data")
