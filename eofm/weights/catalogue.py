"""Published weights on the command line: the list, one card, a download, a check of hashes.

Without torch, so that `eofm models list` and `info` start quickly. The table of the README is also
generated here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Final

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.formats.foreign import foreign
from eofm.formats.text import read_json
from eofm.weights.cards import WEIGHTS, find
from eofm.weights.cards.card import WeightCard
from eofm.weights.config import DownloadConfig, InfoConfig, ListConfig, VerifyWeightsConfig
from eofm.weights.download import (
    SUFFIX,
    compare_sha256,
    fetch,
    file_name,
    hash_file,
    known_sha256,
    read_record,
    weights_directory,
)

__all__ = [
    "CatalogueListing",
    "Downloaded",
    "Info",
    "Verified",
    "download_model",
    "downloaded",
    "list_models",
    "readme_table",
    "recipe_in_words",
    "show_model",
    "verify",
]

_TABLE_TASKS: Final = (("BigEarthNet-10%", "bigearthnet-10%"), ("EuroSAT", "eurosat"))


def downloaded(card: WeightCard) -> Path | None:
    """Return the path of a card's file, None if it is not in the folder of downloads."""
    path = weights_directory() / file_name(card.url)
    return path if path.is_file() else None


# --------------------------------------------------------------------------------- list


@dataclass(frozen=True)
class CatalogueListing:
    """A list of published weights.

    Args:
        cards: The weights.
        as_json: Whether to print JSON.
    """

    cards: tuple[WeightCard, ...]
    as_json: bool = False

    def describe(self) -> str:
        """Return a table, or JSON."""
        if self.as_json:
            return json.dumps([_plain(card) for card in self.cards], indent=2, ensure_ascii=False)
        rows: list[tuple[str, ...]] = [
            ("name", "sensor", "bands", "size", "pooling", "licence", "here")
        ]
        rows += [_row(card) for card in self.cards]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        here = sum(downloaded(card) is not None for card in self.cards)
        lines += [
            "",
            f"{len(self.cards)} published weights, {here} of them in {weights_directory()}",
        ]
        return "\n".join(lines)


def list_models(config: ListConfig) -> CatalogueListing:
    """Return the published weights for a sensor, or all."""
    wanted = (c for c in WEIGHTS.values() if config.sensor in {None, c.recipe.sensor})
    return CatalogueListing(tuple(wanted), config.json)


def _row(card: WeightCard) -> tuple[str, ...]:
    recipe = card.recipe
    return (
        card.name,
        str(recipe.sensor),
        str(len(recipe.bands)),
        _size(recipe),
        str(recipe.pooling),
        card.licence,
        "yes" if downloaded(card) else "",
    )


def _plain(card: WeightCard) -> dict[str, Any]:
    """Return a card as plain types."""
    path = downloaded(card)
    return {
        **asdict(card),
        "recipe": card.recipe.to_dict(),
        "alternatives": {name: r.to_dict() for name, r in card.alternatives.items()},
        "file": None if path is None else str(path),
    }


# --------------------------------------------------------------------------------- info


@dataclass(frozen=True)
class Info:
    """One card, with one of its recipes.

    Args:
        card: Card of published weights.
        recipe: The card's own, or an alternative.
        name: Name as requested.
    """

    card: WeightCard
    recipe: Recipe
    name: str

    def describe(self) -> str:
        """Return the card as text, a paragraph per topic."""
        card = self.card
        parts = [
            self.name,
            _entry("architecture", f"{card.architecture}, tensors named as {card.layout}"),
            _entry("objective", card.objective),
            _entry("trained on", card.training_data),
            _entry("licence", card.licence),
            _entry("paper", f"https://arxiv.org/abs/{card.paper}"),
            _entry("url", card.url),
            _entry("sha256", card.sha256 or "none published: the first download is recorded"),
            _entry("file", _whereabouts(card)),
            "",
            "what it expects",
            *(f"  {line}" for line in recipe_in_words(self.recipe)),
        ]
        if self.recipe == card.recipe:
            parts.append(_entry("source", card.recipe_source))
        if card.alternatives:
            names = ", ".join(f"{card.name}@{name}" for name in card.alternatives)
            parts.append(_entry("also", names))
        if card.scores:
            parts += ["", "scores as published: not measured here, and each by its own protocol"]
            parts += [f"  {s.value:5.1f}  {s.task}, {s.probe}, {s.metric}" for s in card.scores]
            parts += [_entry("source", source) for source in _once(s.source for s in card.scores)]
        if card.note:
            parts += ["", fill(card.note, 100)]
        return "\n".join(parts)


def show_model(config: InfoConfig) -> Info:
    """Return the card of published weights.

    Raises:
        WeightsError: If there is no such name or alternative.
    """
    card, recipe = find(config.name)
    return Info(card, recipe, config.name)


