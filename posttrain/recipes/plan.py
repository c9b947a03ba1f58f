"""What a recipe would do and what memory it would take, without touching a model: `posttrain run … --plan`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from posttrain.config import RunConfig
from posttrain.data.sources import split_sources
from posttrain.recipes.check import read_recipe
from posttrain.recipes.memory import SHAPES, Memory, memory_of, parameters
from posttrain.recipes.stages import StageSpec
from posttrain.text import cell

SHORT = {"gradients": "grads", "optimizer": "AdamW", "reference": "ref", "activations": "activ"}
"""Headers for 80 columns."""
UNITS = (("TB (10^12 bytes)", 1e12), ("GB (10^9 bytes)", 1e9), ("MB (10^6 bytes)", 1e6), ("bytes", 1.0))


def show_plan(config: RunConfig) -> None:
    """Check a recipe with all its stages, rewards and principles, and print them with their memory. Raises InputError
    for what is not right."""
    from rich.console import Console
    from rich.table import Table

    checked = read_recipe(config, planned=True)
    recipe, stages, configs = checked.recipe, checked.stages, checked.configs
    shape = recipe.shape or SHAPES.get(recipe.model)
    table = Table(title=f"{cell(recipe.model)}: stages", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "method", "from", "data", "trains"):
        table.add_column(name, overflow="fold")
    for stage in stages:
        table.add_row(*map(cell, _described(stage, configs[stage.name])))
    console = Console()
    console.print(table)
    if shape is None:
        console.print(f"\nNo estimate of memory: the recipe has no shape of {cell(recipe.model)}.")
        return
    needs = {name: memory_of(stage, shape) for name, stage in configs.items()}
    most = max(need.peak for need in needs.values())
    unit, size = next((u for u in UNITS if most >= u[1]), UNITS[-1])
    memory = Table(title=f"\nMemory in {unit}, float32", title_justify="left", box=None, padding=(0, 1, 0, 0))
    memory.add_column("stage", overflow="fold")
    for name in (*(f.name for f in fields(Memory)), "peak"):
        memory.add_column(SHORT.get(name, name), justify="right", no_wrap=True)
    for name, need in needs.items():
        cells = [getattr(need, f.name) for f in fields(need)]
        memory.add_row(cell(name), *(f"{cell / size:.3g}" if cell else "–" for cell in (*cells, need.peak)))
    console.print(memory)
    console.print(
        f"\n{parameters(shape) / 1e6:,.1f} million parameters. Sampling (engine, cache) and training (gradients, "
        "activations) take turns; the data and models that a judge loads are not counted."
    )


def _length(stage: StageSpec, config: Any) -> str:
    """How long a stage trains; the steps that passes over the data give are known only once that is read."""
    if config.max_steps is not None:
        return "1 step" if config.max_steps == 1 else f"{config.max_steps:,} steps"
    if config.epochs is None and (stage.flops_of is not None or config.max_flops is not None):
        return f"operations of {stage.flops_of}" if stage.flops_of is not None else f"{config.max_flops:.2g} operations"
    epochs = config.epochs or 1
    return "1 epoch" if epochs == 1 else f"{epochs:g} epochs"


def _described(stage: StageSpec, config: Any) -> tuple[str, ...]:
    sources = [part.partition("?")[0] for source in stage.data for part in split_sources(source.name)]
    data = ", ".join(Path(source).name for source in sources)
    if not hasattr(config, "learning_rate"):
        trains = "–"
    else:
        weights = f"LoRA, rank {config.lora_rank}" if config.lora_rank else "all weights"
        trains = f"{weights}, {_length(stage, config)}"
    parent = ", ".join(stage.of) or stage.parent or config.source
    return stage.name, stage.method, parent, data or "–", trains
