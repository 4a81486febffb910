"""Frozen features: of every model of a task, with the pixels read once for all of them.

They are kept in `eofm.bench.cache`.

Shapes: B images of a batch, N of a split, D features.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, final

import torch
from torch import Tensor, nn

from eofm.bench.cache import FeatureCache, Key, classes_sha256, code_sha256
from eofm.bench.trainee import Trainee
from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import Plan
from eofm.contract.recipe import CHECKED, Waiver
from eofm.contract.spec import ImageSpec
from eofm.errors import DataError, PixelError, WeightsError
from eofm.probes.linear import Scaling, check_features
from eofm.weights.encoder import Encoder
from eofm.weights.encoder_card import Card

# Batches read ahead of the networks.
_AHEAD: Final = 2


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
        size: Pixels at a side of what the network is fed; 0 for a control without a plan.
        trained_on: What its weights saw before, in words; empty if that is not declared.
        recipe: What the network eats, as the JSON of which `recipe_sha256` is; a line per sensor.
    """

    name: str
    control: bool
    about: str
    weights_sha256: str
    recipe_sha256: str
    plan_sha256: str
    plan: tuple[str, ...]
    waivers: tuple[str, ...]
    size: int = 0
    trained_on: str = ""
    recipe: str = ""


def joined(name: str, parts: Sequence[Identity]) -> Identity:
    """Return what a model is that has a part for each sensor; of one part, that part.

    Args:
        name: Of the model in tables.
        parts: In the order of the task's sensors.
    """
    if len(parts) == 1:
        return parts[0]
    return Identity(
        name=name,
        control=all(part.control for part in parts),
        about=" + ".join(part.about for part in parts),
        weights_sha256=_joined([part.weights_sha256 for part in parts]),
        recipe_sha256=_joined([part.recipe_sha256 for part in parts]),
        plan_sha256=_joined([part.plan_sha256 for part in parts]),
        plan=tuple(line for part in parts for line in part.plan),
        waivers=tuple(dict.fromkeys(w for part in parts for w in part.waivers)),
        size=parts[0].size,
        trained_on=" + ".join(dict.fromkeys(p.trained_on for p in parts if p.trained_on)),
        recipe="\n".join(p.recipe for p in parts) if any(p.recipe for p in parts) else "",
    )


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("+".join(hashes).encode()).hexdigest() if any(hashes) else ""


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

    @property
    def network(self) -> nn.Module | None:
        """What computes the features, if it is a network."""
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

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self._encoder

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
            size=input_size(plan),
            trained_on=card.training_data,
            recipe=recipe,
        )

    def embed(self, imagery: Imagery) -> Tensor:
        """Return the embeddings, through the encoder's own plan."""
        return self._encoder.embed(imagery, (*self._waivers, CHECKED)).cpu()

    @property
    def trainee(self) -> Trainee:
        """The network, to be trained with a head or read layer by layer."""
        encoder = self._encoder
        return Trainee(self.name, encoder.trunk, encoder.trunk, encoder.recipe, self._waivers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of the recipe's size."""
        return self._encoder.trunk.grid

    def tokens(self, imagery: Imagery) -> Tensor:
        """Return the patch tokens, float32 (B, P, D) on the CPU, through the encoder's own plan.

        Raises:
            WeightsError: If there is not one token per patch.
            PixelError: If a token is not finite.
        """
        found = self._encoder.features(imagery, (*self._waivers, CHECKED)).cpu()
        rows, columns = self.grid
        if found.shape[1] != rows * columns:
            raise WeightsError(
                "a network returned another number of patches than it has",
                found=found.shape[1],
                expected=f"{rows} x {columns}",
                where=self.name,
            )
        if not torch.isfinite(found).all():
            raise PixelError("an encoder returned tokens that are not finite", where=self.name)
        return found

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


def input_size(plan: Plan) -> int:
    """Return the height in pixels of what a plan feeds a network."""
    return plan.target.size[0] if plan.target.size else 0


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


def key_of(source: FeatureSource, spec: ImageSpec, data_sha256: str) -> Key:
    """Return under what the features of one model of one split are kept.

    Args:
        source: The model.
        spec: What the images are.
        data_sha256: Of ids and bytes of the images, in order.
    """
    identity, network = source.identity(spec), source.network
    return Key(
        {
            "code": code_sha256(inspect.getfile(type(source))),
            "network": classes_sha256(network) if network is not None else "",
            "spec": repr(spec),
            "kind": type(source).__name__,
            # what has no weights is what it says of itself
            "about": "" if identity.weights_sha256 else identity.about,
            "weights": identity.weights_sha256,
            "recipe": identity.recipe_sha256,
            "plan": identity.plan_sha256,
            "data": data_sha256,
            "dtype": "float32",
        }
    )


def extract(
    sources: Sequence[FeatureSource],
    spec: ImageSpec,
    data_sha256: str,
    rows: int,
    batches: Callable[[], Iterable[Imagery]],
    cache: FeatureCache,
) -> dict[str, Tensor]:
    """Return the features of one split for every model; pixels are read once for all.

    The next batches are read while the networks compute on this one.

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
    keys = {source.name: key_of(source, spec, data_sha256) for source in sources}
    features: dict[str, Tensor] = {}
    for name, key in keys.items():
        known = cache.load(key, rows)
        if known is not None:
            features[name] = known
    missing = [source for source in sources if source.name not in features]
    if not missing:
        return features
    parts: dict[str, list[Tensor]] = {source.name: [] for source in missing}
    for imagery in ahead(batches()):
        for source in missing:
            parts[source.name].append(source.embed(imagery))
    for source in missing:
        source.check_frozen()
        fresh = torch.cat(parts.pop(source.name))
        _check_rows(fresh, rows, source.name)
        try:
            check_features(fresh)
        except PixelError as error:
            error.where = source.name
            raise
        about = {"model": source.name, "about": source.identity(spec).about, "rows": rows}
        cache.store(keys[source.name], fresh, about)
        features[source.name] = fresh
    return features


def ahead(batches: Iterable[Imagery], count: int = _AHEAD) -> Iterator[Imagery]:
    """Yield the same batches in order, reading up to `count` of them in advance in a thread.

    Decoding releases the interpreter, so the network need not wait for the disk.

    Args:
        batches: What to read.
        count: How many batches are held.

    Yields:
        The batches. What reading raises is raised here, at its place in the order.
    """
    source = iter(batches)
    waiting: deque[Future[Imagery | None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        try:
            waiting.extend(reader.submit(next, source, None) for _ in range(count))
            while (batch := waiting.popleft().result()) is not None:
                waiting.append(reader.submit(next, source, None))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _check_rows(features: Tensor, rows: int, name: str) -> None:
    if len(features) != rows:
        raise DataError(
            "a split lost samples on its way",
            found=f"{len(features)} features",
            expected=f"{rows} images",
            where=name,
        )
