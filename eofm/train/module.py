"""The training step as a LightningModule; the method itself is `eofm.softcon`.

On the device: native planes -> one grid -> `Preprocess` -> two views -> student and teacher ->
loss. The teacher follows once per optimiser step, so gradient accumulation adds no updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eofm import softcon
from eofm.errors import TrainingError
from eofm.imagery import Imagery, Labels, NativeImagery
from eofm.models.trunk import Trunk
from eofm.preprocess import Plan, Preprocess, to_grid
from eofm.recipe import Recipe
from eofm.train.augment import Views
from eofm.train.config import PretrainConfig
from eofm.train.paces import Pace, paces, parameter_groups
from eofm.train.recipe import shows_colour
from eofm.train.schedule import Course, Fall, Kind, momentum_over_steps, rate_over_steps
from eofm.train.stage import PARAMETERS, Stage, hand_on, take_up

# Under this key a checkpoint carries all that is needed to make an encoder of it.
CHECKPOINT_KEY: Final = "eofm"


def settings_of(config: PretrainConfig) -> softcon.SoftConSettings:
    """Return the method's settings in its own terms."""
    method = config.method
    return softcon.SoftConSettings(
        tau=method.tau,
        soft_tau=method.soft_tau,
        soft_weight=method.soft_weight,
        soft_form=softcon.SoftForm(method.soft_form),
        similarity=softcon.LabelSimilarity(method.similarity),
        mask_ratio=method.mask_ratio,
        symmetric=method.symmetric,
        hidden=method.hidden,
        out=method.dim,
        head_norm=softcon.HeadNorm(method.head_norm),
    )


def course_of(config: PretrainConfig) -> Course:
    """Return the course of the learning rate in its own terms."""
    optim = config.optim
    kind = Kind(optim.schedule)
    shape = optim.anneal_shape
    if shape == "auto":
        shape = "linear" if kind is Kind.WSD else "exponential"
    return Course(
        kind=kind,
        warmup=optim.warmup,
        floor=optim.floor,
        cooldown=optim.cooldown,
        constant=optim.constant,
        cooldown_shape=Fall(optim.cooldown_shape),
        anneal=optim.anneal,
        anneal_shape=Fall(shape),
        continued=config.model.continue_from is not None,
    )


