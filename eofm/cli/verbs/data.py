"""Verbs of images, stores and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.cli.verb import Verb
from eofm.cli.verbs.data_sets import data_set_verbs

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    **data_set_verbs("pack"),
    "data check": Verb(
        "look at a data set or a store, and say what is wrong with it; status 1 if anything is",
        "eofm.datasets.check.options:CheckConfig",
        "eofm.datasets.check.run:check_data",
        (
            "eofm data check DIR",
            "eofm data check DIR --limit 0 --json",
            "eofm data check DIR --sensor s2-l1c --unit dn",
        ),
    ),
    "card": Verb(
        "write a data card of a packed store",
        "eofm.store.config:CardConfig",
        "eofm.store.describe.card:write_card",
        ("eofm card STORE --out data_cards/mine.md --licence CC-BY-4.0",),
    ),
    "data show": Verb(
        "draw a packed store: places, label frequencies, co-occurrence, samples",
        "eofm.store.config:ShowConfig",
        "eofm.store.describe.show:show_store",
        ("eofm data show stores/mine", "eofm data show stores/mine --out mine.png --samples 21"),
    ),
    "data verify": Verb(
        "read every image of a packed store and compare its checksum",
        "eofm.store.config:VerifyConfig",
        "eofm.store.describe.report:verify_store",
        ("eofm data verify stores/mine", "eofm data verify stores/mine --threads 16"),
    ),
    "data stats": Verb(
        "mean, spread and percentiles of every band of a packed store, in one pass",
        "eofm.store.config:StatsConfig",
        "eofm.store.describe.stats:make_statistics",
        (
            "eofm data stats stores/mine",
            "eofm data stats stores/mine --split train --holdout 0.1 --seed 0 --sample 10000",
            "eofm data stats stores/ben --where '[\"split=train\"]'",
        ),
    ),
    "data relabel": Verb(
        "give a packed store other labels, without touching a pixel",
        "eofm.store.config:RelabelConfig",
        "eofm.store.edit.relabel:relabel_store",
        (
            "eofm data relabel stores/mine --labels labels.parquet --out stores/relabelled",
            "eofm data relabel stores/mine --labels labels.parquet --in_place true",
        ),
    ),
    "data upgrade": Verb(
        "bring a store of eofm 0.1 to the present version: its rows keep CRS and transform",
        "eofm.store.config:UpgradeConfig",
        "eofm.store.edit.upgrade:upgrade_store",
        (
            "eofm data upgrade stores/old --images DIR --out stores/new",
            "eofm data upgrade stores/old --images DIR --in_place true",
        ),
    ),
    "data subset": Verb(
        "copy some images of a packed store into a new one",
        "eofm.store.config:SubsetConfig",
        "eofm.store.edit.copy:subset_store",
        (
            "eofm data subset stores/mine --sample 1000 --out stores/small",
            "eofm data subset stores/mine --ids ids.txt --out stores/chosen",
            'eofm data subset stores/mine --where \'["latitude>=40", "class=water"]\' --out OUT',
        ),
    ),
    "data merge": Verb(
        "copy several packed stores of the same kind into one",
        "eofm.store.config:MergeConfig",
        "eofm.store.edit.copy:merge_stores",
        ("eofm data merge stores/north stores/south --out stores/both",),
    ),
    "labels": Verb(
        "count land-cover maps of any size: multi-labels for their windows, or for your scenes",
        "eofm.landcover.config:LabelsConfig",
        "eofm.landcover.run:write_labels",
        (
            "eofm labels MAP.tif --scheme worldcover --window 264 --out labels.parquet",
            "eofm labels DIR/maps --scenes STORE --scheme worldcover --out labels.parquet",
            "eofm labels DIR/dw --scenes DIR/images --scheme dynamic-world --dates %Y%m%d \\",
            "    --scene_dates %Y%m%d --max_gap_days 30 --workers 8 --out labels.parquet",
            "eofm labels fields.gpkg --field crop --scenes STORE --scheme my.yaml \\",
            "    --out labels.parquet",
            "eofm labels items.json --scenes footprints.parquet --scheme my.yaml \\",
            "    --dask tcp://host:8786 --out labels.parquet --resume",
            "",
            "a scheme of your own, my.yaml:",
            "  name: my-map",
            "  classes: {1: water, 2: forest, 3: forest, 7: fields}  # one name, one class",
            "  nodata: [0]",
            "  cloud: [10]",
            "  unknown: error  # or ignore: other codes count as nodata",
        ),
    ),
    "world": Verb(
        "write the embedded synthetic world as GeoTIFFs in the layout of SSL4EO-S12",
        "eofm.world.config:WorldConfig",
        "eofm.world.files:write_world",
        ("eofm world --out worlds/mine --scenes 50 --seed 1",),
    ),
}
