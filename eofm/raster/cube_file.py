"""One time step of an xarray object, or of a netCDF or Zarr file, as the pixels of a scene.

`eofm.raster.cube` interprets its values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eofm.errors import RasterError, SpecError, as_argument
from eofm.formats.arrays import check_zarr
from eofm.raster.cube import ONE_AT_A_TIME, Cube, with_plain_names

__all__ = ["SUFFIXES", "CubeFile", "date_at", "is_cube", "time_dimension"]

SUFFIXES: Final = frozenset({".nc", ".nc4", ".cdf", ".zarr"})
_SHOWN: Final = 5  # times of a series in a message


@dataclass(frozen=True, eq=False)
class CubeFile:
    """One time of an array.

    Args:
        array: The array; or its file, which is opened for every read.
        time: Time to select, as in `2021-07-04`. None if there is only one.
        gsd: Metres per pixel. None derives it from CRS and coordinates.
        date: The selected time, `YYYY-MM-DDTHH:MM:SS`; empty if unknown.
    """

    array: Cube | Path = field(repr=False)
    time: str | None = None
    gsd: float | None = None
    date: str = ""

    @property
    def origin(self) -> str:
        """The file or object that was opened."""
        return str(self.array) if isinstance(self.array, Path) else "an xarray object"

    @contextmanager
    def open_whole(self) -> Iterator[Cube]:
        """Open the array with all its times.

        Raises:
            RasterError: If the file cannot be read.
        """
        if not isinstance(self.array, Path):
            yield with_plain_names(self.array)
            return
        with ONE_AT_A_TIME:
            cube = _open_file(self.array)
            for coordinate in cube.coords.values():
                if coordinate.ndim < 2:
                    coordinate.load()
        try:
            yield with_plain_names(cube)
        finally:
            with ONE_AT_A_TIME:
                cube.close()

    @contextmanager
    def open(self) -> Iterator[Cube]:
        """Open the array with the dimensions band, y and x, at one time.

        Values are as stored: `from_xarray` applies nodata, scale and offset by the common rules, so
        digital numbers stay exact.

        Raises:
            RasterError: If the file cannot be read, or holds several times.
        """
        with self.open_whole() as cube:
            dim = time_dimension(cube)
            if dim is None and self.time is not None:
                raise RasterError(
                    "the array has no times to choose from",
                    found=", ".join(map(str, cube.dims)),
                    where=self.origin,
                    remedy="omit the time",
                )
            yield cube if dim is None else cube.isel({dim: _index(cube, dim, self.time)})


def is_cube(path: Path) -> bool:
    """Return whether a path is a netCDF file or a Zarr group, whatever its name."""
    zarr = (path / name for name in ("zarr.json", ".zgroup", ".zmetadata"))
    return path.suffix.lower() in SUFFIXES or any(file.is_file() for file in zarr)


def _open_file(path: Path) -> xr.Dataset:
    if not path.exists():
        raise RasterError("there is no such file", where=path)
    zarr = path.is_dir()
    try:
        if zarr:
            import zarr as zarr_library

            group = zarr_library.open_group(path, mode="r")
            arrays = dict(group.arrays())
            if not arrays:
                raise _of_groups(path, [name for name, _ in group.members(max_depth=None)])
            check_zarr(arrays, [name for name, one in arrays.items() if one.ndim == 1], path)
            # a group of a product has no consolidated metadata of its own, which xarray warns of
            alone = (path / ".zgroup").is_file() and not (path / ".zmetadata").is_file()
            opened: xr.Dataset = xr.open_zarr(
                path, consolidated=False if alone else None, mask_and_scale=False, chunks=None
            )
            return opened[sorted(opened.data_vars, key=_by_number)]  # not as the disk lists them
        return xr.open_dataset(path, mask_and_scale=False)
    except ImportError as error:
        raise _no_engine(path, zarr, error) from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        if not zarr and not path.stat().st_size:
            raise RasterError(
                "the file is empty",
                found="0 bytes",
                expected="netCDF",
                where=path,
                remedy="copy or download it again",
            ) from error
        if isinstance(error, ValueError) and "engine" in str(error):
            raise _no_engine(path, zarr, error) from error
        raise RasterError(
            f"the file cannot be read as {'Zarr' if zarr else 'netCDF'}",
            found=str(error).strip().partition("\n")[0] or type(error).__name__,
            where=path,
            remedy="copy or download it again",
        ) from error


def _by_number(name: object) -> str:
    """Return the key that sorts B2, B8A and B11 in this order."""
    return re.sub(r"\d+", lambda number: number[0].zfill(3), str(name))


def _of_groups(path: Path, members: Sequence[str]) -> RasterError:
    """Return the error for a Zarr folder whose arrays are in groups, as of EOPF products."""
    groups = sorted({name.rpartition("/")[0] for name in members if "/" in name} & set(members))
    inner = [name for name in groups if not any(one.startswith(f"{name}/") for one in groups)]
    named = [name for name in inner if "reflectance" in name] or inner
    return RasterError(
        "the Zarr folder holds groups, and one image is wanted",
        found=", ".join(named[:_SHOWN]) or "no array",
        expected="a group whose arrays are the bands of an image",
        where=path,
        remedy=f"name one of them, as in {quote(str(path / named[0]))}" if named else None,
    )


def _no_engine(path: Path, zarr: bool, error: Exception) -> RasterError:
    return RasterError(
        f"xarray lacks the library to read {'Zarr' if zarr else 'netCDF'}",
        found=str(error).partition("\n")[0],
        where=path,
        remedy=f"pip install {'zarr' if zarr else 'netcdf4'}",
    )


def time_dimension(cube: Cube) -> str | None:
    """Return the time dimension of an array, if it has one."""
    for dim in cube.dims:
        if dim not in cube.coords:
            continue
        texts = str(dim) in _TIME and 0 < cube.sizes[dim] == len(_times(cube, str(dim)))
        if texts or cube.coords[dim].dtype.kind == "M":
            return str(dim)
    return None


_TIME: Final = frozenset({"time", "t", "date", "dates"})
_ISO: Final = re.compile(
    r"(\d{4})(-?)(\d{2})\2(\d{2})(?:[T ](\d{2}):?(\d{2})(?::?(\d{2})(?:\.\d+)?)?)?(?:Z|\+00:?00)?"
)


def _times(cube: Cube, dim: str) -> NDArray[np.datetime64]:
    """Return the times along a dimension, (N,), or fewer if its coordinates are no times.

    Files and tables also state them as texts, 2021-07-04 or 20210704T101031, or as such numbers.
    """
    stated = cube.coords[dim].to_numpy()
    if stated.dtype.kind == "M":
        return stated
    texts = (one.decode("latin-1") if isinstance(one, bytes) else str(one) for one in stated)
    found = []
    for match in filter(None, (_ISO.fullmatch(text.strip()) for text in texts)):
        year, _, month, day, hour, minute, second = (part or "00" for part in match.groups())
        with suppress(ValueError):  # the 30th of February
            text = f"{year}-{month}-{day}T{hour}:{minute}:{second}"
            found.append(np.datetime64(text, "s"))
    return np.array(found, "datetime64[s]")


def date_at(cube: Cube, time: str | None) -> str:
    """Return the selected time of an array, `YYYY-MM-DDTHH:MM:SS`; empty if it has none.

    Raises:
        RasterError: If it holds several times and none is selected, or the selected one is missing.
    """
    dim = time_dimension(cube)
    if dim is not None:
        value = _times(cube, dim)[_index(cube, dim, time)]
    else:
        times = [c for c in cube.coords.values() if c.dtype.kind == "M" and c.ndim == 0]
        if len(times) != 1:
            return ""
        value = times[0].to_numpy()
    return _shown(value)


def _index(cube: Cube, dim: str, time: str | None) -> int:
    times = _times(cube, dim)
    if time is None:
        if len(times) == 1:
            return 0
        raise RasterError(
            f"an image is expected, but the array holds {len(times)} times",
            found=_listed(times),
            expected="one of them",
            remedy=f"state which, as in {as_argument('time', _shown(times[0]))}",
        )
    try:
        wanted = np.datetime64(time.removesuffix("Z") if isinstance(time, str) else time)
    except ValueError as error:
        raise SpecError(
            "a time must be a date, or a date and a time of day",
            found=time,
            remedy=as_argument("time", "2021-07-04"),
        ) from error
    (places,) = np.nonzero(times.astype(wanted.dtype) == wanted)
    if len(places) == 1:
        return int(places[0])
    near = times[np.argsort(np.abs(times - wanted.astype(times.dtype)))][:_SHOWN]
    raise RasterError(
        f"the array holds {len(places) or 'no'} image{'s' * (len(places) > 1)} of that time",
        found=_listed(np.sort(times[places] if len(places) else near)),
        expected=time,
        remedy=f"state another, as in {as_argument('time', _shown(near[0]))}",
    )


def _listed(times: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    texts = [_shown(time) for time in times[:_SHOWN]]
    return ", ".join(texts) + (f", ... ({len(times)})" if len(times) > _SHOWN else "")


def _shown(time: np.generic | np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    return str(np.asarray(time).astype("datetime64[s]"))
