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
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eofm import softcon
from eofm.errors import TrainingError
from eofm.imagery import Imagery, Labels, NativeImagery
from eofm.models.vit import ViT
from eofm.preprocess import Plan, Preprocess, to_grid
from eofm.recipe import Recipe
from eofm.train.augment import Views
from eofm.train.config import PretrainConfig
from eofm.train.recipe import shows_colour
from eofm.train.schedule import cosine, parameter_groups

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
    """

    def __init__(
        self,
        trunk: ViT,
        config: PretrainConfig,
        plan: Plan,
        recipe: Recipe,
        mean_similarity: float,
        card: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config = config
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
        """Return the normalised batch and two random views of it, (B, C, S, S) each."""
        with torch.no_grad():
            imagery = self.preprocess(to_grid(native))
            return imagery, self.views(imagery.pixels), self.views(imagery.pixels)

    def training_step(self, batch: tuple[NativeImagery, Labels], batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            TrainingError: If the loss is not finite.
        """
        native, labels = batch
        _, first, second = self.two_views(native)
        output = self.method((first, second), labels, self.masks)
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
        return softcon.momentum_at(self.global_step, total, self.config.method.momentum)

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
        """Return AdamW with a cosine schedule per step."""
        optim = self.config.optim
        rate = optim.lr * optim.batch / 256
        total = int(self.trainer.estimated_stepping_batches)
        warmup = round(optim.warmup * total)
        groups = parameter_groups(self.method.named_parameters(), optim.weight_decay)
        optimizer = AdamW(groups, lr=rate, betas=(0.9, 0.999), fused=True)
        # the schedule is counted from 1: a first step at rate 0 would be lost
        schedule = LambdaLR(optimizer, lambda step: cosine(step + 1, total + 1, warmup, 1.0))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put recipe, card, settings and the state of every random source into the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = {
            "recipe": self.recipe.to_dict(),
            "architecture": self.config.model.architecture,
            "positions": self.config.model.position,
            "card": self.card,
            "config": _plain(asdict(self.config)),
            "epoch": int(self.current_epoch) + 1,
            "masks": self.masks.get_state(),
            "torch": torch.get_rng_state(),
        }

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
