"""What a recipe would do and what memory it would take, without touching a model: `posttrain run … --plan`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posttrain.config import ComputeOptions, ModelShape, RunConfig
from posttrain.data.sources import split_sources
from posttrain.recipes.check import read_recipe
from posttrain.recipes.memory import SHAPES, memory_of, parameters
from posttrain.recipes.stages import StageSpec
from posttrain.text import cell

SHORT = {"gradients": "grads", "optimizer": "AdamW", "reference": "ref", "activations": "activ"}
"""Headers for 80 columns."""
UNITS = (("TB (10^12 bytes)", 1e12), ("GB (10^9 bytes)", 1e9), ("MB (10^6 bytes)", 1e6), ("bytes", 1.0))


@dataclass(frozen=True)
class PlannedStage:
    """What a stage begins with (`parent`), reads and trains, the type that its products see (`dtype`), and the bytes
    that it needs, by what for, and at its `peak`; None where the shape of the model is not known."""

    name: str
    method: str
    parent: str
    data: tuple[str, ...]
    trains: str
    dtype: str
    memory: dict[str, float] | None
    control: str | None = None
    """What the stage is paid by in place of its reward."""
    sealed_reward: tuple[str, ...] = ()
    """What grades its rollouts too and is not trained on."""


@dataclass(frozen=True)
class RecipePlan:
    """The stages in order, on a kind of `device`; `parameters` of the model are None where its shape is not known."""

    model: str
    parameters: float | None
    device: str
    stages: tuple[PlannedStage, ...]


def plan_recipe(config: RunConfig) -> RecipePlan:
    """Check a recipe with all its stages, rewards and principles, and estimate their memory. Raises InputError for what
    is not right."""
    checked = read_recipe(config, planned=True)
    recipe = checked.recipe
    shape = recipe.shape or SHAPES.get(recipe.model)
    device = planned_device(config.device)
    stages = (_planned(stage, checked.configs[stage.name], shape, config, device) for stage in checked.stages)
    return RecipePlan(recipe.model, None if shape is None else parameters(shape), device, tuple(stages))


def planned_device(asked: str) -> str:
    """The kind of device: the one that was `asked` for, on this machine or another, or the one that `auto` takes here.
    A CPU build of torch, which finds no other, is not imported to say so."""
    if asked != "auto":
        return asked
    if "+cpu" in version("torch") and sys.platform == "linux":
        return "cpu"
    from posttrain.models.compute import compute_for

    return compute_for(ComputeOptions()).device.type


def show_plan(plan: RecipePlan) -> None:
    """Print the stages with their memory."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{cell(plan.model)}: stages", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "method", "from", "data", "trains"):
        table.add_column(name, overflow="fold")
    for stage in plan.stages:
        data = ", ".join(Path(source).name for source in stage.data)
        method = f"{stage.method}, paid by {stage.control}" if stage.control else stage.method
        table.add_row(*map(cell, (stage.name, method, stage.parent, data or "–", stage.trains)))
    console = Console()
    console.print(table)
    for stage in plan.stages:
        if stage.sealed_reward:
            sealed = f"{stage.name} is graded by {' + '.join(stage.sealed_reward)} too, which it is not trained on."
            console.print(f"\n{cell(sealed)}")
    if plan.parameters is None:
        console.print(f"\nNo estimate of memory: the recipe has no shape of {cell(plan.model)}.")
        return
    needs = {stage.name: stage.memory for stage in plan.stages if stage.memory is not None}
    most = max(need["peak"] for need in needs.values())
    unit, size = next((u for u in UNITS if most >= u[1]), UNITS[-1])
    dtypes = " and ".join(dict.fromkeys(stage.dtype for stage in plan.stages))
    memory = Table(
        title=f"\nMemory in {unit}, on {plan.device} in {dtypes}", title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    memory.add_column("stage", overflow="fold")
    for name in next(iter(needs.values())):
        memory.add_column(SHORT.get(name, name), justify="right", no_wrap=True)
    for name, need in needs.items():
        memory.add_row(cell(name), *(f"{n / size:.3g}" if n else "–" for n in need.values()))
    console.print(memory)
    console.print(
        f"\n{plan.parameters / 1e6:,.1f} million parameters. Sampling (engine, cache) and training (gradients, "
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


def _planned(stage: StageSpec, config: Any, shape: ModelShape | None, run: RunConfig, planned_on: str) -> PlannedStage:
    sources = (part.partition("?")[0] for source in stage.data for part in split_sources(source.name))
    if not hasattr(config, "learning_rate"):
        trains = "–"
    else:
        adapter = f"{'DoRA' if config.use_dora else 'LoRA'}, rank {config.lora_rank}"
        weights = adapter if config.lora_rank else "all weights"
        trains = f"{weights}, {_length(stage, config)}"
    parent = ", ".join(stage.of) or stage.parent or config.source
    device, dtype = config.within(run) if isinstance(config, ComputeOptions) else ("cpu", "float32")
    device = planned_on if device == "auto" else device
    if dtype == "auto":  # a card is taken to be one that has bfloat16
        dtype = "bfloat16" if device == "cuda" else "float32"
    need = None if shape is None else memory_of(config, shape, device, dtype)
    memory = None if need is None else asdict(need) | {"peak": need.peak}
    graded = getattr(config, "control", None), tuple(getattr(config, "sealed_reward", ()))
    return PlannedStage(stage.name, stage.method, parent, tuple(sources), trains, dtype, memory, *graded)
