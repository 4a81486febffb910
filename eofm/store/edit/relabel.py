"""`eofm data relabel`: other labels for the same pixels, from a table that `eofm labels` wrote.

Labels hold for ground that the image shows. A table that counted whole footprints is refused for
images that are not measured in full, unless that is asked for. An interrupted call leaves the old
labels or the new ones (`eofm.store.edit.rewrite`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eofm.errors import LabelError
from eofm.landcover.table import Ground, LabelTable, open_table
from eofm.store.config import RelabelConfig
from eofm.store.describe.report import PackReport
from eofm.store.edit.rewrite import open_to_rewrite, rewrite
from eofm.store.format import LabelRule, Plain, StoreCard, index_schema
from eofm.store.reader import Store

_AT_ONCE: Final = 256  # masks in memory
_COLUMNS: Final = ("fraction", "multi_hot", "known", "valid_share")


@dataclass(frozen=True)
class RelabelReport:
    """What became of the labels.

    Args:
        store: The store with its new labels.
        unlabelled: Images of it that the table does not know.
        spare: Rows of the table that no image has asked for.
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
            lines.append(f"  {self.spare} rows of the table are of other images")
        return "\n".join(lines)


def relabel_store(config: RelabelConfig) -> RelabelReport:
    """Join a table of labels to a store by identifier.

    Raises:
        LabelError: If the table is damaged, repeats an identifier, does not know an image of the
            store, or counted ground that an image does not show.
        StoreError: If the store is damaged, or the new one cannot be written.
    """
    store = open_to_rewrite(config.store, in_place=config.in_place)
    labels = open_table(config.labels)
    card, index, counts = _join(store, labels, unknown_too=config.missing == "unlabelled")
    if config.ground == "seen" and labels.ground is Ground.ALL:
        _check_seen(store, index, labels)
    path = rewrite(store, config.out, card, index)
    return RelabelReport(PackReport.of(path, already=False), *counts)


def _not_in_full(store: Store, rows: NDArray[np.int64]) -> list[int]:
    """Return those of some rows whose image has pixels that are not measured."""
    found: list[int] = []
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        found += part[~store.valid(part).all(axis=(1, 2))].tolist()
    return found


def _check_seen(store: Store, index: pa.Table, labels: LabelTable) -> None:
    """Refuse labels of ground that an image does not show."""
    blind = _not_in_full(store, np.flatnonzero(np.asarray(index["known"].to_numpy())))
    if blind:
        names = store.table["id"].take(pa.array(blind[:3])).to_pylist()
        raise LabelError(
            "the labels were counted on ground that some images do not show",
            found=f"{len(blind)} of {len(store)} images are not measured in full: "
            f"{', '.join(names)}{', ...' if blind[3:] else ''}; the table counted whole footprints",
            where=labels.path,
            remedy="count them for this store: eofm labels MAPS --scheme SCHEME "
            f"--scenes {store.path} --out OTHER.parquet; or take them as they are: --ground all",
        )


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
