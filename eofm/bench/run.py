"""`eofm bench eurosat`: models and controls in, records and one table out.

The way of a pixel: tiles are checked for signs of a wrong declaration, each model takes them
through its own plan, features go to the cache, probes read them, scores become records. The test
split is scored once, after every choice has been made on train and val.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from eofm.bench import provenance
from eofm.bench.config import BenchEurosatConfig
from eofm.bench.features import FeatureCache, FeatureSource, extract
from eofm.bench.models import device_of, resolve_models
from eofm.bench.results import Made, Result, Sample, append_results, read_results, table
from eofm.bench.score import Scored, Splits, compare, run_probe
from eofm.bench.task import EUROSAT
from eofm.canary import check_signature
from eofm.data.eurosat import EuroSat, SplitRule, Tile, labels_of, open_eurosat, read_batches
from eofm.data.splits import hash_order, subset_hash
from eofm.errors import PixelError, RasterError
from eofm.imagery import Imagery, collate
from eofm.metrics import Metric
from eofm.probe import Labelled
from eofm.progress import track

_CANARY_TILES: Final = 128


@dataclass(frozen=True)
class BenchReport:
    """What a run of the benchmark gives back.

    Args:
        results: One record per model, probe and metric.
        appended: How many of them the file did not have yet.
        out: The file.
    """

    results: tuple[Result, ...]
    appended: int
    out: Path

    def describe(self) -> str:
        """Return the table, and where the records are."""
        known = len(self.results) - self.appended
        tail = f"{self.appended} new records in {self.out}" + f", {known} known" * bool(known)
        return f"{table(self.results)}\n\n{tail}"


def bench_eurosat(config: BenchEurosatConfig) -> BenchReport:
    """Score models and controls on EuroSAT MS.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If the folder is not EuroSAT, or results cannot be read or written.
        RasterError: If a tile is damaged.
        PixelError: If the pixels contradict what EuroSAT MS is.
        SpecMismatch: If a model cannot take its images.
        WeightsError: If a folder holds no encoder.
        ConfigError: If the settings contradict one another.
    """
    out = Path(config.out)
    read_results(out)  # a torn file is noticed before the work, not after
    sources = resolve_models(config, EUROSAT.waivers)
    for source in sources:
        source.identity(EUROSAT.spec)  # a model that cannot take the images says so now
    rule = None if config.split == "auto" else SplitRule(config.split)
    data = _limited(open_eurosat(config.root, rule), config.limit)
    _check_pixels(data)
    digests = _digests(data)
    start = time.monotonic()
    features = _features(config, sources, data, digests)
    seconds = time.monotonic() - start
    scored = {
        (source.name, kind): run_probe(
            kind, _splits(source, features, data), source.scaling, config.k
        )
        for source in track(sources, "probing models")
        for kind in config.probes
    }
    results = _records(config, sources, scored, _sample(data, digests), seconds)
    return BenchReport(results, append_results(out, results), out)


# ------------------------------------------------------------------------------ the data


def _limited(data: EuroSat, limit: int | None) -> EuroSat:
    if limit is None:
        return data
    splits = {}
    for name, tiles in data.splits.items():
        kept = set(hash_order((tile.id for tile in tiles), EUROSAT.name)[:limit])
        splits[name] = tuple(tile for tile in tiles if tile.id in kept)
    return replace(data, splits=splits)


def _check_pixels(data: EuroSat) -> None:
    tiles = data.splits["train"]
    step = -(-len(tiles) // _CANARY_TILES)
    try:
        check_signature(collate(list(read_batches(tiles[::step], 1))))
    except PixelError as error:
        error.where = f"{data.root}: {error.where}"
        raise


def _digests(data: EuroSat) -> dict[str, str]:
    """Return the sha256 of every tile's file, by id."""
    tiles = [tile for tiles in data.splits.values() for tile in tiles]
    digests = {}
    for tile in track(tiles, "hashing tiles"):
        try:
            digests[tile.id] = hashlib.sha256(tile.path.read_bytes()).hexdigest()
        except OSError as error:
            raise RasterError("a tile cannot be read", found=error, where=tile.path) from error
    return digests


