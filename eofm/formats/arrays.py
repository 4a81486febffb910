"""npy and npz: plain numbers in C order, of just the size that the header states."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_RATIO: Final = 64  # a packed archive may unpack to so many times its size
_ALWAYS: Final = 64 * 2**20


def map_npy(path: Path, *, writable: bool = False) -> NDArray[Any]:
    """Return the memory map of an npy file.

    Args:
        path: The file.
        writable: Let the array be written to; the file stays as it is.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is none, holds objects, is in Fortran order, or has another size than its
            header states; header parsers raise further kinds. See `foreign`.
    """
    with path.open("rb") as file:
        shape, dtype = _header(file)
        offset = file.tell()
        _check_size(shape, dtype, path.stat().st_size - offset)
    return np.memmap(path, dtype, "c" if writable else "r", offset, shape)


def read_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz archive; the crc32 of each is checked.

    Args:
        data: The bytes of the file.

    Raises:
        ValueError: If it holds objects, arrays of other sizes than stated, or would unpack to too
            much; zipfile raises further kinds. See `foreign`.
    """
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        asked = sum(member.file_size for member in archive.infolist())
        if asked > max(_ALWAYS, _RATIO * len(data)):
            raise ValueError(f"it would unpack to {asked} bytes")
        for member in archive.infolist():
            content = archive.read(member)
            stream = io.BytesIO(content)
            shape, dtype = _header(stream)
            _check_size(shape, dtype, len(content) - stream.tell())
            array = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
            arrays[member.filename.removesuffix(".npy")] = array.copy()  # which may be written to
    return arrays


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise ValueError(f"it holds {dtype}, not plain numbers")
    if fortran and len(shape) > 1:
        raise ValueError("its axes are in Fortran order")
    return shape, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], found: int) -> None:
    stated = dtype.itemsize
    for length in shape:
        if length < 0:
            raise ValueError(f"a shape of {shape}")
        stated *= length  # of Python: it does not overflow
    if stated != found:
        raise ValueError(f"{found} bytes of numbers; the header states {stated}")
