"""The training step as a LightningModule; the method itself is `eofm.method`.

On the device: native planes -> one grid -> `Preprocess` -> two views -> student and teacher ->
loss. The teacher is updated once per optimiser step, so gradient accumulation adds no updates. A
non-finite loss is traced to parameters, input rows, or the first layer.

The frozen teacher of a term can be any named weights, with input prepared by the recipe on their
card. It may expect other bands, another size and another normalisation than the student, or the
other sensor. Its input is therefore not the student's view: the same stored images are prepared
with the teacher's plan, then cropped and flipped like the view, without colour jitter and blur.

Shapes: B images, C bands, H by W pixels, S by S pixels of a teacher's input, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from functools import cache, partial
from typing import Any, Final, Self, final

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.hooks import RemovableHandle

from eofm.contract.imagery import Imagery, Labels
from eofm.contract.preprocess import Plan, Preprocess, to_grid
from eofm.contract.recipe import Recipe
from eofm.contract.spec import ImageSpec, Sensor
from eofm.errors import ConfigError, EofmError, PixelError, SpecMismatch, TrainingError
from eofm.loading.feeder import Batch, PairedViews, Pixels, SecondSensor
from eofm.loading.sampler import Seasons
from eofm.loading.views import (
    View,
    colours_alone,
    view_of,
    views_for,
    with_crop_within,
    with_geometry_of,
)
from eofm.method import CombinedTerms, LabelFacts, update_teacher
from eofm.method.config import MaskForm, Objective
from eofm.method.objectives import Frozen, FrozenNetwork, StepOutcome, make_objective
from eofm.networks.joint import JointTrunk
from eofm.networks.trunk import Trunk
from eofm.train.checkpoint import PARAMETERS, Stage, load_moments, load_networks
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule, training_plan
from eofm.train.distributed import all_mean
from eofm.train.optimizer import (
    DecayShape,
    ParameterRate,
    RateSchedule,
    ScheduleKind,
    make_optimizer,
    momentum_over_steps,
    parameter_groups,
    parameter_rates,
    rate_over_steps,
)
from eofm.weights.encoder import Encoder, serialise, sha256
from eofm.weights.load import CHECKPOINT_KEY, load_weights

__all__ = [
    "BRANCHES",
    "FrozenTeacher",
    "PretrainModule",
    "band_mean",
    "broken_rows",
    "broken_tensors",
    "first_broken",
    "fresh_norms_needed",
    "no_teacher",
    "not_finite",
    "open_teacher",
    "schedule_of",
]

# --------------------------------------------------------------------- cause of a non-finite loss

_SHOWN: Final = 3


def broken_tensors(module: nn.Module) -> list[str]:
    """Return the names of parameters and buffers that hold a NaN or an infinity."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, value in named if not _finite(value).all()]


def broken_rows(batch: Tensor) -> list[int]:
    """Return which rows of a batch (B, ...) hold a NaN or an infinity."""
    return torch.nonzero(~_finite(batch).flatten(1).all(dim=1)).flatten().tolist()


