"""The feature cache: computed once per model and data, kept under a key of all they depend on.

The key is the sha256 of weights, recipe, plan (with its waivers), the declared pixels, ids and
bytes of the images, the type of the numbers, and the code that makes features. A run's name is not
part of it, so a changed network cannot meet another's features.

An entry is a folder: `features.npy`, read by memory map, and `meta.json` with the key's content
and the sha256 of the features, written last. What does not match both is computed again, and a
line on stderr says so. Facts that cost a pass over the same pixels or network (that quality checks
passed, how many parameters take part) lie beside them as one JSON file each.

The sha256 of every image is remembered with the size, inode and times of its files, as version
control does: hashing a whole data set again takes longer than a probe on cached features. A file
that was written moments ago is hashed every time: it could change once more within the tick of the
file system's clock.

Shapes: N images of a split, D features.
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from eofm.contract import imagery, preprocess
from eofm.datasets.images.chips import Stored
from eofm.errors import DataError
from eofm.formats.arrays import map_npy
from eofm.formats.foreign import foreign, read_bounded
from eofm.formats.seal import fresh_sha256, opened, sealed
from eofm.formats.text import JSON_BYTES, parse_json
from eofm.progress import track
from eofm.weights import encoder

FEATURES: Final = "features.npy"

META: Final = "meta.json"
_KEPT_BYTES: Final = 2**30


@cache
def _code_sha256(file: str) -> str:
    """Return the sha256 of a file's code without comments, layout and docstrings.

    A change of how pixels are treated needs no raised version.
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
    """Return the sha256 of the code that features depend on, whatever its comments and layout.

    Args:
        files: Further files beside those that treat pixels; `__init__.py` stands for its package.
    """
    always = (inspect.getfile(part) for part in (preprocess, imagery, encoder))
    parts = [part for file in (*always, *files) for part in _parts(Path(file))]
    return hashlib.sha256("".join(map(_code_sha256, parts)).encode()).hexdigest()


def classes_sha256(module: nn.Module) -> str:
    """Return the sha256 of the files that define a network's parts, torch's own left out.

    Weights do not tell what is done with them: a network of the user's own is often changed while
    its weights stay. What these files import from elsewhere is not looked at.

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
        root: The folder; None keeps nothing.
    """

    root: Path | None

    @classmethod
    def at(cls, folder: str) -> FeatureCache:
        """Return the cache of a folder as the settings name it: empty for none."""
        return cls(Path(folder) if folder else None)

    def load(self, key: Key, rows: int) -> Tensor | None:
        """Return the features under a key, memory-mapped; None where there are none, or not whole.

        Args:
            key: What they depend on.
            rows: Number of images, N.

        Returns:
            float32 (N, D). Writing to it does not reach the file.
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
        """Return a number that takes a pass over pixels or a network, found once per key.

        Args:
            key: What it depends on.
            find: Finds it. What it raises is raised, and nothing is kept.
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
        """Write features under a key: whole, or not at all.

        A folder that cannot be written costs the next run its time, not this run its result: a
        line on stderr says so once.

        Args:
            key: What they depend on.
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
            shutil.rmtree(final, ignore_errors=True)  # what `load` would not take
            temporary.rename(final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not final.is_dir():  # else another process has just written the same
                _say_not_kept(self.root, str(error))


def kept_json(file: Path) -> dict[str, Any]:
    """Return what `keep_json` wrote; nothing where it is not there, or not whole."""
    try:
        with foreign(DataError, "it cannot be read", where=file):
            content, whole = opened(parse_json(read_bounded(file, _KEPT_BYTES)))
    except DataError:
        return {}
    return content if whole else {}


def keep_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a file of the cache: whole, or not at all, also beside other processes that write it.

    Args:
        file: In the folder of the cache.
        content: What JSON can hold.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(sealed(content)), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        _say_not_kept(file.parent, str(error))


# Folders of which it was said that nothing can be kept there.
_SAID: Final[set[Path]] = set()


def _say_not_kept(root: Path, error: str) -> None:
    """Say once per folder that nothing is kept there."""
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
    """Return what is wrong with an entry; empty if nothing is."""
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
        images: Of which the ids count.
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
        images: Id -> what belongs to the image: pixels of one sensor or of two, a mask.
        cache: Folder in which they are remembered; None hashes all of them.

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
        look = "" if file is None else _look_of(parts, looks)  # before it is read
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
    """Return what is remembered; nothing where the file is not whole."""
    content = kept_json(file)
    if content.get("version") != _VERSION:
        return {}
    return {image: (look, digest) for image, (look, digest) in content["images"].items()}


def _look_of(parts: Sequence[Stored], looks: dict[Path, str]) -> str:
    """Return where an image is and how its files look; empty if that may not be trusted."""
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
        return ""  # reading it will say what is wrong
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED_NS:
        return ""
    return f"{file} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
