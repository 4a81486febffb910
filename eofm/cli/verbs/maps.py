"""Verbs of vectors on the ground: what is made of a scene's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.cli.verb import Verb

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    "map": Verb(
        "learn a map of classes from polygons or points, with its accuracy",
        "eofm.geo.maps_config:MapConfig",
        "eofm.geo.mapping.map_files:run_map",
        (
            "eofm map EMB --labels fields.gpkg --field crop --out maps/crops",
            "eofm map EMB --labels drawn.gpkg visited.geojson --field class --block 2000",
            "eofm map EMB --labels sample.gpkg --field class --design random",
            "eofm map EMB --labels fields.gpkg --field crop --also EMB_2023 EMB_2024",
        ),
    ),
    "search": Verb(
        "find places that look like others: a place, polygons, or polygons and counterexamples",
        "eofm.geo.maps_config:SearchConfig",
        "eofm.geo.search_files:run_search",
        (
            "eofm search EMB --at 11.35,48.07",
            "eofm search EMB --like solar.gpkg --unlike roofs.gpkg --top 200 --out found",
            "eofm search EMB --like solar.gpkg --scene SCENE --sensor s2-l2a --unit dn",
        ),
    ),
    "change": Verb(
        "find where two dates differ more than unchanged ground does, at a stated rate of errors",
        "eofm.geo.maps_config:ChangeConfig",
        "eofm.geo.change_files:run_change",
        (
            "eofm change EMB_2019 EMB_2024 --null EMB_2018 EMB_2017 --rate 0.001",
            "eofm change EMB_2019 EMB_2024 --rate 0.01 --smallest 3 --out changed",
        ),
    ),
    "explore": Verb(
        "write one HTML file in which a click shows where it looks alike; no server, no network",
        "eofm.geo.maps_config:ExploreConfig",
        "eofm.geo.explore:run_explore",
        (
            "eofm explore EMB --out explore.html",
            "eofm explore EMB --scene SCENE --sensor s2-l2a --unit dn",
        ),
    ),
}