def first_broken(module: nn.Module, forward: Callable[[], object]) -> str | None:
    """Return the first part of `module` with a non-finite output, and the affected rows.

    Args:
        module: Module to inspect while `forward` runs.
        forward: Calls the module; its errors are ignored here.
    """
    found: list[str] = []
    names = {part: name for name, part in module.named_modules() if name}

    def inspect(part: nn.Module, _: object, output: object) -> None:
        if not found and isinstance(output, Tensor) and not _finite(output).all():
            rows = broken_rows(output) if output.ndim > 1 else []
            where = f", rows {_few(rows)} of {len(output)}" if rows else ""
            found.append(f"{names[part]} ({type(part).__name__}){where}")

    handles: list[RemovableHandle] = [part.register_forward_hook(inspect) for part in names]
    try:
        with torch.no_grad():
            forward()
    except EofmError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def not_finite(
    module: nn.Module,
    views: Sequence[Tensor],
    forward: Callable[[], object] | None,
    loss: str,
    step: int,
) -> TrainingError:
    """Return an error that names the cause of a non-finite loss.

    Args:
        module: The method.
        views: Inputs of the method, (B, ...) each.
        forward: Repeats the forward pass; None if that is impossible.
        loss: The loss and its terms, as text.
        step: Number of steps before this one.
    """
    seen = [loss]
    tensors = broken_tensors(module)
    rows = sorted({row for view in views for row in broken_rows(view)})
    if tensors:
        seen.append(f"{len(tensors)} tensors of the networks are not finite: {_few(tensors)}")
    if rows:
        seen.append(f"pixels of rows {_few(rows)} of the batch are not finite")
    layer = None if forward is None else first_broken(module, forward)
    if layer is not None:
        seen.append(f"the first layer to give out a NaN or infinity is {layer}")
    return TrainingError(
        "the loss is not finite",
        found="; ".join(seen),
        where=f"step {step}",
        remedy=_remedy(tensors, rows),
    )


def _remedy(tensors: Sequence[str], rows: Sequence[int]) -> str:
    if rows:
        return "look for broken scenes: eofm data verify STORE, eofm data check STORE"
    if tensors:
        return "an earlier step went too far: lower optim.lr, lengthen optim.warmup, set optim.clip"
    return "lower optim.lr, lengthen optim.warmup, use run.precision 32-true, raise method.tau"


def _finite(value: Tensor) -> Tensor:
    return torch.isfinite(value.detach())


def _few(items: Sequence[object]) -> str:
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"


# ---------------------------------------------------------------------------------- frozen teachers


@final
class FrozenTeacher(nn.Module):
    """An encoder in evaluation mode, without gradients.

    Its network is not registered as a submodule: checkpoints, optimizer and wrappers such as DDP
    ignore it, but it moves to the device with the rest of the module.

    Args:
        encoder: Network, recipe and card.
        specs: Image specs of the store and of the second sensor's store, if there is one.

    Attributes:
        sha256: Hash of its weights; for a checkpoint, whose card has none, of its export.

    Raises:
        SpecMismatch: If no store's imagery fits the recipe.
    """

    def __init__(self, encoder: Encoder, specs: Sequence[ImageSpec]) -> None:
        super().__init__()
        sensor = encoder.recipe.sensor
        self.store = next((i for i, spec in enumerate(specs) if spec.sensor == sensor), 0)
        self.preprocess = Preprocess(training_plan(specs[self.store], encoder.recipe))
        self.card = encoder.card
        self.sha256 = encoder.card.sha256 or sha256(serialise(encoder.trunk, encoder.card))
        self._hidden = (encoder.trunk.eval().requires_grad_(requires_grad=False),)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply a device or precision change to the network as well."""
        self.trunk._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def trunk(self) -> Trunk:
        """The network."""
        return self._hidden[0]

    @property
    def dim(self) -> int:
        """Width of the embedding, D."""
        return self.trunk.dim

    @property
    def size(self) -> int:
        """Side of its input in pixels, S."""
        return self.trunk.size[0]

    def prepare(self, native: Pixels) -> Float[Tensor, "b c h w"]:
        """Return the uncropped images of a batch as the teacher expects them, (B, C, H, W).

        Args:
            native: Images as stored, of one sensor or of both; the teacher uses its own sensor's.
        """
        images = native[self.store] if isinstance(native, tuple) else native
        prepared: Tensor = self.preprocess(to_grid(images)).pixels
        return prepared

    def forward(self, pixels: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Return one vector per image, (B, D)."""
        vectors: Tensor = self.trunk(pixels)
        return vectors

    def describe(self) -> str:
        """Return name, licence and hash of the teacher, for a card."""
        return f"{self.card.name}, licence {self.card.licence}, sha256 {self.sha256[:16]}"


