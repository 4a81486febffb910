"""`eofm bench plan TASK MODEL`: the steps from a task's images to a model, or the refusal."""

from __future__ import annotations

from dataclasses import dataclass

from eofm.bench.config import listed
from eofm.bench.models.candidates import plan_source, read_recipe
from eofm.bench.reports.report_config import PlanConfig
from eofm.contract.preprocess import plan
from eofm.contract.recipe import FORCED_WHY, Recipe, waivers_for
from eofm.datasets.base import Task
from eofm.datasets.registry import TASKS, family_of, find_task
from eofm.errors import MismatchKind, SpecMismatch, WeightsError
from eofm.weights.cards import find
from eofm.weights.resolve import WeightsKind, resolve


@dataclass(frozen=True)
class PlanReport:
    """The steps, or why there are none.

    Args:
        text: What is printed.
        status: 0 if there is a plan, 1 if the model cannot take the images.
    """

    text: str
    status: int

    def describe(self) -> str:
        """Return the steps, or the refusal."""
        return self.text


def bench_plan(config: PlanConfig) -> PlanReport:
    """Say how a model takes the images of a task. No image and no published weight is read.

    Args:
        config: The settings, as on the command line.

    Raises:
        ConfigError: If there is no such task or model.
        WeightsError: If the weights are not known.
    """
    task = find_task(config.task)
    forced = [MismatchKind(word) for word in listed(config.force)]
    head = f"{config.model} on {task.name}, version {task.version}"
    others = [name for name in TASKS if family_of(name) == config.task and name != task.name]
    tail = [f"other tasks of {config.task}: {', '.join(others)}"] if others else []
    recipe = _recipe(config)
    try:
        lines = (
            _source_lines(task, config, forced) if recipe is None else _lines(task, recipe, forced)
        )
    except SpecMismatch as error:
        return PlanReport("\n".join([f"{head}: refused\n{error}", *tail]), 1)
    return PlanReport("\n".join([head, *lines, *tail]), 0)


def _recipe(config: PlanConfig) -> Recipe | None:
    """Return the recipe of published weights, which need not be there; None for all else."""
    try:
        found = resolve(config.model)
    except WeightsError:
        return None  # a control, or several encoders: what they are is decided elsewhere
    if found.kind is WeightsKind.TIMM:
        return read_recipe(config.recipe)
    return find(found.name)[1] if found.kind is WeightsKind.CARD else None


def _lines(task: Task, recipe: Recipe, forced: list[MismatchKind]) -> list[str]:
    """Return the plan for the sensor of the task that the recipe names, else for the first."""
    spec = next((s for s in task.specs if s.sensor is recipe.sensor), task.spec)
    waivers = waivers_for(spec, recipe, task.waivers, forced)
    lines = plan(spec, recipe, waivers).describe().splitlines()
    if any(waiver.why == FORCED_WHY for waiver in waivers):
        lines.append("forced: a row of such a run is marked, and left out of tables")
    return lines


def _source_lines(task: Task, config: PlanConfig, forced: list[MismatchKind]) -> list[str]:
    source = plan_source(task, config.model, config.recipe, forced)
    identity = source.identity(task.spec)
    return list(identity.plan) or [f"no plan: {identity.about}, of images as they are"]
