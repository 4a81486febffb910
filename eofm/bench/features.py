"""Frozen features of every model of a task, cached under a hash of everything they depend on.

The pixels are read once for all models. Features of several layers are computed and stored in one
pass for a grid of linear read-outs: DINOv2's linear evaluation (arXiv 2304.07193, appendix B.3)
tries 1 or 4 layers, with the CLS token alone or concatenated with the mean of the patch tokens. All
four are columns of one matrix.

The key of the cache is the sha256 of weights, recipe, plan (with its waivers), the declared pixels,
ids and bytes of the images, the number type, and the code that computes features. The name of a run
is not part of it, so features of a changed network are never mistaken for those of the old one.

An entry is a folder: `features.npy`, read by memory map, and `meta.json` with the contents of the
key and the sha256 of the features, written last. An entry that does not match is computed again,
with a line on stderr. Facts that cost a pass over the same pixels or network (that quality checks
passed, the number of executed parameters) are stored next to them as one JSON file each.

The sha256 of every image is cached with the size, inode and times of its files, as in version
control: hashing a whole data set again takes longer than a probe on cached features. A recently
written file is hashed every time, because it could change again within the resolution of the file
system's clock.

Shapes: B images of a batch, N of a split, D features, L layers, W columns.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any, Final, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from eofm.bench.sources import (
    Candidate,
    EncoderSource,
    FeatureSource,
    Identity,
    NetworkSource,
    Trainee,
    check_evaluating,
)
from eofm.contract import imagery, preprocess
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec, spec_key
from eofm.datasets.images.chips import Stored
from eofm.errors import ConfigError, DataError, PixelError
from eofm.formats.arrays import map_npy
from eofm.formats.foreign import foreign, fresh_sha256, opened, read_bounded, sealed
from eofm.formats.text import JSON_BYTES, parse_json
from eofm.io import prefetched
from eofm.networks.trunk import Trunk
from eofm.probes.features import Scaling, check_features
from eofm.terminal import track
from eofm.weights import encoder

__all__ = [
    "EMBEDDING",
    "FEATURES",
    "LAST",
    "META",
    "VECTORS",
    "FeatureCache",
    "Key",
    "LayeredSource",
    "Reading",
    "Readout",
    "Vectors",
    "ahead",
    "check_layers",
    "classes_sha256",
    "code_sha256",
    "columns_of",
    "content_sha256",
    "digests_of",
    "extract",
    "keep_json",
    "kept_json",
    "key_of",
    "last_layers",
    "layered_candidates",
    "nothing_to_read",
    "readout_columns",
    "readouts_of",
    "take",
]

# ---------------------------------------------------------------------------------------- the cache

FEATURES: Final = "features.npy"

META: Final = "meta.json"
_KEPT_BYTES: Final = 2**30


@cache
def _code_sha256(file: str) -> str:
    """Return the sha256 of a file's code without comments, layout and docstrings.

    A change of the treatment of pixels thus needs no version bump.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def code_sha256(*files: str) -> str:
    """Return the sha256 of the code that features depend on, ignoring comments and layout.

    Args:
        files: Files in addition to those that treat pixels; `__init__.py` means its package.
    """
    always = (inspect.getfile(part) for part in (preprocess, imagery, encoder))
    parts = [part for file in (*always, *files) for part in _parts(Path(file))]
    return hashlib.sha256("".join(map(_code_sha256, parts)).encode()).hexdigest()


def classes_sha256(module: nn.Module) -> str:
    """Return the sha256 of the files that define a network's parts, except torch's own.

    Weights do not identify the computation: a user's own network is often changed while its
    weights stay the same. Imports of these files are not followed.

    Args:
        module: The network.
    """
    kinds = {type(part) for part in module.modules()}
    names = {kind.__module__ for kind in kinds} - {"__main__"}
    digest = hashlib.sha256()
    for name in sorted(name for name in names if name.partition(".")[0] != "torch"):
        file = getattr(sys.modules.get(name), "__file__", None)
        digest.update(f"{name} {fresh_sha256(Path(file)) if file else ''}".encode())
    return digest.hexdigest()


def _parts(file: Path) -> list[str]:
    """Return the files of a package, given its `__init__.py`; any other file as it is."""
    if file.name != "__init__.py":
        return [str(file)]
    return [str(part) for part in sorted(file.parent.glob("*.py"))]