def recipe_in_words(recipe: Recipe) -> list[str]:
    """Return a description of a recipe, a line per step and a line per band."""
    norm, resize = recipe.normalization, recipe.resize
    steps = [
        f"{recipe.sensor} in unit {recipe.unit}, bands {' '.join(recipe.bands)}",
        f"{_size(recipe)} pixels, {resize.kernel}"
        + (" with antialiasing" if resize.antialias else "")
        + f", {str(resize.order).replace('-', ' ')}",
        "(x - shift) / scale"
        + (f", clipped to {norm.clip[0]:g}..{norm.clip[1]:g}" if norm.clip else "")
        + (f", truncated to {norm.levels} steps" if norm.levels else ""),
    ]
    steps += [
        f"  {band:4} shift {shift:10.4f}  scale {scale:10.4f}"
        for band, shift, scale in zip(recipe.bands, norm.shift, norm.scale, strict=True)
    ]
    return [*steps, f"constants: {norm.source}", f"embedding: {_POOLED[recipe.pooling]}"]


_POOLED: Final = {"cls": "the CLS token", "mean": "the mean over the patches or the last map"}


def _entry(name: str, text: str) -> str:
    indent = " " * 16
    return fill(
        text,
        100,
        initial_indent=f"  {name:12}  ",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _whereabouts(card: WeightCard) -> str:
    path = downloaded(card)
    if path is None:
        return f"not here; would be {weights_directory() / file_name(card.url)}"
    record = read_record(path)
    known = "not checked yet" if record is None else f"sha256 {record.sha256[:16]}..."
    return f"{path}, {path.stat().st_size / 1e6:.1f} MB, {known}"


def _size(recipe: Recipe) -> str:
    return f"{recipe.size[0]} x {recipe.size[1]}"


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


# -------------------------------------------------------------------------------- README


def readme_table(cards: Sequence[WeightCard]) -> str:
    """Return a Markdown table: model, modality, how to load it, scores as published."""
    head = ["model", "modality", "load", *(f"{title} linear" for title, _ in _TABLE_TASKS)]
    lines = [_markdown(head), "|---|---|---|" + "---:|" * len(_TABLE_TASKS)]
    for card in cards:
        load = f'`eofm.load_weights("{card.name}")`'
        scores = [_score(card, task) for _, task in _TABLE_TASKS]
        lines.append(_markdown([card.architecture, str(card.recipe.sensor), load, *scores]))
    return "\n".join(lines)


def _score(card: WeightCard, task: str) -> str:
    """Return a linear score; a star as in the source: a head on four layers."""
    for score in card.scores:
        if score.task in {task, f"{task}-sar"} and score.probe.startswith("linear"):
            return f"{score.value:.1f}" + ("*" if "4 layers" in score.probe else "")
    return ""


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ---------------------------------------------------------------------------------------- download


@dataclass(frozen=True)
class Downloaded:
    """Published weights on disk.

    Args:
        card: Card of the weights.
        path: Path of the file.
        sha256: Hash of the file.
    """

    card: WeightCard
    path: Path
    sha256: str

    def describe(self) -> str:
        """Return the path of the file and how its hash was verified."""
        trust = "as published" if self.card.sha256 else "recorded: none is published"
        return f"{self.path}\n  sha256 {self.sha256}, {trust}\n  licence {self.card.licence}"


def download_model(config: DownloadConfig) -> Downloaded:
    """Download the file of published weights, unless it exists.

    Raises:
        WeightsError: If there is no such name, or the file cannot be fetched.
    """
    card, _ = find(config.name)
    path = fetch(card.url, sha256=card.sha256, directory=config.to)
    return Downloaded(card, path, known_sha256(path))


# -------------------------------------------------------------------------------- verify


@dataclass(frozen=True)
class Verified:
    """Files whose hashes match.

    Args:
        lines: One per file.
    """

    lines: tuple[str, ...]

    def describe(self) -> str:
        """Return one line per file."""
        return "\n".join(self.lines)


def verify(config: VerifyWeightsConfig) -> Verified:
    """Compare every file of a folder with its card, its published hash or its record.

    Everything is hashed again, regardless of records.

    Raises:
        WeightsError: If a file differs, or the folder contains nothing to compare.
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
            f"{len(bad)} of {len(bad) + len(good)} files differ from their card, hash or record",
            found="\n".join([*bad, *good]),
            where=folder,
            remedy="download or export those again",
        )
    if not good:
        raise WeightsError(
            "this folder contains nothing to compare",
            found=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "no files",
            expected="an export (card.json), a published file, or a recorded download",
            where=folder,
        )
    return Verified(tuple(good))


def _export(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each file of an export with its fault, or ""."""
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
