"""The frozen teacher of a term: any weights by name, fed by the recipe on their own card.

A teacher may expect other bands, another size and another normalisation than the student, or be of
the other sensor. So its input is not the student's view: it is made of the same images as they are
stored, by the teacher's own plan, and cut by the same crop, flipped alike, without colour and blur.

Shapes: B images, C bands, H by W pixels, S by S pixels of the teacher's input, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, final

from jaxtyping import Float
from torch import Tensor, nn

from eofm.contract.preprocess import Preprocess, to_grid
from eofm.contract.spec import ImageSpec
from eofm.errors import EofmError, SpecMismatch
from eofm.loading.loader import Pixels
from eofm.networks.trunk import Trunk
from eofm.train.datamodule import training_plan
from eofm.weights.encoder import Encoder
from eofm.weights.encoder_card import serialise, sha256
from eofm.weights.load import load_weights


@final
class FrozenTeacher(nn.Module):
    """An encoder that stays in evaluation mode and gets no gradient.

    Its network is not a part of the module: it is in no checkpoint, optimizer or gradient of the
    run, nothing wraps it, and it is moved to the device with everything else.

    Args:
        encoder: Network, recipe and card.
        specs: What the stores hold: that of the run, and of its second sensor if there is one.

    Attributes:
        sha256: Of its weights: of a checkpoint's network, whose card has none, of its export.

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
        """Move the network as well, to a device or to another precision."""
        self.trunk._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def trunk(self) -> Trunk:
        """The network."""
        return self._hidden[0]

    @property
    def dim(self) -> int:
        """Width of its vector, D."""
        return self.trunk.dim

    @property
    def size(self) -> int:
        """Side of its input in pixels, S."""
        return self.trunk.size[0]

    def prepare(self, native: Pixels) -> Float[Tensor, "b c h w"]:
        """Return the images of a batch, whole, as the teacher expects them, (B, C, H, W).

        Args:
            native: As stored: of one sensor, or of both, of which the teacher takes its own.
        """
        images = native[self.store] if isinstance(native, tuple) else native
        prepared: Tensor = self.preprocess(to_grid(images)).pixels
        return prepared

    def forward(self, pixels: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Return one vector per image, (B, D)."""
        vectors: Tensor = self.trunk(pixels)
        return vectors

    def describe(self) -> str:
        """Return who it is, in the words of a card."""
        return f"{self.card.name}, licence {self.card.licence}, sha256 {self.sha256[:16]}"


def open_teacher(weights: str, specs: Sequence[ImageSpec]) -> FrozenTeacher:
    """Return the frozen teacher that a term names.

    Args:
        weights: In any form that `eofm.weights.load.load_weights` takes by name alone.
        specs: What the stores of the run hold.

    Raises:
        WeightsError: If there are no such weights, or they do not say what they expect.
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
