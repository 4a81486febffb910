"""`eofm data show`: what a store holds, on one sheet.

Where the images are, how often each label is present and with which others, and samples under one
fixed stretch per sensor, so that sheets of two stores can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from eofm.contract.imagery import Imagery
from eofm.contract.preprocess import to_grid
from eofm.contract.sensors import DEFAULT_STATISTICS, STATISTICS
from eofm.io import replacing
from eofm.report.figures import composite_of, to_rgb
from eofm.store.choice import sampled
from eofm.store.config import ShowConfig
from eofm.store.format import PAIRS, byte_words
from eofm.store.paired import PairedStore
from eofm.store.reader import Store

SHEET: Final = "store.png"
_INK, _PAPER, _BLUE = "#222222", "#bbbbbb", "#33658A"
_SIDE: Final = 7  # samples per line of the sheet


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
    """
    if (Path(config.store) / PAIRS).is_file():
        return _show_pairs(PairedStore(config.store), config)
    store = Store(config.store)
    file = Path(config.out) if config.out else store.path / SHEET
    file.parent.mkdir(parents=True, exist_ok=True)
    figure = draw_store(store, config.samples, config.seed)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
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
    lines = math.ceil(len(rows) / _SIDE)
    upper_inches = max(5.0, 2.5 + 0.2 * len(store.classes))
    figure = Figure(figsize=(13, 0.4 + upper_inches + 2.1 * lines), layout="constrained")
    parts = np.asarray(figure.subfigures(2, 1, height_ratios=[upper_inches, 2.1 * lines]))
    upper, lower = parts.tolist()
    _draw_upper(upper, store)
    axes = lower.subplots(lines, _SIDE, squeeze=False).flatten()
    _draw_samples(axes.tolist(), store, rows)
    lower.suptitle(_caption(store), fontsize=9, x=0.01, ha="left", color=_INK)
    title = f"{store.path.name}: {_counts(store)}"
    figure.suptitle(title + (" (synthetic)" if store.synthetic else ""), fontsize=12, color=_INK)
    return figure


def _draw_upper(part: SubFigure, store: Store) -> None:
    labels = store.labels(range(len(store)))
    known = labels.known.numpy()
    hot = labels.multi_hot.numpy()[known]
    if not store.classes or not known.any():
        _draw_map(part.subplots(1, 1), store)
        return
    places, bars, matrix = part.subplots(1, 3, width_ratios=[1.3, 0.9, 1.2])
    _draw_map(places, store)
    _draw_frequencies(bars, hot, store.classes, int((~known).sum()))
    _draw_cooccurrence(matrix, hot, store.classes)


def _draw_map(axis: Axes, store: Store) -> None:
    """Draw a dot for every image, on plain degrees."""
    longitude, latitude = (store.table[name].to_numpy() for name in ("longitude", "latitude"))
    axis.scatter(longitude, latitude, s=max(1.0, 90 / len(store) ** 0.5), c=_BLUE, alpha=0.5, lw=0)
    axis.set_title(
        f"{len(set(store.table['location'].to_pylist()))} places", loc="left", fontsize=9
    )
    axis.set_xlabel("longitude, °")
    axis.set_ylabel("latitude, °")
    axis.grid(color=_PAPER, lw=0.4)
    axis.margins(0.08)
    middle = math.radians(float(np.clip(np.mean(latitude), -80, 80)))
    axis.set_aspect(1 / math.cos(middle), adjustable="datalim")  # true to scale in the middle