def open_teacher(weights: str, specs: Sequence[ImageSpec]) -> FrozenTeacher:
    """Return the frozen teacher with the weights that a term names.

    Args:
        weights: Name or path in any form that `eofm.weights.load.load_weights` accepts.
        specs: Image specs of the stores of the run.

    Raises:
        WeightsError: If there are no such weights, or they have no input recipe.
        SpecMismatch: If the imagery of the run does not fit the teacher's recipe.
    """
    where = f"method.terms, teacher {weights}"
    try:
        encoder = load_weights(weights)
    except EofmError as error:
        error.where = f"{where}, {error.where}" if error.where else where
        raise
    try:
        return FrozenTeacher(encoder, specs)
    except SpecMismatch as error:
        raise _unfit(error, encoder, where) from error


def _unfit(error: SpecMismatch, encoder: Encoder, where: str) -> SpecMismatch:
    return SpecMismatch(
        error.kind,
        "the frozen teacher expects other images than the run has",
        found=f"{error.found}",
        expected=f"{error.expected}, as the recipe of {encoder.card.name} says",
        where=where,
        remedy="name a teacher for the store's sensor and bands (`eofm models list`); of two "
        "sensors (data.views=sensors) it may be of either",
    )


# ------------------------------------------------------------------------------------ training step

# Networks of a run: the student, and its moving average if a term needs one.
BRANCHES: Final = ("student", "teacher")

# Where mean ± 2 standard deviations become 0 to 1, the mean is at one half; a z-score has it at 0.
_MEAN: Final[Mapping[str, float]] = {"two-sigma": 0.5, "zscore": 0.0}


def schedule_of(config: PretrainConfig) -> RateSchedule:
    """Return the learning rate schedule of the settings."""
    optim = config.optim
    kind = ScheduleKind(optim.schedule)
    shape = optim.anneal_shape
    if shape == "auto":
        shape = "linear" if kind is ScheduleKind.WSD else "exponential"
    return RateSchedule(
        kind=kind,
        warmup=optim.warmup,
        floor=optim.floor,
        cooldown=optim.cooldown,
        constant=optim.constant,
        cooldown_shape=DecayShape(optim.cooldown_shape),
        anneal=optim.anneal,
        anneal_shape=DecayShape(shape),
        continued=config.model.continue_from is not None,
    )


