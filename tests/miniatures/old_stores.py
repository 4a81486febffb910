"""Small stores as eofm 0.1 wrote them, and the images they were packed from.

    PYTHONPATH=CHECKOUT_OF_0.1 python tests/miniatures/old_stores.py tests/stores_0_1

writes the folder again. `tiles` holds Sentinel-2 windows of three images with labels, one image in
degrees, one of them not measured in full; `radar` Sentinel-1 in dB without labels; `both` two
stores of the same places with their table of rows. `expected.json` says what the reader of 0.1
read of them. This file imports eofm where it writes stores, and nowhere else: the tests write the
same images with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

SIDE, WINDOW = 24, 12
PLACES = {
    "a": ("EPSG:32632", Affine(10, 0, 500_000, 0, -10, 5_400_000)),
    "b": ("EPSG:4326", Affine(9e-5, 0, 10, 0, -9e-5, 60)),
    "c": ("EPSG:32733", Affine(10, 0, 300_000, 0, -10, 8_000_000)),
}
TIMES = {"a": "2021-06-01T10:20:30", "b": "2021-07-02T10:00:00", "c": ""}


def _write(file: Path, pixels: np.ndarray, name: str, **options: object) -> None:
    crs, transform = PLACES[name]
    file.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        file, "w", driver="GTiff", count=len(pixels), height=SIDE, width=SIDE,
        dtype=pixels.dtype, crs=crs, transform=transform, **options,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        if TIMES[name]:
            dataset.update_tags(datetime=TIMES[name])


def write_images(root: Path) -> None:
    """Write `optical`, `radar` and `maps`, the same every time."""
    rng = np.random.default_rng(7)
    for name in PLACES:
        optical = rng.integers(300, 3000, (3, SIDE, SIDE)).astype("uint16")
        if name == "b":
            optical[:, :, :4] = 0
        _write(root / f"optical/{name}.tif", optical, name, nodata=0)
        radar = np.stack([rng.normal(m, 2, (SIDE, SIDE)) for m in (-11, -18)]).astype("float32")
        _write(root / f"radar/{name}.tif", radar, name)
        codes = rng.choice([0, 1, 2, 4, 8], (1, SIDE, SIDE)).astype("uint8")
        _write(root / f"maps/{name}.tif", codes, name, nodata=0)


def read_back(store: Any) -> dict[str, object]:
    """What a `Store` of eofm, old or new, says of itself."""
    rows = range(len(store))
    imagery = store.images(rows)
    planes = {str(gsd): plane.numpy().tobytes() for gsd, plane in imagery.planes.items()}
    labels = store.labels(rows)
    store.verify()
    return {
        "ids": store.ids.tolist(),
        "locations": store.locations.tolist(),
        "dates": store.table["date"].to_pylist(),
        "centres": [store.table[key].to_pylist() for key in ("longitude", "latitude")],
        "planes": {gsd: hashlib.sha256(plane).hexdigest() for gsd, plane in planes.items()},
        "valid": hashlib.sha256(imagery.valid.numpy().tobytes()).hexdigest(),
        "classes": list(store.classes),
        "multi_hot": labels.multi_hot.int().tolist(),
        "known": labels.known.tolist(),
        "fractions": store.fractions(rows).tolist(),
        "valid_share": store.table["valid_share"].to_pylist(),
    }


def _write_stores(out: Path) -> None:
    # as the modules were called in 0.1
    from eofm.datasets.tiles import PackTilesConfig
    from eofm.datasets.tiles.pack import pack_tiles
    from eofm.store.paired import match_ids, write_pairs
    from eofm.store.reader import Store

    shutil.rmtree(out, ignore_errors=True)
    images = out / "images"
    write_images(images)
    optical = {"sensor": "s2-l2a", "unit": "dn", "bands": ["B02", "B03", "B04"]}
    radar = {"sensor": "s1-rtc", "unit": "db", "bands": ["VV", "VH"]}
    labels = {"landcover": str(images / "maps"), "scheme": "terramesh"}
    kinds = {
        "tiles": ("optical", {**optical, **labels}),
        "radar": ("radar", radar),
        "both/s2-l2a": ("optical", {**optical, **labels}),
        "both/s1-rtc": ("radar", radar),
    }
    for name, (folder, options) in kinds.items():
        pack_tiles(
            PackTilesConfig(
                images=str(images / folder), out=str(out / name), window=WINDOW, **options
            )
        )
    write_pairs(out / "both", match_ids(out / "both", ["s2-l2a", "s1-rtc"]))
    shutil.rmtree(images)
    read = {name: read_back(Store(out / name)) for name in kinds}
    (out / "expected.json").write_text(json.dumps(read, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    _write_stores(Path(sys.argv[1]))
