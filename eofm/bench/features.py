"""Frozen features of every model of a task, with the pixels read once for all of them.

They are kept in `eofm.bench.cache`. Features of several layers are computed and kept in one pass
for a grid of linear read-outs: DINOv2's linear evaluation (arXiv 2304.07193, appendix B.3) tries 1
or 4 layers, with the CLS token alone or with the mean of the patch tokens beside it. All four are
columns of one matrix.

Shapes: B images of a batch, N of a split, D features, L layers, W columns.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Protocol, final

import torch
from torch import Tensor, nn

from eofm.bench.cache import FeatureCache, Key, classes_sha256, code_sha256
from eofm.bench.models.network import NetworkSource
from eofm.bench.models.sources import (
    Candidate,
    EncoderSource,
    FeatureSource,
    Identity,
    Trainee,
    check_evaluating,
)
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, spec_key
from eofm.errors import ConfigError, DataError, PixelError
from eofm.networks.trunk import Trunk
from eofm.probes.linear import Scaling, check_features

# Batches read ahead of the networks.
_AHEAD: Final = 2


# ---------------------------------------------------------------------------- extraction


class Reading(Protocol):
    """What is read of a model for every image."""

    def key(self, name: str) -> Mapping[str, str]:
        """Return what the features of a model depend on beside model and images."""
        ...

    def read(self, name: str, source: FeatureSource, imagery: Imagery, first: int) -> Tensor:
        """Return float32 (B, ...) of images of which the first is number `first` of the split."""
        ...

    def check(self, name: str, features: Tensor) -> None:
        """Raise if the features of a split, (N, D), are not in order."""
        ...


@final
class Vectors:
    """One vector per image: the embedding."""

    def key(self, name: str) -> Mapping[str, str]:
        """Return nothing: an embedding is what features are."""
        del name
        return {}

    def read(self, name: str, source: FeatureSource, imagery: Imagery, first: int) -> Tensor:
        """Return the embeddings, (B, D)."""
        del name, first
        return source.embed(imagery)

    def check(self, name: str, features: Tensor) -> None:
        """Raise if a feature is not finite, or an image has none.

        Raises:
            PixelError: If so.
        """
        try:
            check_features(features)
        except PixelError as error:
            error.where = name
            raise


VECTORS: Final = Vectors()


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
            "spec": spec_key(spec),
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
    reading: Reading = VECTORS,
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
        reading: What is read of a model.

    Returns:
        Name of the model -> float32 (N, D), also where an image has several vectors: side by side.

    Raises:
        WeightsError: If a network changed while it embedded.
        PixelError: If features are not finite or all zero.
        DataError: If the images yield another number of features than expected.
    """
    named = {source.name: source for source in sources}
    keys = {
        name: Key({**key_of(source, spec, data_sha256).content, **reading.key(name)})
        for name, source in named.items()
    }
    found = {name: cache.load(key, rows) for name, key in keys.items()}
    features = {name: known for name, known in found.items() if known is not None}
    missing = {name: source for name, source in named.items() if name not in features}
    if not missing:
        return features
    parts: dict[str, list[Tensor]] = {name: [] for name in missing}
    first = 0
    for imagery in ahead(batches()):
        for name, source in missing.items():
            parts[name].append(reading.read(name, source, imagery, first).flatten(1))
        first += len(imagery)
    for name, source in missing.items():
        source.check_frozen()
        fresh = torch.cat(parts.pop(name))
        _check_rows(fresh, rows, name)
        reading.check(name, fresh)
        about = {"model": name, "about": source.identity(spec).about, "rows": rows}
        cache.store(keys[name], fresh, about)
        kept = cache.load(keys[name], rows)  # the file takes the place of what fills the memory
        features[name] = fresh if kept is None else kept
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


# How many of the last layers are looked at: 1 or 4 in DINOv2's grid.
LAST: Final = 4


# ---------------------------------------------------------------------------- read-outs


@dataclass(frozen=True)
class Readout:
    """What a linear layer reads.

    Args:
        layers: The vectors of so many last layers, side by side; 0 is the model's own embedding.
        patch_mean: The mean of the last layer's patch tokens beside them.
    """

    layers: int = 0
    patch_mean: bool = False

    @property
    def name(self) -> str:
        """As in records: `embedding`, `1 layer`, `4 layers + patch mean`."""
        if not self.layers:
            return "embedding"
        words = f"{self.layers} layer" + ("s" if self.layers > 1 else "")
        return words + (" + patch mean" if self.patch_mean else "")


EMBEDDING: Final = Readout()


def last_layers(trunk: Trunk, pixels: Tensor) -> Tensor:
    """Return the vectors of the last four layers and the mean of the last one's patches.

    Of a transformer each layer's vector is its CLS token after the final norm, and the mean comes
    last. A network without a CLS token has the means of its layers, and no further one.

    Args:
        trunk: The network; with fewer than four layers, all of them are read.
        pixels: (B, C, H, W), normalised.

    Returns:
        (B, (L + 1) D), or (B, sum of the widths of L layers).
    """
    count = min(LAST, trunk.depth)
    if not trunk.prefix:
        maps = trunk.get_intermediate_layers(pixels, count)
        return torch.cat([m.mean(dim=1) for m in maps if isinstance(m, Tensor)], dim=1)
    pairs = trunk.get_intermediate_layers(pixels, count, return_class_token=True)
    both = [pair for pair in pairs if isinstance(pair, tuple)]
    return torch.cat([*(cls for _, cls in both), both[-1][0].mean(dim=1)], dim=1)


