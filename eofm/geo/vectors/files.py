"""Open embeddings from any supported file, also of other programs.

chips.parquet      GeoParquet of eofm, Earth Index or Clay     -> `ChipTable`
patches.tif        GeoTIFF of eofm                             -> `PatchGrid`
patches.zarr       Zarr of eofm                                -> `PatchGrid`
a folder           what `eofm embed --out` wrote: whichever of the three it holds
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from eofm.errors import ConfigError, DataError
from eofm.geo.vectors.chip_file import SUFFIXES, read_chips
from eofm.geo.vectors.embeddings import ChipTable, Layout, PatchGrid
from eofm.geo.vectors.grid_file import TIFF, ZARR, read_tiff, read_zarr

CHIPS: Final = "chips.parquet"
PATCHES_TIFF: Final = "patches.tif"
PATCHES_ZARR: Final = "patches.zarr"


def open_embeddings(path: Path | str, layout: Layout | None = None) -> ChipTable | PatchGrid:
    """Open embeddings; vectors stay on the disk until they are used.

    Args:
        path: A file, or the folder that `eofm embed` wrote.
        layout: Which of those in the folder; a file of the other one is refused. None: whichever
            there is.

    Raises:
        DataError: If there are none, or they are damaged.
        ConfigError: If a folder holds both layouts and none is named, or the libraries are not
            installed.
    """
    path = Path(path)
    file = _in_folder(path, layout) if path.is_dir() and path.suffix != ZARR else path
    if not file.exists():
        raise DataError("there are no such embeddings", where=file)
    suffix = file.suffix.lower()
    found = Layout.CHIPS if suffix in SUFFIXES else Layout.PATCHES
    if suffix not in SUFFIXES | TIFF | {ZARR}:
        raise DataError(
            "embeddings are not kept in such a file",
            found=suffix or file.name,
            expected=", ".join(sorted({*SUFFIXES, *TIFF, ZARR})),
            where=file,
        )
    if layout not in {None, found}:
        raise DataError(
            f"these embeddings are {found}",
            expected=str(layout),
            where=file,
            remedy=f"make the others, as in: eofm embed SCENE --model M --{layout} --out DIR",
        )
    if suffix in SUFFIXES:
        return read_chips(file)
    return read_zarr(file) if suffix == ZARR else read_tiff(file)


def open_chips(path: Path | str) -> ChipTable:
    """Open embeddings of chips: see `open_embeddings`."""
    found = open_embeddings(path, Layout.CHIPS)
    assert isinstance(found, ChipTable)  # noqa: S101 (the layout says so)
    return found


def open_patches(path: Path | str) -> PatchGrid:
    """Open embeddings of patches: see `open_embeddings`."""
    found = open_embeddings(path, Layout.PATCHES)
    assert isinstance(found, PatchGrid)  # noqa: S101 (the layout says so)
    return found


def _in_folder(folder: Path, layout: Layout | None) -> Path:
    chips, patches = folder / CHIPS, folder / PATCHES_TIFF
    if not patches.exists():
        patches = folder / PATCHES_ZARR
    wanted = {Layout.CHIPS: chips, Layout.PATCHES: patches}
    there = [kind for kind, file in wanted.items() if file.exists() and layout in {None, kind}]
    if len(there) == 1:
        return wanted[there[0]]
    if there:
        raise ConfigError(
            "the folder holds embeddings of chips and of patches",
            where=folder,
            remedy=f"name one of the two: {chips} or {patches}",
        )
    scenes = sorted(f.parent for f in folder.glob("*/*") if f.name in {CHIPS, PATCHES_TIFF})
    raise DataError(
        f"there are no embeddings{'' if layout is None else f' of {layout}'} in the folder",
        found=", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "an empty folder",
        expected=f"{CHIPS}, {PATCHES_TIFF} or {PATCHES_ZARR}",
        where=folder,
        remedy=f"name the folder of one scene: {scenes[0]}"
        if scenes
        else "eofm embed SCENE --model M --out DIR",
    )
