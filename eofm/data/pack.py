"""Read a packed store: memory-mapped images in their native dtype, and their labels.

    store = Store("stores/mine")
    imagery = store.images([0, 5, 9])       # NativeImagery; eofm.preprocess.to_grid makes it float
    labels = store.labels([0, 5, 9])

`eofm.data.pack_layout` says what the files are; `eofm.data.pack_writer` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from eofm.data.pack_layout import (
    HEADER_BYTES,
    INDEX,
    JOURNAL,
    SPEC,
    VALID,
    StoreCard,
    checksum,
    index_schema,
    shard_name,
)
from eofm.errors import StoreError
from eofm.imagery import Labels, NativeImagery
from eofm.spec import ImageSpec

Rows = Sequence[int] | NDArray[np.integer[Any]]


class Store:
    """A finished packed store.

    It may be pickled into worker processes and read from threads.

    Attributes:
        path: The folder.
        card: All that `spec.json` says.
        table: The index, one line per image.

    Args:
        path: The folder.

    Raises:
        StoreError: If it is no store, is half written, or a piece is missing or of a wrong size.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.card = _read_card(self.path)
        self.table = _read_index(self.path / INDEX, self.card)
        self._shards = self._column("shard", np.int64)
        self._rows = self._column("row", np.int64)
        self._maps: dict[tuple[int, str], NDArray[Any]] = {}
        self._check_files()
        shape = (len(self), len(self.classes))
        self._multi_hot = self._flat("multi_hot").astype(np.float32).reshape(shape)
        self._fraction = self._flat("fraction").astype(np.float32).reshape(shape)
        self._known = self._column("known", np.bool_)

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        # a pickled memory map would be a copy of the shard
        return Store, (self.path,)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def spec(self) -> ImageSpec:
        """What `to_grid` makes of the images."""
        return self.card.spec

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the label vector; empty for an unlabelled store."""
        return self.card.classes

    @property
    def scheme(self) -> str | None:
        """Name of the land-cover scheme; None for an unlabelled store."""
        return None if self.card.labels is None else self.card.labels.scheme

    @property
    def synthetic(self) -> bool:
        """Whether the images were made up, not observed: stated by whoever packed them."""
        return self.card.provenance.get("synthetic") is True

    @property
    def ids(self) -> NDArray[np.str_]:
        """One identifier per image."""
        return self._column("id", np.str_)

    @property
    def locations(self) -> NDArray[np.str_]:
        """The place of each image: images of one place overlap or repeat one another."""
        return self._column("location", np.str_)

    def images(self, rows: Rows) -> NativeImagery:
        """Return images as stored, each band at its own resolution.

        Args:
            rows: Which, in the order wanted.

        Raises:
            IndexError: If there is no such row.
            StoreError: If a file has changed since the store was opened.
        """
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        places = list(zip(self._shards[index].tolist(), self._rows[index].tolist(), strict=True))
        gathered = {}
        for name, (shape, dtype) in self.card.pieces().items():
            out = np.empty((len(index), *shape), dtype.newbyteorder("="))
            for i, (shard, row) in enumerate(places):
                out[i] = self._map(shard, name)[row]
            gathered[name] = out
        height, width = self.card.size
        bits = np.unpackbits(gathered.pop(VALID), axis=1, count=height * width)
        planes = {int(name[:-1]): torch.from_numpy(plane) for name, plane in gathered.items()}
        valid = torch.from_numpy(bits.view(np.bool_).reshape(-1, height, width))
        return NativeImagery(planes, dict(self.card.groups), self.spec, valid)

    def labels(self, rows: Rows) -> Labels:
        """Return multi-labels (B, K) and which of them are known.

        Args:
            rows: Which, in the order wanted.
        """
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        return Labels(
            torch.from_numpy(self._multi_hot[index]), torch.from_numpy(self._known[index])
        )

    def fractions(self, rows: Rows) -> torch.Tensor:
        """Return the share of each class in the valid map pixels, float32 (B, K).

        Args:
            rows: Which, in the order wanted.
        """
        return torch.from_numpy(self._fraction[np.asarray(rows, dtype=np.int64).reshape(-1)])

    def verify(self, rows: Rows | None = None) -> None:
        """Read images and compare their checksums.

        Args:
            rows: Which; None means all.

        Raises:
            StoreError: If bytes have changed since they were written; it lists the images.
        """
        expected = self._column("crc32", np.uint32)
        names = list(self.card.pieces())
        bad = []
        for i in range(len(self)) if rows is None else np.asarray(rows).tolist():
            pieces = [self._map(int(self._shards[i]), name)[self._rows[i]] for name in names]
            if checksum(pieces) != expected[i]:
                bad.append(i)
        if bad:
            shown = ", ".join(f"{i} ({self.ids[i]})" for i in bad[:10])
            raise StoreError(
                "images in the store have changed since they were written",
                found=f"{len(bad)} with a wrong checksum: {shown}{', ...' if bad[10:] else ''}",
                where=self.path,
                remedy="copy the store again, or delete it and pack it anew",
            )

    def _column(self, name: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.asarray(self.table[name].to_numpy(), dtype=dtype)

    def _flat(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self.table[name].combine_chunks().flatten().to_numpy()
        return values

    def _map(self, shard: int, name: str) -> NDArray[Any]:
        """Return the memory map of one file."""
        key = (shard, name)
        if key not in self._maps:
            file = self.path / shard_name(shard) / f"{name}.npy"
            try:
                array: NDArray[Any] = np.load(file, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise _damaged(file, str(error)) from error
            shape, dtype = self.card.pieces()[name]
            if array.shape[1:] != shape or array.dtype != dtype:
                raise _damaged(file, f"{array.shape} {array.dtype}", f"(N, *{shape}) {dtype}")
            self._maps[key] = array.view(np.ndarray)  # rows of a plain array come cheaper
        return self._maps[key]

    def _check_files(self) -> None:
        """Compare the size of every file with the index: a truncated copy is found at once."""
        counts = np.bincount(self._shards) if len(self) else np.zeros(0, int)
        for shard, count in enumerate(counts.tolist()):
            for name, (shape, dtype) in self.card.pieces().items():
                file = self.path / shard_name(shard) / f"{name}.npy"
                expected = HEADER_BYTES + count * int(np.prod(shape)) * dtype.itemsize
                found = file.stat().st_size if file.is_file() else None
                if found != expected:
                    what = "no such file" if found is None else f"{found} bytes"
                    raise _damaged(file, what, f"{expected} bytes for {count} images")


def _damaged(file: Path, found: str, expected: str | None = None) -> StoreError:
    return StoreError(
        "a piece of the store is missing or damaged",
        found=found,
        expected=expected,
        where=file,
        remedy="copy the store again, or delete it and pack it anew",
    )


def _read_card(path: Path) -> StoreCard:
    journal = path / JOURNAL
    if journal.is_file():
        with journal.open("rb") as lines:
            rows = sum(line.startswith(b'{"row"') and line.endswith(b"\n") for line in lines)
        raise StoreError(
            "the store is half written",
            found=f"{rows} images so far, and a journal",
            where=path,
            remedy="run the command that packs it again: it goes on where it stopped",
        )
    card = path / SPEC
    if not card.is_file():
        raise StoreError(
            "there is no packed store",
            found="nothing" if not path.exists() else f"no {SPEC}",
            where=path,
            remedy="write one with `eofm pack tiles` or `eofm pack ssl4eo`",
        )
    return StoreCard.from_json(card.read_text("utf-8"), card)


def _read_index(file: Path, card: StoreCard) -> pa.Table:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, str(error)) from error
    schema = index_schema(len(card.classes))
    if not table.schema.equals(schema) or table.num_rows != card.rows:
        found = f"{table.num_rows} rows of {', '.join(table.schema.names)}"
        raise _damaged(file, found, f"{card.rows} rows of {', '.join(schema.names)}")
    return table
