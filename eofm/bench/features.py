"""Frozen features: computed once per model and data, kept under a key of both.

The key is the sha256 of what the features depend on: weights, recipe, plan (with its waivers),
the bytes of the images, and the version of this code. A run's name is not part of it, so a
changed network cannot meet another's features.

Shapes: B images of a batch, N of a split, D features.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from eofm.errors import DataError, WeightsError
from eofm.imagery import Imagery
from eofm.models.card import Card
from eofm.models.encoder import Encoder
from eofm.probe import Scaling, check_features
from eofm.recipe import Waiver
from eofm.spec import ImageSpec

# Raise it when the same weights and images would give other features.
FEATURE_CODE: Final = 1


@dataclass(frozen=True)
class Identity:
    """What a model is, as far as its features depend on it. Goes into every record.

    Args:
        name: Name in tables.
        control: Whether it is a yardstick rather than a candidate.
        about: Where the weights come from, in words.
        weights_sha256: Of the weights file; empty for a control without weights.
        recipe_sha256: Of what the network eats; empty for a control.
        plan_sha256: Of the way from the task's images to the network; empty for a control.
        plan: The same in words.
        waivers: Exceptions it makes, with reasons.
    """

    name: str
    control: bool
    about: str
    weights_sha256: str
    recipe_sha256: str
    plan_sha256: str
    plan: tuple[str, ...]
    waivers: tuple[str, ...]


class FeatureSource(Protocol):
    """Anything that turns imagery in physical units into feature vectors."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    @property
    def scaling(self) -> Scaling:
        """What a probe does to its features first."""
        ...

    def identity(self, spec: ImageSpec) -> Identity:
        """Return what it is, for images of this kind.

        Raises:
            SpecMismatch: If it cannot take such images.
        """
        ...

    def embed(self, imagery: Imagery) -> Tensor:
        """Return features: float32 (B, D), on the CPU."""
        ...

    def check_frozen(self) -> None:
        """Raise if embedding has changed it."""
        ...


@final
class EncoderSource:
    """An encoder, frozen.

    Args:
        name: Name in tables.
        encoder: The network with its recipe.
        control: Whether it is a yardstick.
        waivers: Exceptions it is granted.
    """

    scaling = Scaling.NONE

    def __init__(
        self, name: str, encoder: Encoder, *, control: bool = False, waivers: Sequence[Waiver] = ()
    ) -> None:
        self.name = name
        self._control = control
        self._encoder = encoder.eval()
        self._waivers = tuple(waivers)
        self._state = state_sha256(encoder)

    def identity(self, spec: ImageSpec) -> Identity:
        """Return its weights, recipe and plan.

        Raises:
            SpecMismatch: If the encoder cannot take such images.
        """
        plan = self._encoder.plan_for(spec, self._waivers)
        card = self._encoder.card
        recipe = json.dumps(self._encoder.recipe.to_dict(), sort_keys=True)
        return Identity(
            name=self.name,
            control=self._control,
            about=_about(card),
            weights_sha256=card.sha256 or self._state,
            recipe_sha256=hashlib.sha256(recipe.encode()).hexdigest(),
            plan_sha256=plan.hash,
            plan=tuple(plan.describe().splitlines()),
            waivers=tuple(str(waiver) for waiver in plan.waivers),
        )

    def embed(self, imagery: Imagery) -> Tensor:
        """Return the embeddings, through the encoder's own plan."""
        return self._encoder.embed(imagery, self._waivers).cpu()

    def check_frozen(self) -> None:
        """Raise if a parameter or buffer has changed since the start.

        A network left in train mode moves its batch-norm statistics while it is "frozen".

        Raises:
            WeightsError: If one has.
        """
        if state_sha256(self._encoder) != self._state:
            raise WeightsError(
                "the network changed while its features were computed",
                where=self.name,
                remedy="features of a moving network are not comparable: keep it in eval mode",
            )


