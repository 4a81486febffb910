"""Describe a finished store: verification of its bytes, report, data card and overview.

`eofm data verify` compares the bytes with those that were written. `PackReport` is the outcome of
`eofm pack`, which can verify the store and count its statistics.

`eofm card STORE` writes a data card from the metadata of the store. Its front matter has the keys
of the cards in `data_cards/`. Headings without known content (coverage in words, overlap with
benchmarks, faults) are left to be filled in by hand. The licence of the images is that of a
known data set, or not stated; it is never assumed.

`eofm data show` draws on one sheet where the images are, how often each label is present and with
which others, and samples under one fixed stretch per sensor, so that sheets of two stores can be
compared (snow has its own, and says so).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

import numpy as np
import yaml

from eofm.contract.preprocess import to_grid
from eofm.errors import DataError, StoreError
from eofm.io import write_file
from eofm.report import output, sheets
from eofm.report.plots import ClassCounts
from eofm.store.choice import sampled
from eofm.store.config import CardConfig, ShowConfig, StatsConfig, VerifyConfig
from eofm.store.format import PAIRS, byte_words
from eofm.store.paired import PairedStore
from eofm.store.reader import Store
from eofm.store.stats import make_statistics
from eofm.terminal import track
from eofm.weights.cards.card import UNSTATED

if TYPE_CHECKING:
    from eofm.report.output import Figure

__all__ = [
    "SHEET",
    "DataCard",
    "PackReport",
    "PairsReport",
    "ShowReport",
    "VerifyReport",
    "class_counts",
    "class_rows",
    "draw_store",
    "show_store",
    "verify_store",
    "write_card",
]


# ------------------------------------------------------------------------------------------ verify


_VERIFIED_AT_ONCE: Final = 64  # images per task
_NAMED: Final = 10


@dataclass(frozen=True)
class VerifyReport:
    """A store in which every checksum is right.

    Args:
        store: Where it is.
        images: How many images were read.
        read: How many bytes that was.
        sealed: Whether card and index have a checksum too, and it is correct.
    """

    store: Path
    images: int
    read: int
    sealed: bool

    def describe(self) -> str:
        """Return which files were compared, and which have no checksum, for the terminal."""
        size = f"{self.images} images, {byte_words(self.read)}"
        if self.sealed:
            return f"{self.store} is sound: {size}, card and index"
        return (
            f"{self.store}: the pixels of {size} are sound; of bands, labels, splits and places "
            "the store has no checksum: it was written by eofm 0.1\n"
            f"  remedy:   eofm data upgrade {quote(str(self.store))} --in_place true"
        )


def verify_store(config: VerifyConfig) -> VerifyReport:
    """Read every image, in threads, and compare its crc32 with the index.

    Opening the store has compared card and index with their own checksums.

    Raises:
        StoreError: If files are missing or cut off, identifiers are repeated, or bytes have
            changed; it names the images.
    """
    store = Store(config.store)
    ids = store.table["id"]
    if len(ids.unique()) != len(ids):
        raise StoreError(
            "the index names an image twice",
            found=f"{len(ids)} images, {len(ids.unique())} identifiers",
            where=store.path,
        )
    bad = [row for rows in track(_changed_rows(store, config.threads), "reading") for row in rows]
    if bad:
        names = ids.take(bad[:_NAMED]).to_pylist()
        shown = ", ".join(f"{row} ({name})" for row, name in zip(bad, names, strict=False))
        shards = sorted({shard for shard, _ in store.places(bad)})
        raise StoreError(
            "images in the store have changed since they were written",
            found=f"{len(bad)} of {len(store)} with a wrong checksum, in shards "
            f"{', '.join(map(str, shards[:_NAMED]))}: {shown}{', ...' if bad[_NAMED:] else ''}",
            where=store.path,
            remedy="copy those shards again, or pack the store again",
        )
    return VerifyReport(store.path, len(store), len(store) * store.card.row_bytes, store.sealed)


def _changed_rows(store: Store, threads: int) -> Iterator[list[int]]:
    """Yield the changed rows of each chunk; checksums are computed without the GIL."""
    chunks = [
        range(i, min(i + _VERIFIED_AT_ONCE, len(store)))
        for i in range(0, len(store), _VERIFIED_AT_ONCE)
    ]
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(store.changed, chunks)


# ------------------------------------------------------------------------------------------ report


def class_rows(store: Store) -> dict[str, int]:
    """Return class name -> rows in which it is present; empty for an unlabelled store."""
    counts = store.labels(range(len(store))).multi_hot.sum(dim=0).int().tolist()
    return dict(zip(store.classes, counts, strict=True))


def _places(store: Store) -> int:
    return len(set(store.locations.tolist()))


def _period(store: Store) -> str:
    """Return the first and the last day of the images; empty where no date is known."""
    days = sorted(date[:10] for date in store.table["date"].to_pylist() if date)
    return f"{days[0]} to {days[-1]}" if days else ""


@dataclass(frozen=True)
class PackReport:
    """The outcome of `eofm pack`.

    Args:
        out: The store.
        images: How many images it was cut from.
        windows: How many rows it has.
        skipped: Number of windows left out because they have too few valid pixels.
        labelled: How many rows have labels.
        classes: Class name -> rows in which it is present; empty for an unlabelled store.
        already: Whether the store was complete before, so that nothing was written.
        quarantined: Name -> problem, of the images that could not be read and were passed over.
        after: Lines for the user on the checks and statistics of the finished store.
    """

    out: Path
    images: int
    windows: int
    skipped: int
    labelled: int
    classes: Mapping[str, int]
    already: bool = False
    quarantined: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, *, already: bool) -> PackReport:
        """Return the report of a finished store."""
        store = Store(path)
        return cls(
            out=path,
            images=store.card.sources,
            windows=len(store),
            skipped=store.card.skipped,
            labelled=int(store.labels(range(len(store))).known.sum()),
            classes=class_rows(store),
            already=already,
            quarantined=store.card.quarantined,
        )

    def then(self, *, verify: bool, stats: bool, workers: int = 1) -> PackReport:
        """Do what `--verify` and `--stats` ask for, and return the report with the outcome.

        The statistics are those of the training images where the data set has a split, else of all;
        their file says which.

        Args:
            verify: Read every image again and compare its crc32 with the index.
            stats: Compute the statistics of every band and write them next to the index.
            workers: How many threads read.

        Raises:
            StoreError: If bytes are not those that were written.
        """
        said = []
        if verify:
            said.append(verify_store(VerifyConfig(str(self.out), max(4, workers))).describe())
        if stats:
            train = "train" in Store(self.out).table["split"].unique().to_pylist()
            where = ["split=train"] if train else []
            said.append(make_statistics(StatsConfig(str(self.out), where=where)).describe())
        return replace(self, after=tuple(said))

    def describe(self) -> str:
        """Return some lines for the terminal."""
        state = "was complete already; nothing was written" if self.already else "is complete"
        lines = [
            f"{self.out} {state}",
            f"  {self.images} images, {self.windows} windows"
            + (
                f", {self.skipped} left out because they have too few valid pixels"
                if self.skipped
                else ""
            ),
        ]
        if not self.classes:
            lines.append("  unlabelled")
        else:
            lines.append(f"  {self.labelled} of {self.windows} labelled")
            width = max(map(len, self.classes))
            lines += [
                f"    {name:{width}}  {count:6d}  {count / max(self.labelled, 1):4.0%}"
                for name, count in self.classes.items()
            ]
        if self.quarantined:
            lines.append(f"  {len(self.quarantined)} could not be read, and were passed over:")
            lines += [f"    {name}: {why}" for name, why in list(self.quarantined.items())[:10]]
            lines += ["    ... (all are in spec.json)"] if len(self.quarantined) > 10 else []
        lines += [f"  {line}" for text in self.after for line in text.splitlines()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()


# ---------------------------------------------------------------------------------------- data card

_ASK = "*To be written by whoever knows.*"


@dataclass(frozen=True)
class DataCard:
    """A data card.

    Args:
        text: Markdown with YAML front matter.
        out: Where it was written; None where it was not.
    """

    text: str
    out: Path | None

    def describe(self) -> str:
        """Return the card, or where it is."""
        return self.text.rstrip() if self.out is None else f"wrote {self.out}"


def write_card(config: CardConfig) -> DataCard:
    """Describe a store; write the card if a file is named.

    Args:
        config: Which store, and where the card goes.

    Raises:
        StoreError: If it is no finished store.
        DataError: If the file exists already or cannot be written.
    """
    store = Store(config.path)
    name = config.name or Path(config.path).resolve().name
    front = yaml.safe_dump(
        _front(store, name, config.licence), sort_keys=False, allow_unicode=True, width=100
    )
    text = f"---\n{front}---\n\n# {name}\n\n{_body(store)}"
    out = None if config.out is None else Path(config.out)
    if out is not None:
        if out.exists():
            raise DataError(
                "the card exists already", where=out, remedy="choose another --out, or delete it"
            )
        write_file(out, text.encode())
    return DataCard(text, out)


def _front(store: Store, name: str, licence: str | None) -> dict[str, object]:
    card = store.card
    splits = [split for split in store.table["split"].to_pylist() if split]
    counts = {split: splits.count(split) for split in sorted(set(splits))}
    return {
        "name": name,
        "synthetic": store.synthetic,
        "licence": licence or store.card.licence or UNSTATED,
        "revision": f"packed by eofm {card.provenance.get('eofm', 'of unknown version')}",
        "layout": "packed store (eofm.store.format)",
        "sensors": {
            card.spec.sensor.value: {
                "unit": card.spec.unit.value,
                "bands": list(card.spec.bands),
            }
        },
        "size": list(card.size),
        "gsd": card.spec.gsd,
        "images": len(store),
        "places": _places(store),
        "splits": counts or "none",
        "classes": class_rows(store),
    }


def _body(store: Store) -> str:
    return "\n".join(
        [
            "## Coverage",
            "",
            _coverage(store),
            "",
            "## Labels",
            "",
            _labels(store),
            "",
            "## Overlap with benchmarks",
            "",
            _ASK,
            "",
            "## Known faults",
            "",
            _known_faults(store),
            "",
            "## Sources",
            "",
            *(f"* {key}: {value}" for key, value in store.card.settings.items()),
            "",
        ]
    )


def _coverage(store: Store) -> str:
    longitude = np.asarray(store.table["longitude"].to_numpy())
    latitude = np.asarray(store.table["latitude"].to_numpy())
    return (
        f"{len(store)} images between {longitude.min():.2f} and {longitude.max():.2f} degrees "
        f"east, {latitude.min():.2f} and {latitude.max():.2f} degrees north, "
        f"{_period(store) or 'at unknown times'}; "
        f"{store.crs_words()}."
    )


def _labels(store: Store) -> str:
    rule = store.card.labels
    if rule is None:
        return "None."
    known = int(store.labels(range(len(store))).known.sum())
    return (
        f"{known} of {len(store)} images are labelled by scheme {rule.scheme}: a class is present "
        f"from a share of {rule.threshold:g} of the valid pixels on (0: any pixel), and an image "
        f"is unlabelled of whose measured pixels less than {rule.min_valid:g} is mapped."
    )


def _known_faults(store: Store) -> str:
    card = store.card
    lines = [f"* {card.skipped} windows were left out because they have too few valid pixels."]
    lines += [f"* {name} could not be read: {why}." for name, why in card.quarantined.items()]
    return "\n".join([*lines, f"* {_ASK}"])


# -------------------------------------------------------------------------------------------- sheet

SHEET: Final = "store.png"


@dataclass(frozen=True)
class ShowReport:
    """A drawn store.

    Args:
        file: The picture.
        text: Description of what the figure shows.
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
    """Draw a store and describe it; the store of each sensor gets a separate figure.

    Raises:
        StoreError: If the store does not exist or is damaged.
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
    return sheets.overview(
        f"{store.path.name}: {_counts(store)}" + (" (synthetic)" if store.synthetic else ""),
        (longitude, latitude, f"{_places(store)} places"),
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
    period = _period(store)
    shards = f"{store.shards} shard" + "s" * (store.shards != 1)
    lines = [
        f"{store.path}: {_counts(store)}",
        f"  {_places(store)} places, {shards}, "
        f"{byte_words(len(store) * store.card.row_bytes)}" + (f", {period}" if period else ""),
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
