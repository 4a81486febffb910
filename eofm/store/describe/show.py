"""`eofm data show`: what a store holds, on one sheet.

Where the images are, how often each label is present and with which others, and samples under one
fixed stretch per sensor, so that sheets of two stores can be compared (snow has its own, and says
so).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from eofm.contract.preprocess import to_grid
from eofm.report import output, sheets
from eofm.report.plots import ClassCounts
from eofm.store.choice import sampled
from eofm.store.config import ShowConfig
from eofm.store.format import PAIRS, byte_words
from eofm.store.paired import PairedStore
from eofm.store.reader import Store

if TYPE_CHECKING:
    from eofm.report.output import Figure

SHEET: Final = "store.png"


@dataclass(frozen=True)
class ShowReport:
    """A drawn store.

    Args:
        file: The picture.
        text: What it shows, in words.
    """

    file: Path
    text: str

    def describe(self) -> str:
        """Return some lines for the terminal."""
        return f"{self.text}\n  drawn in {self.file}"


@dataclass(frozen=True)
class PairsReport:
    """Drawn stores of several sensors.

    Args:
        sheets: One per store.
        text: How they belong together.
    """

    sheets: tuple[ShowReport, ...]
    text: str

    def describe(self) -> str:
        """Return some lines for the terminal."""
        return "\n".join([*(sheet.describe() for sheet in self.sheets), self.text])


def show_store(config: ShowConfig) -> ShowReport | PairsReport:
    """Draw a store and describe it; of several sensors, each store on a sheet of its own.

    Raises:
        StoreError: If there is no store, or it is damaged.
        DataError: If the sheet cannot be written.
    """
    if (Path(config.store) / PAIRS).is_file():
        return _show_pairs(PairedStore(config.store), config)
    store = Store(config.store)
    file = Path(config.out) if config.out else store.path / SHEET
    output.save(draw_store(store, config.samples, config.seed), file)
    return ShowReport(file, _describe(store))


def _show_pairs(both: PairedStore, config: ShowConfig) -> PairsReport:
    sheets = []
    for name in both.stores:
        out = None if config.out is None else Path(config.out)
        own = None if out is None else str(out.with_name(f"{out.stem}-{name}{out.suffix}"))
        sheet = show_store(replace(config, store=str(both.path / name), out=own))
        assert isinstance(sheet, ShowReport)  # noqa: S101 (a store holds no stores)
        sheets.append(sheet)
    there = ", ".join(f"{int((both.rows(name) >= 0).sum())} {name}" for name in both.stores)
    return PairsReport(
        tuple(sheets),
        f"{both.path / PAIRS}: {len(both)} lines ({there}), {len(both.complete())} complete",
    )


def draw_store(store: Store, samples: int, seed: int) -> Figure:
    """Draw places, labels and samples of a store.

    Args:
        store: The store.
        samples: How many images the sheet shows, at most.
        seed: Which.
    """
    rows = np.flatnonzero(sampled(store, np.ones(len(store), bool), samples, seed))
    longitude, latitude = (store.table[name].to_numpy() for name in ("longitude", "latitude"))
    places = len(set(store.table["location"].to_pylist()))
    return sheets.overview(
        f"{store.path.name}: {_counts(store)}" + (" (synthetic)" if store.synthetic else ""),
        (longitude, latitude, f"{places} places"),
        class_counts(store) if store.classes else None,
        _thumbs(store, rows.tolist()),
        f"samples: {sheets.composite_for(store.spec).caption}; gray where invalid",
    )


def class_counts(store: Store) -> ClassCounts:
    """Count how often each class is present in the labelled images, and with which others.

    Args:
        store: One with classes.
    """
    labels = store.labels(range(len(store)))
    hot = labels.multi_hot[labels.known].numpy().astype(np.int64)
    return ClassCounts(store.classes, hot.T @ hot, len(hot), len(store) - len(hot))


def _thumbs(store: Store, rows: list[int]) -> list[sheets.Thumb]:
    labels = store.labels(rows)
    ids = store.table["id"].take(rows).to_pylist()
    composite = sheets.composite_for(store.spec)
    made = []
    for i, row in enumerate(rows):
        imagery = to_grid(store.images([row]))
        stretch = sheets.stretches(imagery, composite=composite)
        pixels = sheets.to_rgb(imagery, composite=composite, stretch=stretch)[0].numpy()
        present = labels.multi_hot[i].numpy() > 0
        names = ", ".join(np.array(store.classes)[present].tolist()) if store.classes else ""
        caption = names if labels.known[i] or not store.classes else "unlabelled"
        made.append(sheets.Thumb(pixels, ids[i], caption, stretch[0].words(composite)))
    return made


def _counts(store: Store) -> str:
    spec = store.spec
    height, width = store.card.size
    return (
        f"{len(store)} images of {spec.sensor}, {len(spec.bands)} bands in {spec.unit}, "
        f"{height} x {width} at {spec.gsd:g} m"
    )


def _describe(store: Store) -> str:
    labels = store.labels(range(len(store)))
    known = int(labels.known.sum())
    dates = sorted(filter(None, store.table["date"].to_pylist()))
    shards = f"{store.shards} shard" + "s" * (store.shards != 1)
    lines = [
        f"{store.path}: {_counts(store)}",
        f"  {len(set(store.table['location'].to_pylist()))} places, {shards}, "
        f"{byte_words(len(store) * store.card.row_bytes)}"
        + (f", {dates[0][:10]} to {dates[-1][:10]}" if dates else ""),
        f"  {store.crs_words()}",
    ]
    if store.classes:
        lines.append(f"  {known} of {len(store)} labelled, scheme {store.scheme}")
        share = labels.multi_hot[labels.known].mean(dim=0).tolist() if known else []
        width = max(map(len, store.classes))
        lines += [f"    {c:{width}}  {s:6.1%}" for c, s in zip(store.classes, share, strict=False)]
    if store.synthetic:
        lines.append("  synthetic: the images were made up, not observed")
    if store.card.quarantined:
        lines.append(f"  {len(store.card.quarantined)} images could not be read when it was packed")
    return "\n".join(lines)
