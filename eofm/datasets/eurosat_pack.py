"""`eofm pack eurosat`: the tiles of EuroSAT MS, with class and split, into a packed store.

The files keep B8A last (`eofm.datasets.eurosat`); in the store the bands have the order of the
sensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eofm.datasets.eurosat import CLASSES, SPEC, SplitRule, Tile, open_eurosat, source_of
from eofm.datasets.sets_config import PackEurosatConfig
from eofm.errors import RasterError
from eofm.raster.source import OpenRaster, RasterSource
from eofm.store.entry import Entry
from eofm.store.format import LabelRule
from eofm.store.packing import Item, ItemsReport, listed, make_card, pack_items
from eofm.store.splits import SPLITS

_LOOKED_AT: Final = 32  # tiles, before packing begins


def pack_eurosat(config: PackEurosatConfig) -> ItemsReport:
    """Pack the tiles of a split.

    A run that was interrupted goes on where it stopped when it is called again.

    Args:
        config: What to pack, and how.

    Returns:
        What the store holds, and what was left out.

    Raises:
        DataError: If the folder is not that of EuroSAT MS, or a tile cannot be read where all are
            required.
        RasterError: If no tile says where it lies: a store keeps the place of every image.
        ConfigError: If the rule does not suit the layout.
        PixelError: If the pixels cannot be those of EuroSAT.
        StoreError: If `out` holds something else, or cannot be written.
    """
    data = open_eurosat(config.root, None if config.rule is None else SplitRule(config.rule))
    wanted = SPLITS if config.split == "all" else (config.split,)
    lines = [_Line(tile, split) for split in wanted for tile in data.splits[split]]
    lines.sort(key=lambda line: line.tile.id)
    _check_located([line.tile for line in lines])
    items = [Item(line.tile.id, SPEC.unit, line.source, line.entry) for line in lines]
    card = make_card(
        items,
        LabelRule("eurosat", CLASSES, 0.0, 0.0),
        {
            "verb": "pack eurosat",
            "root": Path(config.root).as_posix(),
            "rule": data.rule.value,
            "split": config.split,
        },
        {},
    )
    strict = config.require == "all"
    packed = pack_items(items, card, config.out, strict=strict, workers=config.workers)
    counts = ", ".join(f"{sum(line.split == s for line in lines)} {s}" for s in wanted)
    packed = packed.then(verify=config.verify, stats=config.stats, workers=config.workers)
    return ItemsReport(packed, (f"EuroSAT MS, divided {data.rule}: {counts}",))


def _check_located(tiles: Sequence[Tile]) -> None:
    """Refuse a data set of which no tile can be located; single ones are passed over later."""
    first: RasterError | None = None
    for tile in tiles[:: max(1, len(tiles) // _LOOKED_AT)]:
        try:
            with source_of(tile).open() as raster:
                raster.grid.centre()
        except RasterError as error:
            error.where = tile.path
            first = first or error
        else:
            return
    if first is not None:
        raise first


@dataclass(frozen=True)
class _Line:
    """Makes the line of a tile in the index."""

    tile: Tile
    split: str

    def source(self) -> RasterSource:
        """Return the file of the tile."""
        return source_of(self.tile)

    def entry(self, raster: OpenRaster) -> Entry:
        """Return the line, with what the opened file says of its place."""
        longitude, latitude = raster.grid.centre()
        entry = Entry(
            id=self.tile.id,
            location=self.tile.id,
            season="",
            longitude=longitude,
            latitude=latitude,
            date="",
            source=self.tile.id,
            source_unit=SPEC.unit.value,
            split=self.split,
        )
        return listed(entry, tuple(int(k == self.tile.label) for k in range(len(CLASSES))))