def _draw_frequencies(
    axis: Axes, hot: NDArray[np.float32], classes: tuple[str, ...], unknown: int
) -> None:
    """Draw the share of the labelled images in which each class is present."""
    share = hot.mean(axis=0)
    order = np.argsort(share)
    axis.barh(range(len(order)), share[order], color=_BLUE)
    names = [_clip(classes[i]) for i in order]
    axis.set_yticks(range(len(order)), names, fontsize=_small(len(names)))
    for place, i in enumerate(order):
        axis.text(share[i], place, f" {share[i]:.1%}", va="center", fontsize=7, color=_INK)
    axis.set_xlim(0, max(1e-3, float(share.max())) * 1.25)
    axis.set_xlabel("share of labelled images")
    title = f"{len(hot)} labelled" + (f", {unknown} not" if unknown else "")
    axis.set_title(title, loc="left", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def cooccurrence(hot: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (K, K): the share of the images with class i (row) that also have class j (column).

    Rows of classes that never occur are NaN.

    Args:
        hot: (N, K), 1 where a class is present.
    """
    counts = hot.T.astype(np.float64) @ hot.astype(np.float64)
    own = np.diag(counts)[:, None]
    return np.divide(counts, own, out=np.full_like(counts, np.nan), where=own > 0)


def _draw_cooccurrence(axis: Axes, hot: NDArray[np.float32], classes: tuple[str, ...]) -> None:
    matrix = cooccurrence(hot)
    picture = axis.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
    small = _small(len(classes))
    names = [_clip(name) for name in classes]
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
    axis.set_yticks(range(len(names)), names, fontsize=small)
    if len(classes) <= 12:
        for (i, j), share in np.ndenumerate(matrix):
            if np.isfinite(share):
                colour = "white" if share > 0.6 else _INK
                axis.text(j, i, f"{share:.0%}", ha="center", va="center", fontsize=6, color=colour)
    axis.set_title(
        "of images with the row's class, share with the column's", loc="left", fontsize=9
    )
    axis.figure.colorbar(picture, ax=axis, fraction=0.04)


def _small(names: int) -> float:
    return 8 if names <= 12 else 6 if names <= 24 else 4


def _draw_samples(axes: list[Axes], store: Store, rows: NDArray[np.int64]) -> None:
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    for axis in axes[: len(rows)]:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=_PAPER, linewidth=0.5)  # snow is white on white
    labels = store.labels(rows)
    ids = store.table["id"].take(rows).to_pylist()
    for i, (axis, row) in enumerate(zip(axes, rows.tolist(), strict=False)):
        axis.imshow(picture_of(to_grid(store.images([row])))[0])
        present = labels.multi_hot[i].numpy() > 0
        names = ", ".join(np.array(store.classes)[present].tolist()) if store.classes else ""
        known = names if labels.known[i] or not store.classes else "unlabelled"
        axis.set_title(f"{_short(ids[i], 24)}\n{_clip(known, 36)}", fontsize=6, color=_INK)


def _clip(text: str, length: int = 28) -> str:
    """Return the beginning of names, where they are too long."""
    return text if len(text) <= length else text[: length - 1].rstrip(" ,") + "…"


def _short(text: str, length: int) -> str:
    """Return the end of an identifier: what tells it from others."""
    return text if len(text) <= length else "…" + text[1 - length :]


def picture_of(imagery: Imagery) -> NDArray[np.float32]:
    """Return (B, H, W, 3) in [0, 1]: the sensor's composite, or its first band in gray.

    The gray runs from two standard deviations below to two above the published mean of that band.
    """
    spec = imagery.spec
    needed = {part for name in composite_of(spec.sensor).bands for part in name.split("-")}
    if needed <= set(spec.bands):
        return np.asarray(to_rgb(imagery).numpy(), np.float32)
    known = STATISTICS[DEFAULT_STATISTICS[spec.sensor]].select(spec.bands[:1])
    low, high = known.mean[0] - 2 * known.std[0], known.mean[0] + 2 * known.std[0]
    gray = ((imagery.pixels[:, 0] - low) / (high - low)).clamp(0, 1).numpy()
    gray = np.where(imagery.valid.numpy(), gray, 0.5)
    return np.asarray(np.repeat(gray[..., None], 3, axis=-1), np.float32)


def _counts(store: Store) -> str:
    spec = store.spec
    height, width = store.card.size
    return (
        f"{len(store)} images of {spec.sensor}, {len(spec.bands)} bands in {spec.unit}, "
        f"{height} x {width} at {spec.gsd:g} m"
    )


def _caption(store: Store) -> str:
    composite = composite_of(store.spec.sensor)
    return f"samples: {composite.caption}; gray where invalid"


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
