"""Packed stores in `eofm data check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eofm.contract.preprocess import to_grid
from eofm.contract.validity import ENOUGH_IMAGES, check_plausible, find_doubts
from eofm.datasets.check.options import CheckConfig
from eofm.datasets.check.report import CheckReport, Finding, counted_only, spread
from eofm.errors import PixelError, StoreError
from eofm.store.format import JOURNAL, PAIRS, SPEC
from eofm.store.paired import PairedStore
from eofm.store.reader import Store

COMPARED: Final = 2 * ENOUGH_IMAGES  # images whose band means are compared with one another


def is_store(path: Path) -> bool:
    """Whether a folder holds a packed store, finished or not."""
    return (path / SPEC).is_file() or (path / JOURNAL).is_file()


def check_pairs(path: Path, config: CheckConfig) -> CheckReport:
    """Check the stores of several sensors, and whether the table of rows is theirs.

    Args:
        path: The folder of the stores.
        config: How much of each to read.
    """
    names = sorted(folder.name for folder in path.iterdir() if is_store(folder))
    reports = {name: check_store(path / name, config) for name in names}
    findings = [
        Finding(f.problem, f"{name}: {f.name}", f.found)
        for name, report in reports.items()
        for f in report.findings
    ]
    counts = {
        f"{what} in {name}": count
        for name, report in reports.items()
        for what, count in report.counts.items()
    }
    if not findings:
        try:
            both = PairedStore(path)
        except StoreError as error:
            findings.append(Finding(error.problem, PAIRS, str(error.found)))
        else:
            counts[f"lines of {PAIRS}"] = len(both)
            counts["lines with an image of every sensor"] = len(both.complete())
    leader = next(iter(reports.values()), None)
    return CheckReport(
        path.as_posix(),
        f"packed stores of {len(names)} sensors",
        counts,
        sum(report.looked_at for report in reports.values()),
        tuple(findings),
        0 if leader is None else leader.labelled,
        {} if leader is None else leader.classes,
        tuple(f"{name}: {note}" for name, report in reports.items() for note in report.notes),
        config.json,
    )


def check_store(path: Path, config: CheckConfig) -> CheckReport:
    """Check files, checksums, identifiers, pixels and labels of a packed store.

    Args:
        path: The store, finished or not.
        config: How much of it to read.
    """
    kind = "packed store"
    try:
        store = Store(path)
    except StoreError as error:
        found = Finding(error.problem, str(error.where or path), str(error.found))
        return CheckReport(path.as_posix(), kind, {}, 0, (found,), as_json=config.json)
    rows = spread(len(store), config.limit)
    findings = [
        Finding("an identifier is there more than once", name, f"{count} rows")
        for name, count in Counter(store.ids.tolist()).items()
        if count > 1
    ]
    findings += [
        Finding("an image has changed since it was written", str(store.ids[i]), f"row {i}")
        for i in store.changed(rows)
    ]
    findings += _implausible(store, rows)
    labels = store.labels(range(len(store)))
    counts = labels.multi_hot.sum(dim=0).int().tolist()
    card = store.card
    notes = [f"{card.spec.sensor}, {' '.join(card.spec.bands)}, unit {card.spec.unit}"]
    if card.quarantined:
        notes.append(f"{len(card.quarantined)} images could not be read when it was packed")
    notes += counted_only(len(store), len(rows))
    return CheckReport(
        path.as_posix(),
        kind,
        {"images": len(store), "places": len(set(store.locations.tolist()))},
        len(rows),
        tuple(findings),
        int(labels.known.sum()),
        dict(zip(store.classes, counts, strict=True)),
        tuple(notes),
        config.json,
    )


def _implausible(store: Store, rows: Sequence[int]) -> list[Finding]:
    """Return what contradicts the card: image by image, and over many images."""
    findings = []
    for start in range(0, len(rows), COMPARED):
        part = rows[start : start + COMPARED]
        for doubt in find_doubts(to_grid(store.images(part))):
            name = str(store.ids[part[doubt.image]])
            findings.append(Finding(doubt.problem, name, doubt.found, doubt.band or ""))
    some = [rows[i] for i in spread(len(rows), COMPARED)]
    if not findings and some:
        try:
            check_plausible(to_grid(store.images(some)))
        except PixelError as error:
            findings.append(Finding(error.problem, f"{len(some)} images", str(error.found)))
    return findings