def _about(card: Card) -> str:
    text = f"{card.architecture}, {card.source}"
    if card.objective != "none":
        text += f", trained on {card.training_data}"
    if card.synthetic and "synthetic" not in text.lower():
        text += " (synthetic)"
    return text


def state_sha256(module: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers, with names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


# ---------------------------------------------------------------------------- extraction


@dataclass(frozen=True)
class FeatureCache:
    """Features on disk, one folder per key: `features.npy`, `meta.json`, `DONE`.

    Args:
        root: The folder; None keeps nothing.
    """

    root: Path | None

    def key(self, source: FeatureSource, spec: ImageSpec, data_sha256: str) -> str:
        """Return the key of one model's features of one split.

        Args:
            source: The model.
            spec: What the images are.
            data_sha256: Of ids and bytes of the images, in order.
        """
        identity = source.identity(spec)
        content = {
            "code": FEATURE_CODE,
            "spec": repr(spec),
            "kind": type(source).__name__,
            "weights": identity.weights_sha256,
            "recipe": identity.recipe_sha256,
            "plan": identity.plan_sha256,
            "data": data_sha256,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def load(self, key: str, rows: int) -> Tensor | None:
        """Return the features under a key, or None where there are none, or not whole ones."""
        if self.root is None or not (self.root / key / "DONE").is_file():
            return None
        try:
            features = np.load(self.root / key / "features.npy")
        except (OSError, ValueError):
            return None
        fits = features.ndim == 2 and len(features) == rows and features.dtype == np.float32
        return torch.from_numpy(features) if fits else None

    def store(self, key: str, features: Tensor, meta: Mapping[str, object]) -> None:
        """Write features under a key: whole, or not at all.

        Raises:
            DataError: If the folder cannot be written.
        """
        if self.root is None:
            return
        final, temporary = self.root / key, self.root / f".{key}.{os.getpid()}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            np.save(temporary / "features.npy", features.numpy())
            (temporary / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
            (temporary / "DONE").touch()
            shutil.rmtree(final, ignore_errors=True)  # what `load` would not take
            temporary.rename(final)
        except OSError as error:
            raise DataError(
                "features cannot be kept",
                found=error,
                where=self.root,
                remedy="name another folder with --cache, or none: --cache ''",
            ) from error


def extract(
    sources: Sequence[FeatureSource],
    spec: ImageSpec,
    data_sha256: str,
    rows: int,
    batches: Callable[[], Iterable[Imagery]],
    cache: FeatureCache,
) -> dict[str, Tensor]:
    """Return the features of one split for every model; pixels are read once for all.

    Args:
        sources: The models.
        spec: What the images are.
        data_sha256: Of ids and bytes of the images, in order.
        rows: Number of images, N.
        batches: Opens the images, in order. Not called when all features are in the cache.
        cache: Where features are kept.

    Returns:
        Name of the model -> float32 (N, D).

    Raises:
        WeightsError: If a network changed while it embedded.
        PixelError: If features are not finite or all zero.
        DataError: If the images yield another number of features than expected.
    """
    keys = {source.name: cache.key(source, spec, data_sha256) for source in sources}
    features: dict[str, Tensor] = {}
    for name, key in keys.items():
        known = cache.load(key, rows)
        if known is not None:
            features[name] = known
    missing = [source for source in sources if source.name not in features]
    if not missing:
        return features
    parts: dict[str, list[Tensor]] = {source.name: [] for source in missing}
    for imagery in batches():
        for source in missing:
            parts[source.name].append(source.embed(imagery))
    for source in missing:
        source.check_frozen()
        fresh = torch.cat(parts[source.name])
        if len(fresh) != rows:
            raise DataError(
                "a split lost samples on its way",
                found=f"{len(fresh)} features",
                expected=f"{rows} images",
                where=source.name,
            )
        check_features(fresh)
        about = source.identity(spec).about
        meta = {"model": source.name, "about": about, "rows": rows, "data_sha256": data_sha256}
        cache.store(keys[source.name], fresh, meta)
        features[source.name] = fresh
    return features
