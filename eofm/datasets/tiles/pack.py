"""`eofm pack tiles`: a folder of GeoTIFFs, and a land-cover map, into a packed store.

Every image is looked at before anything is written: its bands, its size, and whether its unit can
be the stated one (`eofm.contract.validity`). Then windows are cut, labelled and committed one by
one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Final, Literal

import eofm
from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import Sensor, Unit
from eofm.contract.validity import Doubt
from eofm.datasets.images.places import Places, find_places, known_unit, state_units
from eofm.datasets.tiles import PackTilesConfig
from eofm.errors import ConfigError, DataError, LabelError, PixelError, StoreError
from eofm.io import prefetched
from eofm.landcover.maps import DatePattern, LandCover, MapsOnGrid, find_maps
from eofm.landcover.multilabel import Reason
from eofm.landcover.schemes import SCHEMES, find_scheme
from eofm.raster.folder import list_sources
from eofm.raster.grid import Grid, Window, windows
from eofm.raster.safe import of_product
from eofm.raster.source import OpenRaster, RasterSource, find_doubt
from eofm.store.describe import PackReport
from eofm.store.format import Entry, LabelRule, Plain, StoreCard
from eofm.store.grids import located
from eofm.store.packing import check_sources, stored_spec, to_stored
from eofm.store.writer import StoreWriter
from eofm.terminal import track

__all__ = ["pack_tiles"]

_CHUNK_BYTES: Final = 16 * 1024**2  # of pixels that are read at once; threads hold a few of them

_Row = tuple[Entry, NativeImagery] | DataError | Literal[True] | None
"""A window: what to commit; why it cannot be read; True if it is in the store; None if left out."""


def pack_tiles(config: PackTilesConfig) -> PackReport:
    """Cut, label and pack the images of a folder.

    A run that was interrupted resumes where it stopped when it is called again. Images that are
    committed must still be there with the same unit; others may have been repaired or removed.

    Images whose footprints overlap share a `location`, called like the first of them, and each
    has its own name as `season`; `place` states the locations by a pattern of names instead.

    Args:
        config: What to pack, and how.

    Returns:
        What the store holds.

    Raises:
        ConfigError: If settings do not fit the images.
        RasterError: If there are no images, or one cannot be read.
        PixelError: If an image cannot be in the unit stated for it.
        LabelError: If the map does not overlap an image or holds unknown codes.
        StoreError: If `out` holds something else, or cannot be written.
    """
    unit = None if config.unit is None else Unit(config.unit)
    sources = state_units(
        list_sources(config.images, Sensor(config.sensor), unit, config.bands),
        {pattern: Unit(unit) for pattern, unit in config.unit_of.items()},
    )
    sources = [known_unit(of_product(source)) for source in sources]
    maps = _find_land_cover(config)
    with StoreWriter(config.out, _card(config, sources[0], maps)) as writer:
        check_sources(writer, {source.name: source.unit for source in sources if source.unit})
        if writer.complete:
            return _finished(config, maps, already=True)
        left = [source for source in sources if source.name not in writer.skipped]
        total, grids = _survey(left, config, maps)
        grids = {s.name: grids[s.name] if s.name in grids else _grid(s) for s in sources}
        places = _as_recorded(find_places(grids, config.place), writer)
        packing = _Packing(config, maps, writer, places)
        for _ in track(packing.pack(left), "packing windows", total):
            pass
        if not writer.ids:
            raise PixelError(
                "no window has enough valid pixels",
                found=f"{sum(writer.skipped.values())} windows, all below",
                expected=f"a share of {config.min_pixels:g} valid pixels (min_pixels)",
                where=config.images,
                remedy="check the declared nodata of the files, or lower --min_pixels",
            )
        writer.finish()
    report = _finished(config, maps, already=False)
    return replace(report, after=(*report.after, *places.remarks))


def _finished(config: PackTilesConfig, maps: LandCover | None, *, already: bool) -> PackReport:
    report = PackReport.of(Path(config.out), already=already)
    report = report.then(verify=config.verify, stats=config.stats, workers=config.workers)
    notes = () if maps is None else maps.maps.notes()
    return replace(report, after=(*notes, *report.after))


def _grid(source: RasterSource) -> Grid | None:
    """Return where an image lies; None where it cannot be read any more."""
    try:
        with source.open() as raster:
            return raster.grid
    except DataError:
        return None


def _as_recorded(places: Places, writer: StoreWriter) -> Places:
    """Return the places under the names they have in the rows that are committed.

    Raises:
        StoreError: If images that were added make one place of two that are in the store.
    """
    names: dict[str, str] = {}
    for source, recorded in writer.source_locations.items():
        place = places.of.get(source, recorded)
        if names.setdefault(place, recorded) != recorded:
            raise StoreError(
                "two places of this unfinished store are one: images overlap that did not before",
                found=f"{names[place]} and {recorded}",
                where=writer.path,
                remedy="choose another --out, or take out the images that were added",
            )
    return replace(places, of={n: names.get(place, place) for n, place in places.of.items()})


# ---------------------------------------------------------------------------- settings


def _find_land_cover(config: PackTilesConfig) -> LandCover | None:
    """Return the maps that label the images; None for an unlabelled store."""
    if config.landcover is None or config.scheme is None:
        return None
    scheme = find_scheme(config.scheme)
    dates = None if config.dates is None else DatePattern(config.dates)
    maps = find_maps([config.landcover], dates, config.asset, config.field)
    maps.check_dates(config.max_gap_days)
    return LandCover(maps, scheme, config.max_gap_days)


def _date_of(raster: OpenRaster, config: PackTilesConfig) -> str:
    """Return when an image was taken: as its name or, where that is not asked for, its tags say."""
    if config.scene_dates is None:
        return raster.date
    return str(DatePattern(config.scene_dates).find(raster.source.name)).partition("/")[0]


def _map_settings(config: PackTilesConfig, maps: LandCover | None) -> dict[str, Plain]:
    """Return what else decides labels, where it is stated: stores without it do not mention it."""
    names = ("dates", "scene_dates", "max_gap_days", "asset", "field")
    stated: dict[str, Plain] = {
        name: getattr(config, name) for name in names if getattr(config, name) is not None
    }
    if maps is not None and maps.scheme.name not in SCHEMES:
        stated["scheme_digest"] = maps.scheme.digest
    return stated


def _card(config: PackTilesConfig, first: RasterSource, maps: LandCover | None) -> StoreCard:
    """Return what the store will say of itself, as far as the first image tells."""
    labels = None
    if maps is not None:
        labels = LabelRule(
            maps.scheme.name, maps.scheme.names, float(config.threshold), float(config.min_valid)
        )
    with first.open() as raster:
        _check_windows(raster, config)
        window = Window(0, 0, config.window, config.window)
        spec = stored_spec(raster, (config.window, config.window))
        with first.naming():
            sample = to_stored(raster.read_native(window), spec, first.name)
    return StoreCard(
        spec=spec,
        groups=dict(sample.bands),
        labels=labels,
        settings={
            "verb": "pack tiles",
            "images": Path(config.images).as_posix(),
            "landcover": config.landcover and Path(config.landcover).as_posix(),
            "window": config.window,
            "stride": config.stride or config.window,
            "min_pixels": float(config.min_pixels),
            # not where it is absent: stores of 0.1 have no such setting
            **({} if config.place is None else {"place": config.place}),
            **_map_settings(config, maps),
        },
        provenance={
            "eofm": eofm.__version__,
            "unit": config.unit or str(first.unit),
            "unit_of": dict(config.unit_of),
        },
    )


def _check_windows(raster: OpenRaster, config: PackTilesConfig) -> None:
    step, grid, name = raster.coarsest, raster.grid, raster.source.name
    stride = config.stride or config.window
    if config.window % step or stride % step:
        raise ConfigError(
            "windows must start and end between pixels of the coarsest band",
            found=f"window {config.window}, stride {stride}",
            expected=f"multiples of {step}",
            where=name,
            remedy=f"--window {max(config.window // step, 1) * step} "
            f"--stride {max(stride // step, 1) * step}",
        )
    if config.window > min(grid.height, grid.width):
        raise ConfigError(
            "an image is smaller than the window",
            found=f"{grid.height} x {grid.width} pixels",
            expected=f"at least {config.window} x {config.window} (window)",
            where=name,
            remedy=f"--window {min(grid.height, grid.width) // step * step}, or remove the image",
        )


# ------------------------------------------------------------------- before it is written


def _survey(
    sources: Sequence[RasterSource], config: PackTilesConfig, maps: LandCover | None
) -> tuple[int, dict[str, Grid | None]]:
    """Look at every image; return the number of windows and all grids, or refuse the images."""
    doubts: dict[str, list[tuple[RasterSource, Doubt]]] = {}
    grids: dict[str, Grid | None] = {}
    total = 0
    for source in track(sources, "checking images"):
        with source.open() as raster:
            _check_windows(raster, config)
            grids[source.name] = raster.grid
            total += sum(1 for _ in _windows(raster, config))
            doubt = find_doubt(raster)
            if doubt is not None:
                doubts.setdefault(doubt.problem, []).append((source, doubt))
            if maps is not None:
                with maps.on(raster.grid, source.name, _date_of(raster, config)) as view:
                    _require_map(view, raster, config)
    if doubts:
        raise _refusal(next(iter(doubts.values())), of=len(sources))
    return total, grids


def _require_map(view: MapsOnGrid, raster: OpenRaster, config: PackTilesConfig) -> None:
    """Refuse an image without a map, unless such images may be unlabelled."""
    if view.reason is Reason.KNOWN or config.allow_unlabelled:
        return
    longitude, latitude = raster.grid.centre()
    place = f"longitude {longitude:.4f}, latitude {latitude:.4f}"
    if view.reason is Reason.NO_MAP:
        raise LabelError(
            "no land-cover map overlaps the image",
            expected=f"a map over {place}",
            where=f"{raster.source.name} and {config.landcover}",
            remedy="choose maps of the same place; check the CRS of both; or pack such images "
            "unlabelled: --allow_unlabelled true",
        )
    raise LabelError(
        "no land-cover map of the image's time",
        found=f"{view.reason}: {_date_of(raster, config) or 'no date'}",
        expected=f"a map over {place} within {config.max_gap_days:g} days",
        where=f"{raster.source.name} and {config.landcover}",
        remedy="raise --max_gap_days, say where names tell the date with --scene_dates, or pack "
        "such images unlabelled: --allow_unlabelled true",
    )


def _windows(raster: OpenRaster, config: PackTilesConfig) -> Iterator[Window]:
    grid = raster.grid
    return windows(grid.height, grid.width, config.window, config.stride or config.window)


def _refusal(doubted: Sequence[tuple[RasterSource, Doubt]], of: int) -> PixelError:
    """Return one error that names every image with the same fault, of so many images."""
    first, doubt = doubted[0]
    names = [PurePosixPath(source.name).name for source, _ in doubted]
    shown = [f"{name}: {d.found}" for name, (_, d) in zip(names, doubted[:10], strict=False)]
    remedy = first.with_file(doubt.remedy, doubt.band)
    if doubt.instead is not None and len(doubted) == of:
        remedy += f": --unit {doubt.instead}"
    elif doubt.instead is not None:
        remedy += f": --unit_of {quote(json.dumps(dict.fromkeys(names[:10], doubt.instead.value)))}"
    return PixelError(
        doubt.problem,
        found="; ".join(shown) + (f"; and {len(doubted) - 10} more" if doubted[10:] else ""),
        expected=doubt.expected,
        where=first.files[0].parent,
        remedy=remedy,
    )


# ------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class _Chunk:
    """Some windows of an image that are read at once.

    Args:
        source: The image.
        windows: Which.
        last: Whether they are the last of the image.
    """

    source: RasterSource
    windows: tuple[Window, ...]
    last: bool


@dataclass(frozen=True)
class _Packing:
    """One run: the settings, the maps, the store and the places of the images."""

    config: PackTilesConfig
    maps: LandCover | None
    writer: StoreWriter
    places: Places

    def pack(self, sources: Sequence[RasterSource]) -> Iterator[None]:
        """Pack all windows of all images, yielding after each window."""
        skipped = 0
        for chunk, rows in _ahead(self._read, self._chunks(sources), self.config.workers):
            for row in rows:
                if isinstance(row, DataError):
                    raise self._with_remedy(row)
                if isinstance(row, tuple):
                    self.writer.append(*row)
                skipped += row is None
                yield
            if chunk.last:
                self.writer.source_done(chunk.source.name, skipped)
                skipped = 0

    def _with_remedy(self, error: DataError) -> DataError:
        error.remedy = (
            f"{error.remedy or 'repair or remove the image'}; then run the same "
            f"command again: {len(self.writer)} windows are kept"
        )
        return error

    def _chunks(self, sources: Sequence[RasterSource]) -> Iterator[_Chunk]:
        at_once = max(1, _CHUNK_BYTES // self.writer.card.row_bytes)
        for source in sources:
            try:
                with source.open() as raster:
                    found = list(_windows(raster, self.config))
            except DataError as error:
                raise self._with_remedy(error) from error
            for start in range(0, len(found), at_once):
                part = tuple(found[start : start + at_once])
                yield _Chunk(source, part, start + at_once >= len(found))

    def _read(self, chunk: _Chunk) -> list[_Row]:
        """Read some windows, up to the first that cannot be read; its error is the last row."""
        rows: list[_Row] = []
        try:
            with ExitStack() as stack:
                raster = stack.enter_context(chunk.source.open())
                view = None
                if self.maps is not None:
                    date = _date_of(raster, self.config)
                    on = self.maps.on(raster.grid, chunk.source.name, date)
                    view = stack.enter_context(on)
                    _require_map(view, raster, self.config)
                centres = raster.grid.centres(chunk.windows)
                for window, centre in zip(chunk.windows, centres, strict=True):
                    rows.append(self._read_window(raster, view, window, centre))
        except DataError as error:
            rows.append(error)
        return rows

    def _read_window(
        self,
        raster: OpenRaster,
        view: MapsOnGrid | None,
        window: Window,
        centre: tuple[float, float],
    ) -> _Row:
        source, card = raster.source, self.writer.card
        identifier = f"{source.name}_{window.row}_{window.col}"
        if identifier in self.writer.ids:
            return True
        with source.naming():
            imagery = to_stored(raster.read_native(window), card.spec, source.name)
        if float(imagery.valid.float().mean()) < self.config.min_pixels:
            return None
        entry = Entry(
            id=identifier,
            location=self.places.of[source.name],
            season=self.places.season_of(source.name),
            longitude=centre[0],
            latitude=centre[1],
            date=_date_of(raster, self.config),
            source=source.name,
            source_unit=raster.unit.value,
        )
        if view is not None and card.labels is not None:
            cover = view.cover(window, imagery.valid[0].numpy(), identifier)
            entry = entry.labelled(cover, card.labels)
        return located(entry, raster.grid.at(window)), imagery


def _ahead(
    read: Callable[[_Chunk], list[_Row]], chunks: Iterator[_Chunk], workers: int
) -> Iterator[tuple[_Chunk, list[_Row]]]:
    """Yield chunks and what was read of them, in order; threads read a few ahead."""
    if workers == 1:
        yield from ((chunk, read(chunk)) for chunk in chunks)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from prefetched(chunks, lambda chunk: pool.submit(read, chunk), workers)