class PretrainModule(L.LightningModule):
    """One SoftCon run.

    Args:
        trunk: The network to train.
        config: All settings.
        plan: From the store's imagery to normalised pixels of the same size.
        recipe: What the network eats; goes into every checkpoint.
        mean_similarity: Mean label similarity of the training scenes.
        card: Fields of the export's card that the checkpoint must carry.
        generator: Source of the heads' initial weights.
        new_input: The input layer was not loaded as it stands in the weights: it learns at full
            pace, whatever `optim.layer_decay`.
    """

    def __init__(
        self,
        trunk: Trunk,
        config: PretrainConfig,
        plan: Plan,
        recipe: Recipe,
        mean_similarity: float,
        card: Mapping[str, Any],
        generator: torch.Generator,
        *,
        new_input: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.seasons = config.data.views != "crops"
        self.new_input = new_input
        self.course = course_of(config)
        self.stage: Stage | None = None
        self.recipe = recipe
        self.card = dict(card)
        self.method = softcon.SoftCon(trunk, settings_of(config), generator, mean_similarity)
        self.preprocess = Preprocess(plan)
        self.views = Views(
            recipe.size[0],
            config.augment,
            clip=recipe.normalization.clip,
            colour=shows_colour(recipe.sensor),
        )
        # masks come from a source of their own, so that they do not depend on the views
        self.masks = torch.Generator().manual_seed(config.optim.seed)

    def two_views(self, native: NativeImagery) -> tuple[Imagery, Tensor, Tensor]:
        """Return the normalised batch and its two random views, (B, C, S, S) each.

        Both are of the same B images; or, where the views are seasons, the batch holds 2B images,
        and the first view is of the first half, the second of the second.
        """
        with torch.no_grad():
            imagery = self.preprocess(to_grid(native))
            first = second = imagery.pixels
            if self.seasons:
                first, second = imagery.pixels.chunk(2)
            return imagery, self.views(first), self.views(second)

    def _of_views(self, labels: Labels) -> Labels | tuple[Labels, Labels]:
        """Return the labels of both views, or of each where they are seasons."""
        if not self.seasons:
            return labels
        hot, known = labels.multi_hot.chunk(2), labels.known.chunk(2)
        return Labels(hot[0], known[0]), Labels(hot[1], known[1])

    def training_step(self, batch: tuple[NativeImagery, Labels], batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            TrainingError: If the loss is not finite.
        """
        native, labels = batch
        _, first, second = self.two_views(native)
        output = self.method((first, second), self._of_views(labels), self.masks)
        if not torch.isfinite(output.loss):
            raise TrainingError(
                "the loss is not finite",
                found=f"{output.loss.item()} (hard {output.hard:.4g}, soft {output.soft:.4g})",
                where=f"step {self.global_step}",
                remedy="lower optim.lr, lengthen optim.warmup, or look for broken scenes",
            )
        self.log_dict(
            {
                "loss": output.loss.detach(),
                "hard": output.hard,
                "soft": output.soft,
                "soft_excess": output.soft_excess,
                "own_probability": output.own_probability,
                "embedding_std": output.spread,
                "labelled_pairs": output.labelled_pairs,
                "momentum": torch.tensor(self._momentum()),
                "lr": torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"]),
            },
            batch_size=len(labels),
            prog_bar=False,
        )
        loss: Tensor = output.loss
        return loss

    def _momentum(self) -> float:
        total = int(self.trainer.estimated_stepping_batches)
        base = self.config.method.momentum
        return momentum_over_steps(self.global_step, total, base, self.course)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the step, then move the teacher."""
        momentum = self._momentum()
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        softcon.update_teacher(self.method.teacher, self.method.student, momentum)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's own type is a union of nine)
        """Return the optimiser with its schedule per step, and each layer at its own pace."""
        optim = self.config.optim
        total = int(self.trainer.estimated_stepping_batches)
        groups = parameter_groups(
            self.method.named_parameters(),
            optim.weight_decay,
            optim.lr * optim.batch / 256,
            self._paces(),
            tables_decay=optim.decay == "dinov2",
        )
        optimizer: Optimizer
        if optim.optimizer == "sgd":
            optimizer = SGD(groups, momentum=0.9, fused=True)
        else:
            optimizer = AdamW(groups, betas=(0.9, 0.999), fused=True)
        frozen = total // optim.epochs * optim.freeze_epochs
        warmup = round(optim.warmup * total)
        rates = [
            rate_over_steps(total, warmup, frozen if g["waits"] else 0, self.course) for g in groups
        ]
        if self.stage is not None:
            take_up(optimizer, self._optimized(optimizer), self.stage, optim.optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, rates), "interval": "step"},
        }

    def continue_stage(self, stage: Stage) -> None:
        """Go on with the networks, the heads and the optimizer of an earlier stage.

        Raises:
            WeightsError: If its networks are not like these.
        """
        hand_on(stage, self.method)
        self.stage, self.new_input = stage, False

    def _optimized(self, optimizer: Optimizer) -> list[str]:
        """Return the names of the optimizer's parameters, in the order in which it counts them."""
        names = {id(parameter): name for name, parameter in self.method.named_parameters()}
        return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]

    def _paces(self) -> dict[str, Pace]:
        """Return the pace of the student's trunk by parameter name; the heads have no other."""
        trunk: Trunk = self.method.student.trunk  # type: ignore[assignment]
        optim = self.config.optim
        made = paces(
            trunk, optim.layer_decay, freeze=optim.freeze_epochs > 0, new_input=self.new_input
        )
        return {f"student.trunk.{name}": pace for name, pace in made.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put recipe, card, settings and the state of every random source into the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = {
            "recipe": self.recipe.to_dict(),
            "architecture": self.config.model.architecture,
            "positions": self.config.model.position,
            "card": self.card,
            "config": _plain(asdict(self.config)),
            "progress": self._progress(),
            PARAMETERS: self._optimized(self.trainer.optimizers[0]),
            "masks": self.masks.get_state(),
            "torch": torch.get_rng_state(),
        }

    def _progress(self) -> str:
        """Say how far training is, in the words of an export's card."""
        loop = self.trainer.fit_loop
        if self.trainer.is_last_batch:
            return f"{self.current_epoch + 1} epochs"
        steps = f"{loop.batch_idx + 1} of {self.trainer.num_training_batches} steps"
        return f"{self.current_epoch} epochs and {steps} of the next"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the random numbers where the checkpoint left them."""
        saved = checkpoint[CHECKPOINT_KEY]
        self.masks.set_state(saved["masks"])
        torch.set_rng_state(saved["torch"])


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return the value with tuples as lists: what a weights_only load accepts and YAML prints."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