def readouts_of(trunk: Trunk) -> tuple[Readout, ...]:
    """Return what `last_layers` holds of a network: 1 or 4 layers, without or with the mean."""
    counts = dict.fromkeys((1, min(LAST, trunk.depth)))
    means = (False, True) if trunk.prefix else (False,)
    return tuple(Readout(layers, mean) for layers in counts for mean in means)


def columns_of(trunk: Trunk, width: int) -> Mapping[Readout, slice]:
    """Return which columns of `last_layers` each read-out takes.

    Args:
        trunk: The network.
        width: Number of columns.
    """
    end = width - trunk.dim if trunk.prefix else width
    return {
        readout: slice(
            end - trunk.dim if readout.layers == 1 else 0, width if readout.patch_mean else end
        )
        for readout in readouts_of(trunk)
    }


def take(vectors: Sequence[Tensor], columns: Sequence[slice]) -> Tensor:
    """Return the columns of one read-out, of all sensors side by side."""
    return torch.cat([v[:, c] for v, c in zip(vectors, columns, strict=True)], dim=1)


@final
class LayeredSource:
    """The last layers of an encoder, frozen.

    Args:
        source: The encoder.
    """

    scaling = Scaling.NONE

    def __init__(self, source: EncoderSource) -> None:
        self.name = source.name
        self._source = source
        self.trainee: Trainee = source.trainee

    @property
    def trunk(self) -> Trunk:
        """The network."""
        assert self.trainee.trunk is not None  # noqa: S101 (an encoder's network is a trunk)
        return self.trainee.trunk

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self._source.network

    def identity(self, spec: ImageSpec) -> Identity:
        """Return what the encoder is.

        Raises:
            SpecMismatch: If it cannot take such images.
        """
        return self._source.identity(spec)

    @torch.no_grad()
    def embed(self, imagery: Imagery) -> Tensor:
        """Return `eofm.bench.features.last_layers`: float32 (B, W), on the CPU.

        Raises:
            WeightsError: If a part of the network is in training mode.
        """
        trunk, device = self.trunk, self.trainee.device
        check_evaluating(trunk, self.name, "call .eval() before you hand it over")
        weight = next(trunk.parameters())
        pixels = self.trainee.pixels(imagery.to(device)).to(weight.dtype)
        return last_layers(trunk, pixels).float().cpu()

    def check_frozen(self) -> None:
        """Raise if the encoder has changed.

        Raises:
            WeightsError: If so.
        """
        self._source.check_frozen()


def layered_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates to be read by layer; controls without a network are left out.

    Raises:
        ConfigError: If a network of the user's own is among them, which shows no layers, or if
            nothing is left.
    """
    found = []
    for candidate in candidates:
        check_layers(candidate)
        parts = [part for part in candidate.parts if isinstance(part, EncoderSource)]
        if len(parts) == len(candidate.parts):
            layered: tuple[FeatureSource, ...] = tuple(map(LayeredSource, parts))
            found.append(replace(candidate, parts=layered))
    if not found:
        raise nothing_to_read(candidates)
    return found


def nothing_to_read(candidates: Sequence[Candidate]) -> ConfigError:
    """Return what is said where a probe needs a network and no candidate has one."""
    return ConfigError(
        "this probe needs a network, and no model here has one",
        found=", ".join(candidate.name for candidate in candidates),
        where="--probe",
        remedy="name an encoder with --model",
    )


def check_layers(candidate: Candidate) -> None:
    """Refuse a network of which only the embedding can be read.

    Raises:
        ConfigError: If one of the candidate's is of that kind.
    """
    for part in candidate.parts:
        if isinstance(part, NetworkSource) and part.trainee is not None:
            raise ConfigError(
                "this probe reads layers, and a network of your own shows its embedding only",
                found=candidate.name,
                where="--probe",
                remedy="leave it out of --model, or return an eofm.Encoder from your function",
            )


def readout_columns(candidate: Candidate) -> Mapping[str, Tensor]:
    """Return which columns of a candidate's features each read-out takes, by its name.

    Args:
        candidate: One of `layered_candidates`. The read-outs are those that all its networks have.
    """
    trunks = [part.trunk for part in candidate.parts if isinstance(part, LayeredSource)]
    shared = [r for r in readouts_of(trunks[0]) if all(r in readouts_of(t) for t in trunks)]
    found: dict[str, Tensor] = {}
    for readout in shared:
        places, start = [], 0
        for trunk in trunks:
            width = _width(trunk)
            places += list(range(start, start + width)[columns_of(trunk, width)[readout]])
            start += width
        found[readout.name] = torch.tensor(places)
    return found


@torch.no_grad()
def _width(trunk: Trunk) -> int:
    weight = next(trunk.parameters())
    return last_layers(trunk, weight.new_zeros(1, trunk.channels, *trunk.size)).shape[1]