class PretrainModule(L.LightningModule):
    """A run of SoftCon, of a control, or of other terms.

    Args:
        trunk: The network to train; with two sensors it has an input layer for each.
        config: All settings.
        plan: From the store's imagery to normalised pixels of the same size.
        recipe: Input that the network expects; saved in every checkpoint.
        facts: Facts about the training labels that the objective needs.
        card: Fields of the export's card that the checkpoint must carry.
        generator: Random generator of the heads' initial weights.
        new_input: The input layer was initialised at random; it learns at the full rate for any
            `optim.layer_decay`.
        second_sensor: The second sensor, if the views are of two sensors.
        frozen: Function from the name of weights to a frozen teacher.
    """

    def __init__(
        self,
        trunk: Trunk | JointTrunk,
        config: PretrainConfig,
        plan: Plan,
        recipe: Recipe,
        facts: LabelFacts,
        card: Mapping[str, Any],
        generator: torch.Generator,
        *,
        new_input: bool = True,
        second_sensor: SecondSensor | None = None,
        frozen: Frozen | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.seasons = config.data.views in tuple(Seasons)
        self.second_sensor = second_sensor
        self.new_input = new_input
        self.schedule = schedule_of(config)
        self.stage: Stage | None = None
        self.recipe = recipe
        self.card, self.facts = dict(card), facts
        self.method = make_objective(
            trunk, config.method, generator, facts, band_mean=band_mean(config), frozen=frozen
        )
        for part in (self.method.student, self.method.teacher):
            if part is not None:
                part.chunk = config.trainer.chunk
        self.preprocess = Preprocess(plan)
        self.views = views_for(recipe, config.augment)
        self.paired_views: PairedViews | None = None
        if second_sensor is not None:
            self.paired_views = PairedViews(self.views, second_sensor, config.augment)
        # masks have a separate generator, so that they do not depend on the views
        self.masks = torch.Generator().manual_seed(config.optim.seed)

    @property
    def branches(self) -> tuple[str, ...]:
        """Networks of this run: the student, and its moving average if a term needs one."""
        return BRANCHES if self.method.teacher is not None else BRANCHES[:1]

    @property
    def teachers(self) -> dict[str, str]:
        """The sha256 of the weights of each frozen teacher, by the term that learns from it."""
        if not isinstance(self.method, CombinedTerms):  # a user-defined method has none
            return {}
        found = self.method.frozen.items()
        return {name: each.sha256 for name, each in found if isinstance(each, FrozenTeacher)}

    def trunk(self, branch: str = "student", sensor: Sensor | None = None) -> Trunk:
        """Return the network of a branch for images of a sensor.

        Args:
            branch: `student` or `teacher`.
            sensor: One of the run's sensors; None for the sensor of the recipe.

        Raises:
            ConfigError: If the teacher is requested and the run has none.
        """
        part = self.method.teacher if branch == "teacher" else self.method.student
        if part is None:
            raise no_teacher()
        trunk = part.trunk
        if isinstance(trunk, JointTrunk):
            return trunk.of(sensor or self.recipe.sensor)
        return trunk  # type: ignore[return-value]  # the method's protocol is narrower than Trunk

    def describe_plans(self) -> str:
        """Return a description of the preprocessing of all sensors, from imagery to network."""
        plans = [self.preprocess.plan] + (
            [] if self.second_sensor is None else [self.second_sensor.plan]
        )
        return "\n\n".join(plan.describe() for plan in plans)

    def two_views(self, native: Pixels) -> tuple[Imagery, View, View]:
        """Return the normalised batch and its two random views, (B, C, S, S) each.

        Both are of the same B images. If the views are seasons, the batch holds 2B images; the
        first view is of its first half, the second of its second half. With two sensors, the
        returned batch is the first sensor's, and each view has the bands of its sensor.
        """
        with torch.no_grad():
            if isinstance(native, tuple):
                assert self.paired_views is not None  # noqa: S101 (ensured by the run)
                imagery = self.preprocess(to_grid(native[0]))
                return (imagery, *self.paired_views(imagery, native[1]))
            imagery = self.preprocess(to_grid(native))
            first = second = (self._recoloured(imagery.pixels), imagery.valid)
            if self.seasons:
                first, second = zip(*(part.chunk(2) for part in first), strict=True)
            draw = self.views.draw(first[0].shape)
            view = view_of(self.views, *first, draw)
            other = self.views.draw(second[0].shape)
            augment = self.config.augment
            if self.config.data.views == "nested":
                other = with_crop_within(draw, other, augment.nested_scale)
            elif self.seasons and augment.season_pair == "same":
                other = with_geometry_of(draw, other)
            return imagery, view, view_of(self.views, *second, other)

    def _recoloured(self, pixels: Tensor) -> Tensor:
        """Reduce a share of the images to RGB, consistently for both dates of a place."""
        share = self.config.augment.rgb_probability
        if share == 0:  # nothing is drawn, so that other random draws do not change
            return pixels
        places = len(pixels) // 2 if self.seasons else len(pixels)
        alone = torch.rand(places) < share
        return colours_alone(pixels, self.recipe.bands, alone.repeat(2) if self.seasons else alone)

    def outcome(self, native: Pixels, first: View, second: View, labels: Labels) -> StepOutcome:
        """Return the loss of two views of a batch, and the values to log.

        Args:
            native: The images as stored, from which a frozen teacher's input is made.
            first: View of the images, or of the first half of the batch if views are seasons.
            second: The other view.
            labels: Labels of the batch.
        """
        views, both = (first.pixels, second.pixels), self.of_views(labels)
        if not isinstance(self.method, CombinedTerms):  # a user-defined method
            made: StepOutcome = self.method(views, both, self.masks)
            return made
        measured = (first.measured, second.measured)
        prepared = cache(lambda teacher: teacher.prepare(native))  # once for both views
        shown = partial(self._shown_to, prepared, first, second)
        output: StepOutcome = self.method(
            views, both, self.masks, lambda view: measured[view](), shown
        )
        return output

    @torch.no_grad()
    def _shown_to(
        self,
        prepared: Callable[[FrozenTeacher], Tensor],
        first: View,
        second: View,
        teacher: FrozenNetwork,
        view: int,
    ) -> Tensor:
        """Return the teacher's input for a view: the same crop, prepared by its own recipe."""
        assert isinstance(teacher, FrozenTeacher)  # noqa: S101 (the run creates no other)
        images = prepared(teacher)
        if self.seasons:
            images = images.chunk(2)[view]
        return (first, second)[view].crop(images, teacher.size)

    def of_views(self, labels: Labels) -> Labels | tuple[Labels, Labels]:
        """Return the labels of both views, or of each view if they are seasons."""
        if not self.seasons:
            return labels
        half = len(labels) // 2
        return labels[:half], labels[half:]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            PixelError: If a scene has no valid pixel, or a NaN; the message names the scene.
            TrainingError: If the loss is not finite; the message states the cause.
        """
        native, labels = batch
        try:
            _, first, second = self.two_views(native)
        except PixelError as error:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            raise (data.named(error) if isinstance(data, StoreDataModule) else error) from None
        forward = partial(self.outcome, native, first, second, labels)
        output = forward()
        if not torch.isfinite(output.loss):
            words = ", ".join(f"{n} {float(v):.4g}" for n, v in output.logged().items())
            # several processes would wait for each other in a second forward pass
            again = forward if self.trainer.world_size == 1 else None
            pixels = (first.pixels, second.pixels)
            raise not_finite(self.method, pixels, again, words, self.global_step)
        scalars = all_mean(output.logged())  # over all processes, each with its rows
        if self.method.teacher is not None:
            scalars["momentum"] = torch.tensor(self._momentum())
        scalars["lr"] = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log_dict(scalars, batch_size=len(labels), prog_bar=False)
        loss: Tensor = output.loss
        return loss

    def _momentum(self) -> float:
        total = int(self.trainer.estimated_stepping_batches)
        base = self.config.method.momentum
        return momentum_over_steps(self.global_step, total, base, self.schedule)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the step, then update the teacher."""
        momentum = self._momentum()
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.method.teacher is not None:
            update_teacher(self.method.teacher, self.method.student, momentum)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of the whole gradient.

        Lightning refuses every fused optimizer in mixed precision, because it would undo the
        scaling of a float16 loss too late. bfloat16 needs no scaling, and with float16 the
        optimizer is not fused (`configure_optimizers`).
        """
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.clip(parameters, gradient_clip_val)

    def clip(self, parameters: list[nn.Parameter], largest: float) -> None:
        """Scale all gradients so that their norm is bounded; here no parameter is sharded."""
        nn.utils.clip_grad_norm_(parameters, largest)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's own type is a union of nine)
        """Return the optimiser with a per-step schedule and a rate for each layer."""
        optim = self.config.optim
        total = int(self.trainer.estimated_stepping_batches)
        groups = self.arrange(
            parameter_groups(
                self.method.named_parameters(),
                optim.weight_decay,
                self.config.peak_lr,
                self._parameter_rates(),
                tables_decay=optim.decay == "dinov2",
            )
        )
        optimizer = make_optimizer(groups, self.config)
        frozen = total // optim.epochs * optim.freeze_epochs
        warmup = round(optim.warmup * total)
        rates = [
            rate_over_steps(total, warmup, frozen if g["frozen"] else 0, self.schedule)
            for g in groups
        ]
        if self.stage is not None:
            load_moments(optimizer, self._optimized(optimizer), self.stage, optim.optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, rates), "interval": "step"},
        }

    def arrange(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the optimizer's groups unchanged; subclasses may regroup them."""
        return groups

    def continue_from_stage(self, stage: Stage) -> None:
        """Continue with the networks, the heads and the optimizer of an earlier stage.

        Raises:
            WeightsError: If its networks differ from these.
        """
        load_networks(stage, self.method)
        self.stage, self.new_input = stage, False

    def _optimized(self, optimizer: Optimizer) -> list[str]:
        """Return the names of the optimizer's parameters, in the optimizer's order."""
        names = {id(parameter): name for name, parameter in self.method.named_parameters()}
        return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]

    def _parameter_rates(self) -> dict[str, ParameterRate]:
        """Return the rates of the student's trunk by parameter name; those of the heads are 1."""
        whole = self.method.student.trunk
        parts = [("", self.trunk(), self.new_input)]
        if isinstance(whole, JointTrunk) and self.second_sensor is not None:
            first, second = self.recipe.sensor, self.second_sensor
            parts = [(f"trunks.{first}.", whole.of(first), self.new_input)]
            parts += [(f"trunks.{second.name}.", whole.of(second.name), second.new_input)]
        optim = self.config.optim
        return {
            f"student.trunk.{prefix}{name}": rate
            for prefix, trunk, new in parts
            for name, rate in parameter_rates(
                trunk,
                optim.layer_decay,
                freeze=optim.freeze_epochs > 0,
                new_input=new,
                input_rate=optim.input_lr,
            ).items()
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put recipe, card and settings into the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = {
            "recipe": self.recipe.to_dict(),
            "partner": None if self.second_sensor is None else self.second_sensor.recipe.to_dict(),
            "stale_norms": [b for b in self.branches if fresh_norms_needed(self.config, b)],
            "architecture": self.config.model.architecture,
            "positions": self.config.model.position,
            "card": self.card,
            "config": _plain(asdict(self.config)),
            "progress": self._progress(),
            "teachers": self.teachers,
            PARAMETERS: self._optimized(self.trainer.optimizers[0]),
        }

    def _progress(self) -> str:
        """Return the progress of training, for the card of an export."""
        loop = self.trainer.fit_loop
        if self.trainer.is_last_batch:
            return f"{self.current_epoch + 1} epochs"
        steps = f"{loop.batch_idx + 1} of {self.trainer.num_training_batches} steps"
        return f"{self.current_epoch} epochs and {steps} of the next"


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Convert to plain text and lists, which a weights_only load accepts."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def band_mean(config: PretrainConfig) -> float:
    """Return a band's mean in the network's units, the value of hidden pixels."""
    return _MEAN[config.model.normalization]


def no_teacher() -> ConfigError:
    """Return the error of a run without an EMA teacher."""
    return ConfigError(
        "the run has no teacher",
        found="terms that need none",
        expected="student",
        where="monitor.branch",
        remedy="--monitor.branch student",
    )


def fresh_norms_needed(config: PretrainConfig, branch: str) -> bool:
    """Whether a branch's batch norm statistics are of other images than its future input.

    This is so for a student that saw masked images, for the moving average of the multi-label
    control, which saw no images, and for both branches if there were two sensors.

    Args:
        config: All settings.
        branch: `student` or `teacher`.
    """
    method = config.method
    if config.data.views == "sensors":
        return True
    if branch == "teacher":  # the moving average of multi-label alone sees no image
        return {choice.name for choice in method.chosen} == {Objective.MULTILABEL}
    return method.mask is MaskForm.PIXELS and method.mask_ratio > 0
