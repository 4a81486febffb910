"""From windows of pixels to vectors: an encoder with its one plan, on its device.

Shapes: B windows, C bands, H by W pixels, T patches at the side of a window, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from eofm.contract.imagery import Imagery
from eofm.contract.prepare import preprocess_for
from eofm.contract.preprocess import ConvertUnit, Plan, SelectBands, plan
from eofm.contract.recipe import (
    FORCEABLE,
    FORCED_WHY,
    AcceptScale,
    Waiver,
    default_recipe,
    waivers_for,
)
from eofm.contract.spec import ImageSpec
from eofm.devices import device_of
from eofm.errors import ConfigError, MismatchKind, PixelError, SpecMismatch, WeightsError
from eofm.geo.embedding.config import EmbedConfig
from eofm.geo.vectors.embeddings import Layout
from eofm.networks.build import default_pooling
from eofm.networks.state import state_sha256
from eofm.weights.encoder import Encoder
from eofm.weights.load import load_weights
from eofm.weights.resolve import RANDOM, WeightsKind, resolve

_SIZE: Final = 224  # of networks whose weights state none


def encoder_of(config: EmbedConfig, spec: ImageSpec) -> Encoder:
    """Return the encoder that the settings name, on its device.

    Weights that do not say what they expect (untrained ones, those of timm) are given the recipe
    that the benchmark gives them: all bands of the scene, z-scored by published statistics.

    Args:
        config: The settings.
        spec: What the pixels are.

    Raises:
        WeightsError: If there are no such weights, or they do not fit.
        ConfigError: If the device is not there.
    """
    device = device_of(config.device)
    found = resolve(config.model)
    recipe = None
    if found.kind in {WeightsKind.TIMM, WeightsKind.RANDOM}:
        name = found.name or "vits14"
        if found.text == RANDOM:
            name = "vits14"
        size = config.size or _SIZE
        recipe = default_recipe(spec, (size, size), default_pooling(name))
    elif config.size is not None:
        raise ConfigError(
            "these weights state the size of their input themselves",
            found=f"--size {config.size}",
            where=config.model,
            remedy="leave out --size",
        )
    return load_weights(config.model, card=config.card, recipe=recipe).to(device)


def waivers_of(spec: ImageSpec, encoder: Encoder, force: Sequence[str]) -> tuple[Waiver, ...]:
    """Return the exceptions that a plan needs, of those that are forced.

    Args:
        spec: What the windows are.
        encoder: The network.
        force: Words of `--force`.
    """
    forced = [kind for kind in FORCEABLE if kind.value in force]
    waivers = waivers_for(spec, encoder.recipe, (), forced)
    if MismatchKind.SCALE.value in force:
        try:
            plan(spec, encoder.recipe, waivers)
        except SpecMismatch as error:
            if error.kind is MismatchKind.SCALE:
                return (*waivers, AcceptScale(FORCED_WHY))
    return waivers


class Network:
    """An encoder for windows of one kind.

    Attributes:
        plan: From pixels to the network's input.

    Args:
        encoder: The network, on its device.
        spec: What the windows are.
        waivers: Exceptions it is granted.

    Raises:
        SpecMismatch: If the windows do not fit the network.
    """

    def __init__(self, encoder: Encoder, spec: ImageSpec, waivers: Sequence[Waiver] = ()) -> None:
        self.encoder = encoder.eval()
        self._step = preprocess_for(spec, encoder.recipe, waivers)
        self._weight = next(encoder.trunk.parameters())
        self.plan: Plan = self._step.plan
        self.sha256 = encoder.card.sha256 or state_sha256(encoder)

    @property
    def dim(self) -> int:
        """D."""
        return self.encoder.dim

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._weight.device

    def _prepared(self, imagery: Imagery) -> torch.Tensor:
        prepared: Imagery = self._step(imagery.to(self._weight.device, non_blocking=True))
        return prepared.pixels.to(self._weight.dtype)

    @torch.inference_mode()
    def chips(self, imagery: Imagery) -> NDArray[np.float32]:
        """Return one vector for each window, (B, D).

        Raises:
            PixelError: If a window holds no valid pixel, or a vector is not finite.
        """
        return self._finite(self.encoder(self._prepared(imagery)))

    @torch.inference_mode()
    def patches(self, imagery: Imagery) -> NDArray[np.float32]:
        """Return one vector for each patch, (B, T, T, D).

        Raises:
            PixelError: If a window holds no valid pixel, or a vector is not finite.
        """
        tokens = self.encoder.forward_features(self._prepared(imagery))
        vectors = self._finite(tokens[:, self.encoder.trunk.prefix :])
        side = math.isqrt(vectors.shape[1])
        return vectors.reshape(len(vectors), side, side, -1)

    def _finite(self, vectors: torch.Tensor) -> NDArray[np.float32]:
        if not bool(torch.isfinite(vectors).all()):
            raise PixelError(
                "the network returned vectors that are not finite", where=self.encoder.card.name
            )
        found: NDArray[np.float32] = vectors.float().cpu().numpy()
        return found

    @property
    def tokens(self) -> int:
        """Patches at the side of a window, T.

        Raises:
            WeightsError: If the network has no square grid of patches.
        """
        rows, columns = self.encoder.trunk.grid
        size = self.plan.target.size
        if rows != columns or size != self.encoder.recipe.size:
            raise WeightsError(
                "a patch grid needs a square network",
                found=f"{rows} x {columns} patches",
                where=self.encoder.card.name,
            )
        return rows

    def way(self, layout: Layout) -> str:
        """Return the hash of all that makes vectors comparable: see `Provenance.way_hash`."""
        steps = [
            [type(step).__name__, asdict(step)]
            for step in self.plan.steps
            if not isinstance(step, (ConvertUnit, SelectBands))
        ]
        target = asdict(self.plan.target)
        # on a grid in degrees the metres of a pixel change with the latitude, in the third digit
        target["gsd"] = f"{self.plan.target.gsd:.2g}"
        content = {
            "weights": self.sha256,
            "target": target,
            "steps": steps,
            "waivers": [[type(w).__name__, asdict(w)] for w in self.plan.waivers],
            "token": "patch" if layout is Layout.PATCHES else self.encoder.recipe.pooling,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
