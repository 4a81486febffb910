"""A plain network with a recipe as a source of features: a user's own encoder, or a control.

The harness prepares the pixels by the recipe; the network never sees physical units.

Shapes: B images, C bands, H by W pixels, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from eofm import io
from eofm.bench.flags import CHANGED_WHY
from eofm.bench.models.sources import (
    Identity,
    Trainee,
    check_evaluating,
    check_vectors,
    input_size,
)
from eofm.contract.imagery import Imagery
from eofm.contract.prepare import preprocess_for
from eofm.contract.recipe import Recipe, Waiver
from eofm.contract.spec import ImageSpec
from eofm.errors import ConfigError, WeightsError
from eofm.networks.state import state_sha256
from eofm.probes.linear import Scaling
from eofm.weights.encoder import Encoder


@final
class NetworkSource:
    """A network from normalised pixels (B, C, H, W) to features (B, D), frozen.

    Args:
        name: Name in tables.
        network: In evaluation mode.
        recipe: What it expects.
        about: Where it comes from, in words.
        control: Whether it is a yardstick.
        waivers: Exceptions it is granted.
        scaling: What a probe does to its features first.
        changed: What of its recipe was changed on purpose, in words.
        trained_on: What its weights saw before, in words; empty if that is not declared.

    Raises:
        WeightsError: If a part of the network is in training mode.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        recipe: Recipe,
        about: str,
        *,
        control: bool = False,
        waivers: Sequence[Waiver] = (),
        scaling: Scaling = Scaling.NONE,
        changed: Sequence[str] = (),
        trained_on: str = "",
    ) -> None:
        self.name, self.scaling = name, scaling
        self._trained_on = trained_on
        self._marks = tuple(f"{text}: {CHANGED_WHY}" for text in changed)
        self._network, self._recipe = network, recipe
        self._about, self._control, self._waivers = about, control, tuple(waivers)
        self._check_mode()
        self._state = state_sha256(network)

    def identity(self, spec: ImageSpec) -> Identity:
        """Return its weights, recipe and plan.

        Raises:
            SpecMismatch: If the network cannot take such images.
        """
        plan = preprocess_for(spec, self._recipe, self._waivers).plan
        recipe = json.dumps(self._recipe.to_dict(), sort_keys=True)
        return Identity(
            name=self.name,
            control=self._control,
            about=self._about,
            weights_sha256=self._state,
            recipe_sha256=hashlib.sha256(recipe.encode()).hexdigest(),
            plan_sha256=plan.hash,
            plan=tuple(plan.describe().splitlines()),
            waivers=(*(str(waiver) for waiver in plan.waivers), *self._marks),
            size=input_size(plan),
            trained_on=self._trained_on,
            recipe=recipe,
        )

    @property
    def network(self) -> nn.Module:
        """The network."""
        return self._network

    @torch.no_grad()
    def embed(self, imagery: Imagery) -> Tensor:
        """Return features: float32 (B, D), on the CPU.

        Raises:
            WeightsError: If the network returns something else.
            PixelError: If a feature is not finite.
        """
        device = next(iter(self._network.state_dict().values()), torch.empty(0)).device
        step = preprocess_for(imagery.spec, self._recipe, self._waivers)
        found: object = self._network(step(imagery.to(device)).pixels)
        return check_vectors(found, len(imagery), self.name).float().cpu()

    @property
    def trainee(self) -> Trainee | None:
        """The network, to be trained with a head; None if there is nothing in it to train."""
        if not any(True for _ in self._network.parameters()):
            return None
        return Trainee(self.name, self._network, None, self._recipe, self._waivers)

    def check_frozen(self) -> None:
        """Raise if a parameter or buffer has changed since the start, or a part is in training.

        Raises:
            WeightsError: If so.
        """
        self._check_mode()
        if state_sha256(self._network) != self._state:
            raise WeightsError(
                "the network changed while its features were computed",
                where=self.name,
                remedy="features of a moving network are not comparable: parameters and buffers "
                "must stay as they are",
            )

    def _check_mode(self) -> None:
        check_evaluating(self._network, self.name, "call .eval() before you hand it over")


# ------------------------------------------------------------------------- module:function


def load_own(reference: str) -> Encoder | tuple[nn.Module, Recipe]:
    """Call a user's function, which returns an encoder.

    Args:
        reference: `package.module:function`, or `path/to/file.py:function`. The working directory
            is looked in first.

    Returns:
        An `eofm.Encoder`, or a network with the recipe of what it expects.

    Raises:
        ConfigError: If there is no such function, it fails, or returns something else.
    """
    try:
        function = io.load_own(reference)
        made: object = function() if callable(function) else None
    except Exception as error:
        raise ConfigError(
            "an encoder of your own cannot be made",
            found=f"{type(error).__name__}: {error}",
            where=reference,
            remedy="the part before : is a module that can be imported, or a .py file; the part "
            "after it a function without arguments",
        ) from error
    if isinstance(made, Encoder):
        return made
    if (
        isinstance(made, tuple)
        and len(made) == 2
        and isinstance(made[0], nn.Module)
        and isinstance(made[1], Recipe)
    ):
        return made[0], made[1]
    raise ConfigError(
        "a function of your own must return a network and its recipe",
        found=type(made).__name__,
        expected="(torch.nn.Module, eofm.Recipe), or an eofm.Encoder",
        where=reference,
    )
