"""Verbs of whole scenes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.cli.verb import Verb

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    "embed": Verb(
        "turn whole scenes into vectors: one for each chip (GeoParquet) or patch (GeoTIFF, Zarr)",
        "eofm.geo.embedding.config:EmbedConfig",
        "eofm.geo.embedding.embed:embed",
        (
            "eofm embed S2B_MSIL1C_20210704T...SAFE --model softcon_vits14_s2 --out DIR",
            "eofm embed scene.tif --sensor s2-l2a --unit dn --model runs/mine --patches --out DIR",
            "eofm embed scene.tif --sensor s2-l1c --unit dn --model runs/mine --chips 32 \\",
            "    --where 11.30,48.05,11.40,48.10 --out DIR",
            "eofm embed items.json --model runs/mine --cloud_mask SCL --workers 4 --out DIR",
            "eofm embed scene.tif --sensor s2-l1c --unit dn --model runs/mine --patches \\",
            "    --out DIR --explain",
        ),
        (
            "model",
            "out",
            "sensor",
            "unit",
            "chips",
            "stride",
            "grid",
            "patches",
            "window",
            "overlap",
            "where",
            "cloud_mask",
            "min_valid",
            "quantization",
            "formats",
            "workers",
            "device",
            "devices",
            "dask",
            "explain",
        ),
    ),
}