@dataclass(frozen=True)
class Key:
    """Everything that features depend on.

    Args:
        content: Name -> sha256 or words.
    """

    content: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Name of the entry."""
        text = json.dumps(dict(self.content), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class FeatureCache:
    """Features on disk.

    Args:
        root: The folder; None disables the cache.
    """

    root: Path | None

    @classmethod
    def at(cls, folder: str) -> FeatureCache:
        """Return the cache in a folder, as in the settings: empty disables it."""
        return cls(Path(folder) if folder else None)

    def load(self, key: Key, rows: int) -> Tensor | None:
        """Return the memory-mapped features of a key; None if missing or incomplete.

        Args:
            key: Dependencies of the features.
            rows: Number of images, N.

        Returns:
            float32 (N, D). Writing to it does not change the file.
        """
        if self.root is None or not (self.root / key.sha256).is_dir():
            return None
        folder = self.root / key.sha256
        try:
            with foreign(DataError, "they cannot be read", where=folder):
                meta = parse_json(read_bounded(folder / META, JSON_BYTES))
                found = fresh_sha256(folder / FEATURES)
                features = map_npy(folder / FEATURES, writable=True)
                fault = _fault(meta, key, found, features, rows)
        except DataError as error:
            fault = str(error.found)
        if fault:
            print(  # noqa: T201
                f"cached features are not whole, computed again: {fault} ({folder})",
                file=sys.stderr,
            )
            return None
        return torch.from_numpy(features)

    def fact(self, key: Key, find: Callable[[], int]) -> int:
        """Return a number that needs a pass over pixels or a network, computed once per key.

        Args:
            key: Its dependencies.
            find: Computes it. Its exceptions propagate, and nothing is stored.
        """
        if self.root is None:
            return find()
        file = self.root / f"{key.sha256}.json"
        content = dict(key.content)
        known = kept_json(file)
        if known.get("key") == content and type(known.get("value")) is int:
            return int(known["value"])
        value = find()
        keep_json(file, {"key": content, "value": value})
        return value

    def store(self, key: Key, features: Tensor, about: Mapping[str, object]) -> None:
        """Write features atomically under a key.

        If the folder cannot be written, the next run takes longer, but this run still succeeds; one
        line on stderr reports it.

        Args:
            key: Dependencies of the features.
            features: float32 (N, D).
            about: Notes for readers of the folder.
        """
        if self.root is None:
            return
        final, temporary = self.root / key.sha256, self.root / f".{key.sha256}.{os.getpid()}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            np.save(temporary / FEATURES, features.numpy())
            sha256 = fresh_sha256(temporary / FEATURES)
            meta = {"key": dict(key.content), "sha256": sha256, **about}
            (temporary / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)  # an entry that `load` would reject
            temporary.rename(final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not final.is_dir():  # unless another process has just written the same
                _say_not_kept(self.root, str(error))


def kept_json(file: Path) -> dict[str, Any]:
    """Return the content written by `keep_json`; empty if it is missing or incomplete."""
    try:
        with foreign(DataError, "it cannot be read", where=file):
            content, whole = opened(parse_json(read_bounded(file, _KEPT_BYTES)))
    except DataError:
        return {}
    return content if whole else {}


def keep_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a file of the cache atomically, also with concurrent writers.

    Args:
        file: File in the folder of the cache.
        content: What JSON can hold.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(sealed(content)), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        _say_not_kept(file.parent, str(error))


# Folders reported as not writable.
_SAID: Final[set[Path]] = set()


def _say_not_kept(root: Path, error: str) -> None:
    """Report once per folder that it cannot be written."""
    if root in _SAID:
        return
    _SAID.add(root)
    print(  # noqa: T201
        f"the cache of features cannot be kept, and the run continues without it: {error}\n"
        f"  where:    {root}\n"
        "  remedy:   name another folder with --cache, or none: --cache ''",
        file=sys.stderr,
    )


def _fault(
    meta: Mapping[str, object], key: Key, sha256: str, features: np.ndarray, rows: int
) -> str:
    """Return the fault of an entry; empty if it is valid."""
    if meta["sha256"] != sha256:
        return "the checksum differs"
    if meta["key"] != dict(key.content):
        return "they belong to something else"
    if features.ndim != 2 or len(features) != rows or features.dtype != np.float32:
        return f"{features.shape} {features.dtype} instead of {rows} rows of float32"
    return ""


_VERSION: Final = 1

_SETTLED_NS: Final = 2_000_000_000


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def content_sha256(images: Iterable[_Named], digests: Mapping[str, str]) -> str:
    """Return the sha256 of ids and images as stored, in order.

    Args:
        images: The images, for their ids.
        digests: `digests_of` them.
    """
    text = "\n".join(f"{image.id} {digests[image.id]}" for image in images)
    return hashlib.sha256(text.encode()).hexdigest()


def digests_of(
    root: Path, images: Mapping[str, Sequence[Stored]], cache: Path | None = None
) -> dict[str, str]:
    """Return the sha256 of every image as stored, by id.

    Args:
        root: Folder of the data set.
        images: Id -> stored parts of the image: pixels of one sensor or of two, a mask.
        cache: Folder of the cached hashes; None hashes all of them.

    Raises:
        RasterError: If an image cannot be read.
    """
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    file = None if cache is None else cache / f"digests-{name}.json"
    known = {} if file is None else _read(file)
    looks: dict[Path, str] = {}
    digests: dict[str, str] = {}
    fresh: dict[str, tuple[str, str]] = {}
    for image, parts in track(images.items(), "hashing images", len(images)):
        look = "" if file is None else _look_of(parts, looks)  # taken before it is read
        before, digest = known.get(image, ("", ""))
        if not look or before != look:
            digest = _digest(parts)
            if look:
                fresh[image] = look, digest
        digests[image] = digest
    if file is not None and fresh:
        keep_json(file, {"version": _VERSION, "images": {**known, **fresh}})
    return digests


def _digest(parts: Sequence[Stored]) -> str:
    found = [part.digest() for part in parts]
    return found[0] if len(found) == 1 else hashlib.sha256("+".join(found).encode()).hexdigest()


def _read(file: Path) -> dict[str, tuple[str, str]]:
    """Return the cached hashes; empty if the file is incomplete."""
    content = kept_json(file)
    if content.get("version") != _VERSION:
        return {}
    return {image: (look, digest) for image, (look, digest) in content["images"].items()}


def _look_of(parts: Sequence[Stored], looks: dict[Path, str]) -> str:
    """Return path and status of an image's files; empty if they may not be trusted."""
    places = [part.place for part in parts]
    files = [file for place in places for file in place.files]
    for file in files:
        if file not in looks:
            looks[file] = _look(file)
    found = [looks[file] for file in files]
    if not found or not all(found):
        return ""
    said = "|".join([*found, *(place.part for place in places)])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _look(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return ""  # reading it will raise the error
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED_NS:
        return ""
    return f"{file} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


# ------------------------------------------------------------------------------ features of a split

# Batches read ahead of the networks.
_AHEAD: Final = 2


class Reading(Protocol):
    """Kind of features that is read from a model for every image."""

    def key(self, name: str) -> Mapping[str, str]:
        """Return further dependencies of the features, besides model and images."""
        ...

    def read(self, name: str, source: FeatureSource, imagery: Imagery, first: int) -> Tensor:
        """Return float32 (B, ...) of images, the first of which is number `first` of the split."""
        ...

    def check(self, name: str, features: Tensor) -> None:
        """Raise an error if the features of a split, (N, D), are invalid."""
        ...


@final
class Vectors:
    """One vector per image: the embedding."""

    def key(self, name: str) -> Mapping[str, str]:
        """Return no further dependencies."""
        del name
        return {}

    def read(self, name: str, source: FeatureSource, imagery: Imagery, first: int) -> Tensor:
        """Return the embeddings, (B, D)."""
        del name, first
        return source.embed(imagery)

    def check(self, name: str, features: Tensor) -> None:
        """Check that features are finite and no image is without one.

        Raises:
            PixelError: If not.
        """
        try:
            check_features(features)
        except PixelError as error:
            error.where = name
            raise


VECTORS: Final = Vectors()


def key_of(source: FeatureSource, spec: ImageSpec, data_sha256: str) -> Key:
    """Return the cache key of the features of one model and split.

    Args:
        source: The model.
        spec: Description of the images.
        data_sha256: Hash of ids and bytes of the images, in order.
    """
    identity, network = source.identity(spec), source.network
    return Key(
        {
            "code": code_sha256(inspect.getfile(type(source))),
            "network": classes_sha256(network) if network is not None else "",
            "spec": spec_key(spec),
            "kind": type(source).__name__,
            # without weights, the description is the identity
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
        spec: Description of the images.
        data_sha256: Hash of ids and bytes of the images, in order.
        rows: Number of images, N.
        batches: Opens the images, in order. Not called if all features are in the cache.
        cache: Cache of features.
        reading: Kind of features.

    Returns:
        Name of the model -> float32 (N, D); several vectors of an image are concatenated.

    Raises:
        WeightsError: If a network changed while it embedded.
        PixelError: If features are not finite or all zero.
        DataError: If the number of features differs from the number of images.
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
    for batch in ahead(batches()):
        for name, source in missing.items():
            parts[name].append(reading.read(name, source, batch, first).flatten(1))
        first += len(batch)
    for name, source in missing.items():
        source.check_frozen()
        fresh = torch.cat(parts.pop(name))
        _check_rows(fresh, rows, name)
        reading.check(name, fresh)
        about = {"model": name, "about": source.identity(spec).about, "rows": rows}
        cache.store(keys[name], fresh, about)
        kept = cache.load(keys[name], rows)  # the memory-mapped file replaces the array in memory
        features[name] = fresh if kept is None else kept
    return features


def ahead(batches: Iterable[Imagery], count: int = _AHEAD) -> Iterator[Imagery]:
    """Yield the same batches in order, reading up to `count` of them in advance in a thread.

    Decoding releases the GIL, so the network need not wait for the disk.

    Args:
        batches: Batches to read.
        count: Number of batches held.

    Yields:
        The batches. Exceptions of reading are raised here, at their position in the order.
    """
    source = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        read = prefetched(repeat(source), lambda rest: reader.submit(next, rest, None), count)
        with closing(read):
            for _, batch in read:
                if batch is None:
                    return
                yield batch


def _check_rows(features: Tensor, rows: int, name: str) -> None:
    if len(features) != rows:
        raise DataError(
            "a split lost samples on its way",
            found=f"{len(features)} features",
            expected=f"{rows} images",
            where=name,
        )


# Number of last layers that are read: 1 or 4 in DINOv2's grid.
LAST: Final = 4


# ---------------------------------------------------------------------------- read-outs


@dataclass(frozen=True)
class Readout:
    """Input of a linear layer.

    Args:
        layers: Number of last layers to concatenate; 0 is the model's own embedding.
        patch_mean: Whether the mean of the last layer's patch tokens is appended.
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

    For a transformer, each layer's vector is its CLS token after the final norm, and the mean comes
    last. For a network without a CLS token they are the means of its layers, without a further one.

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
    """Return the read-outs in `last_layers` of a network: 1 or 4 layers, with or without mean."""
    counts = dict.fromkeys((1, min(LAST, trunk.depth)))
    means = (False, True) if trunk.prefix else (False,)
    return tuple(Readout(layers, mean) for layers in counts for mean in means)


def columns_of(trunk: Trunk, width: int) -> Mapping[Readout, slice]:
    """Return the columns of `last_layers` of each read-out.

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
    """Return the columns of one read-out, concatenated over all sensors."""
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
        """Return the identity of the encoder.

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
        """Raise an error if the encoder has changed.

        Raises:
            WeightsError: If so.
        """
        self._source.check_frozen()


def layered_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that can be read by layer; controls without a network are excluded.

    Raises:
        ConfigError: If a user's own network, which does not expose layers, is among them, or if
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
    """Return the error for a probe that needs a network if no candidate has one."""
    return ConfigError(
        "this probe needs a network, and no model here has one",
        found=", ".join(candidate.name for candidate in candidates),
        where="--probe",
        remedy="name an encoder with --model",
    )


def check_layers(candidate: Candidate) -> None:
    """Raise an error for a network that only exposes its embedding.

    Raises:
        ConfigError: If a network of the candidate does.
    """
    for part in candidate.parts:
        if isinstance(part, NetworkSource) and part.trainee is not None:
            raise ConfigError(
                "this probe reads layers, and a network of your own exposes only its embedding",
                found=candidate.name,
                where="--probe",
                remedy="leave it out of --model, or return an eofm.Encoder from your function",
            )


def readout_columns(candidate: Candidate) -> Mapping[str, Tensor]:
    """Return the columns of a candidate's features for each read-out, by name.

    Args:
        candidate: One of `layered_candidates`. Read-outs are those that all its networks have.
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
