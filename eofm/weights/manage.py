"""Fetch published weights by name, and compare files with their hashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eofm.errors import WeightsError
from eofm.formats.foreign import foreign
from eofm.formats.text import read_json
from eofm.weights.cards import WEIGHTS, find
from eofm.weights.cards.card import WeightCard
from eofm.weights.config import DownloadConfig, VerifyWeightsConfig
from eofm.weights.fetch.download import fetch, file_name
from eofm.weights.fetch.receipt import SUFFIX, compare_sha256, hash_file, known_sha256, read_record


@dataclass(frozen=True)
class Downloaded:
    """Published weights on disk.

    Args:
        card: Which.
        path: Where.
        sha256: Of the file.
    """

    card: WeightCard
    path: Path
    sha256: str

    def describe(self) -> str:
        """Return where the file is and how far it is known to be the right one."""
        trust = "as published" if self.card.sha256 else "recorded: none is published"
        return f"{self.path}\n  sha256 {self.sha256}, {trust}\n  licence {self.card.licence}"


def download_model(config: DownloadConfig) -> Downloaded:
    """Fetch the file of published weights, unless it is there.

    Raises:
        WeightsError: If there is no such name, or the file cannot be had.
    """
    card, _ = find(config.name)
    path = fetch(card.url, sha256=card.sha256, directory=config.to)
    return Downloaded(card, path, known_sha256(path))


# -------------------------------------------------------------------------------- verify


@dataclass(frozen=True)
class Verified:
    """Files that are what they should be.

    Args:
        lines: One per file.
    """

    lines: tuple[str, ...]

    def describe(self) -> str:
        """Return one line per file."""
        return "\n".join(self.lines)


def verify(config: VerifyWeightsConfig) -> Verified:
    """Compare every file of a folder with its card, its published hash or its record.

    Everything is hashed again, whatever records say.

    Raises:
        WeightsError: If a file is another one, or the folder holds nothing that can be compared.
    """
    folder = Path(config.folder)
    if not folder.is_dir():
        raise WeightsError("there is no such folder", found=folder)
    checks = _export(folder) if (folder / "card.json").exists() else _downloads(folder)
    good: list[str] = []
    bad: list[str] = []
    for name, fault in checks:
        (bad if fault else good).append(f"{name}: {fault}" if fault else f"{name}: ok")
    if bad:
        raise WeightsError(
            f"{len(bad)} of {len(bad) + len(good)} files are not what they should be",
            found="\n".join([*bad, *good]),
            where=folder,
            remedy="download or export those again",
        )
    if not good:
        raise WeightsError(
            "nothing in this folder can be compared with anything",
            found=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "no files",
            expected="an export (card.json), a published file, or a recorded download",
            where=folder,
        )
    return Verified(tuple(good))


def _export(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each file of an export, and what is wrong with it or ""."""
    from eofm.weights.encoder import load_encoder

    try:
        load_encoder(folder)
    except WeightsError as error:
        yield "weights.safetensors and card.json", _in_short(error)
        return
    yield "weights.safetensors and card.json", ""
    sidecar = folder / "preprocess.json"
    if sidecar.exists():
        yield from _programs(sidecar)


def _programs(sidecar: Path) -> Iterator[tuple[str, str]]:
    try:
        with foreign(WeightsError, "cannot be read", where=sidecar):
            programs = read_json(sidecar)["programs"]
            hashes = {str(name): str(entry["sha256"]) for name, entry in programs.items()}
            outside = [name for name in hashes if Path(name).name != name]
            if outside:
                raise ValueError(f"it names files elsewhere: {', '.join(outside)}")
    except WeightsError as error:
        yield sidecar.name, f"cannot be read ({error.found})"
        return
    for name, digest in hashes.items():
        yield name, _difference(sidecar.parent / name, digest)


def _downloads(folder: Path) -> Iterator[tuple[str, str]]:
    published = {file_name(card.url): card.sha256 for card in WEIGHTS.values()}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(SUFFIX) or not path.is_file():
            continue
        try:
            record = read_record(path)
        except WeightsError as error:
            yield path.name, _in_short(error)
            continue
        if digest := published.get(path.name) or (record.sha256 if record else ""):
            yield path.name, _difference(path, digest)
        elif path.name in published:
            yield path.name, "no hash is published and none was recorded"


def _difference(path: Path, digest: str) -> str:
    try:
        compare_sha256(hash_file(path), digest, path)
    except WeightsError as error:
        return _in_short(error)
    return ""


def _in_short(error: WeightsError) -> str:
    return f"{error.problem} (found {error.found}, expected {error.expected})"