def _content_hash(tiles: Iterable[Tile], digests: Mapping[str, str]) -> str:
    """Return the sha256 of ids and files, in order."""
    text = "\n".join(f"{tile.id} {digests[tile.id]}" for tile in tiles)
    return hashlib.sha256(text.encode()).hexdigest()


def _sample(data: EuroSat, digests: Mapping[str, str]) -> Sample:
    train, val, test = (data.splits[name] for name in ("train", "val", "test"))
    seen = {digests[tile.id] for tile in (*train, *val)}
    ids = (f"{name} {tile.id}" for name, tiles in data.splits.items() for tile in tiles)
    return Sample(
        dataset=EUROSAT.dataset,
        split=data.rule,
        ids_sha256=subset_hash(ids),
        data_sha256=_content_hash((*train, *val, *test), digests),
        n_train=len(train),
        n_val=len(val),
        n_test=len(test),
        complete=data.tiles == EUROSAT.size,
        copies=sum(digests[tile.id] in seen for tile in test),
    )


# -------------------------------------------------------------------- features and probes

# split -> name of the model -> (N, D)
_Features = Mapping[str, Mapping[str, Tensor]]


def _features(
    config: BenchEurosatConfig,
    sources: Sequence[FeatureSource],
    data: EuroSat,
    digests: Mapping[str, str],
) -> _Features:
    cache = FeatureCache(Path(config.cache) if config.cache else None)
    features = {}
    for split, tiles in data.splits.items():

        def batches(tiles: Sequence[Tile] = tiles, split: str = split) -> Iterable[Imagery]:
            total = -(-len(tiles) // config.batch)
            return track(
                read_batches(tiles, config.batch), f"embedding batches of {split} tiles", total
            )

        content = _content_hash(tiles, digests)
        features[split] = extract(sources, EUROSAT.spec, content, len(tiles), batches, cache)
    return features


def _splits(source: FeatureSource, features: _Features, data: EuroSat) -> Splits:
    train, val = (
        Labelled(features[name][source.name], labels_of(data.splits[name]), len(EUROSAT.classes))
        for name in ("train", "val")
    )
    ids = [tile.id for tile in data.splits["train"]]
    place = {name: rank for rank, name in enumerate(hash_order(ids, EUROSAT.name))}
    return Splits(
        train,
        val,
        features["test"][source.name],
        labels_of(data.splits["test"]),
        torch.tensor([place[name] for name in ids]),
    )


# ------------------------------------------------------------------------------- records


def _records(
    config: BenchEurosatConfig,
    sources: Sequence[FeatureSource],
    scored: Mapping[tuple[str, str], Scored],
    sample: Sample,
    feature_seconds: float,
) -> tuple[Result, ...]:
    models = {source.name: source.identity(EUROSAT.spec) for source in sources}
    made = Made(
        command=config.command(),
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=provenance.library_versions(),
        git=provenance.commit(),
        device=provenance.device_name(device_of(config.device)),
        feature_seconds=round(feature_seconds, 2),
        probe_seconds=0.0,
        peak_memory_mb=provenance.peak_memory_mb(),
    )

    def flags(name: str, kind: str, metric: Metric) -> tuple[str, ...]:
        one = scored[name, kind]
        found = one.faults()
        for other, identity in models.items():
            if identity.control and not models[name].control:
                control = scored[other, kind]
                found += compare(one, control, other, metric, config.bootstrap, config.seed)
        return found

    return tuple(
        Result(
            task=EUROSAT.name,
            version=EUROSAT.version,
            sample=sample,
            model=models[name],
            probe=one.probe.probe,
            strength=one.probe.strength,
            gradient_norm=one.probe.gradient_norm,
            metric=metric,
            value=one.value(metric),
            interval=one.interval(metric, config.bootstrap, config.seed),
            seed=config.seed,
            flags=flags(name, kind, metric),
            made=replace(made, probe_seconds=round(one.seconds, 2)),
        )
        for (name, kind), one in scored.items()
        for metric in EUROSAT.metrics
    )
