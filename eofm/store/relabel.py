"""`eofm data relabel`: other labels for the same pixels.

The labels of a store are in its two small files, `index.parquet` and `spec.json`. To replace both
at once, they are written into a folder, which is then named `relabelled`: from this moment on the
new labels hold, and readers find them there (`eofm.store.format.current`). Then each file
moves to its place. Whenever this is interrupted, the store has the old labels or the new ones, and
the next call clears up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eofm.errors import LabelError, StoreError
from eofm.io import replacing, sync_folder
from eofm.landcover.table import LabelTable, open_table
from eofm.store.config import RelabelConfig
from eofm.store.format import (
    INDEX,
    JOURNAL,
    RELABELLED,
    SPEC,
    LabelRule,
    Plain,
    StoreCard,
    index_schema,
    shard_name,
)
from eofm.store.journal import check_empty
from eofm.store.reader import Store
from eofm.store.report import PackReport

_STAGED: Final = RELABELLED + ".tmp"
_COLUMNS: Final = ("fraction", "multi_hot", "known", "valid_share")


@dataclass(frozen=True)
class RelabelReport:
    """What became of the labels.

    Args:
        store: The store with its new labels.
        unlabelled: Images of it that the table does not know.
        spare: Lines of the table that no image has asked for.
    """

    store: PackReport
    unlabelled: int
    spare: int

    def describe(self) -> str:
        """Return some lines for the terminal."""
        lines = [self.store.describe()]
        if self.unlabelled:
            lines.append(f"  {self.unlabelled} images are not in the table, and are unlabelled")
        if self.spare:
            lines.append(f"  {self.spare} lines of the table are of other images")
        return "\n".join(lines)


def relabel_store(config: RelabelConfig) -> RelabelReport:
    """Join a table of labels to a store by identifier.

    Raises:
        LabelError: If the table is damaged, repeats an identifier, or does not know an image of the
            store.
        StoreError: If the store is damaged, or the new one cannot be written.
    """
    path = Path(config.store)
    if config.in_place:
        with _on_disk(path):
            clear_up(path)
    store, labels = Store(path), open_table(config.labels)
    card, index, counts = _join(store, labels, unknown_too=config.missing == "unlabelled")
    with _on_disk(Path(config.out or path)):
        if config.out is None:
            _replace(path, card, index)
        else:
            _link(store, Path(config.out), card, index)
    report = PackReport.of(Path(config.out or path), already=False)
    return RelabelReport(report, *counts)


def _join(
    store: Store, labels: LabelTable, *, unknown_too: bool
) -> tuple[StoreCard, pa.Table, tuple[int, int]]:
    """Return card and index with other labels; and how many images, and lines, found no match."""
    line_of = _lines_by_id(labels)
    ids: list[str] = store.table["id"].to_pylist()
    missing = [name for name in ids if name not in line_of]
    if missing and not unknown_too:
        raise LabelError(
            "images of the store are not in the table of labels",
            found=f"{len(missing)} of {len(ids)}: {', '.join(missing[:10])}"
            f"{', ...' if missing[10:] else ''}",
            where=labels.path,
            remedy="label them, or make them unlabelled with --missing unlabelled",
        )
    lines = np.array([line_of.get(name, -1) for name in ids], np.int64)
    rule = _rule(labels)
    provenance: dict[str, Plain] = {**store.card.provenance, "labels": labels.path.name}
    card = replace(store.card, labels=rule, provenance=provenance)
    spare = len(line_of) - (len(ids) - len(missing))
    return card, _with_labels(store.table, labels, lines, len(rule.classes)), (len(missing), spare)


def _lines_by_id(labels: LabelTable) -> Mapping[str, int]:
    names: list[str] = labels.read(["id"])["id"].to_pylist()
    line_of = {name: line for line, name in enumerate(names)}
    if len(line_of) != len(names):
        twice = [name for line, name in enumerate(names) if line_of[name] != line]
        raise LabelError(
            "the table of labels names an image twice",
            found=", ".join(twice[:10]),
            where=labels.path,
        )
    return line_of


def _rule(labels: LabelTable) -> LabelRule:
    about = labels.about
    try:
        scheme = about["scheme"]
        name = scheme["name"] if isinstance(scheme, Mapping) else scheme
        return LabelRule(
            str(name), labels.classes, float(about["threshold"]), float(about["min_valid"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            "the table of labels does not say how they were made",
            found=repr(error),
            where=labels.path,
        ) from error


def _with_labels(
    index: pa.Table, labels: LabelTable, lines: NDArray[np.int64], classes: int
) -> pa.Table:
    """Return an index with the labels of some lines of a table; of line -1 there are none."""
    schema = index_schema(classes)
    table = labels.read(_COLUMNS)
    known = lines >= 0
    for name in _COLUMNS:
        field = schema.field(name)
        values = table[name].combine_chunks()
        if name in {"fraction", "multi_hot"}:
            flat = values.flatten().to_numpy().reshape(-1, classes)[lines]
            flat = np.where(known[:, None], flat, 0).reshape(-1)
            column = pa.FixedSizeListArray.from_arrays(
                pa.array(flat, field.type.value_type), classes
            )
        else:
            flat = np.where(known, np.asarray(values.to_numpy(zero_copy_only=False))[lines], 0)
            column = pa.array(flat.astype(field.type.to_pandas_dtype()), field.type)
        index = index.set_column(schema.get_field_index(name), field, column)
    return index.cast(schema)


# ------------------------------------------------------------------------------- writing


def _write(folder: Path, card: StoreCard, index: pa.Table) -> None:
    with replacing(folder / INDEX) as file:
        pq.write_table(index, file)
    with replacing(folder / SPEC) as file:
        file.write_text(card.to_json(), "utf-8")


def _replace(path: Path, card: StoreCard, index: pa.Table) -> None:
    """Give a store other small files, both at once."""
    staged = path / _STAGED
    staged.mkdir()
    _write(staged, card, index)
    staged.rename(path / RELABELLED)
    sync_folder(path)
    clear_up(path)


def clear_up(path: Path) -> None:
    """Finish what was begun when the labels of a store were replaced, or forget it.

    Args:
        path: The store.

    Raises:
        OSError: If the disk does not allow it.
    """
    shutil.rmtree(path / _STAGED, ignore_errors=True)
    newer = path / RELABELLED
    if not newer.exists():
        return
    for name in (INDEX, SPEC):
        if (newer / name).exists():
            (newer / name).replace(path / name)
    sync_folder(path)
    newer.rmdir()


def _link(store: Store, out: Path, card: StoreCard, index: pa.Table) -> None:
    """Make a store of other small files and the same pixels; it has its card last."""
    journal = out / JOURNAL
    if not journal.exists() or journal.stat().st_size:  # that of a run that packs
        check_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    journal.touch()  # the store counts as half written
    for shard in range(store.shards):
        (out / shard_name(shard)).mkdir(exist_ok=True)
        for name in store.card.pieces():
            _link_file(store.piece(shard, name), out / shard_name(shard) / f"{name}.npy")
        sync_folder(out / shard_name(shard))
    _write(out, card, index)
    journal.unlink()
    sync_folder(out)


def _link_file(source: Path, target: Path) -> None:
    """Let two names share the bytes of a file, which is never written again; else copy it."""
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        with replacing(target) as file:
            shutil.copyfile(source, file)


@contextlib.contextmanager
def _on_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            "the labels cannot be written",
            found=error.strerror or str(error),
            where=error.filename or out,
            remedy="make room, and run the same command again",
        ) from error
