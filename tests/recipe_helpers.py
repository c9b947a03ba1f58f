"""Stages of a recipe, checked."""

from __future__ import annotations

from pathlib import Path

from posttrain.config import Recipe
from posttrain.recipes.load import Findings
from posttrain.recipes.stage_check import find_stages
from posttrain.recipes.stages import StageSpec


def check_stages(recipe: Recipe, out: Path) -> list[StageSpec]:
    """Raises RecipeFaults with all that is wrong with them."""
    found = Findings()
    stages = find_stages(recipe, out, found)
    found.check()
    return stages
