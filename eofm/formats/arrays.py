"""Files of numbers: npy and npz, torch, safetensors, Zarr; no torch until a tensor is read.

An npy file contains plain numbers in C order, of exactly the size stated in its header.
`torch.save` writes a zip archive with a crc32 of every tensor, which torch does not check. Here it
is checked, once per process and state of the file. Archives from before torch 1.6 and safetensors
have no checksum: they can only be compared with a hash from a card or a publisher.
"""

from __future__ import annotations

import io
import math
import threading
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from eofm.formats.foreign import mark_whole, seen_whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_whole", "check_zarr", "map_npy", "read_npz", "read_safetensors", "read_torch"]

_RATIO: Final = 64  # limit of the unpacked size, as a multiple of the archive
_ALWAYS: Final = 64 * 2**20
# NumPy evaluates a header as Python source, and the parser of CPython 3.11 counts its depth for all
# threads together: if garbage collection interrupts it, and a finalizer lets another thread read a
# header, it raises SystemError (cpython#106905). A finalizer may read a header itself.
_ONE_HEADER: Final = threading.RLock()


def map_npy(path: Path, *, writable: bool = False) -> NDArray[Any]:
    """Return the memory map of an npy file.

    Args:
        path: The file.
        writable: Whether the array can be written to; the file does not change.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is not an npy file, contains objects, is in Fortran order, or differs in
            size from its header; header parsers raise further kinds. See `foreign`.
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
        ValueError: If it contains objects, arrays of other sizes than stated, or would unpack to
            too much; zipfile raises further kinds. See `foreign`.
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
            arrays[member.filename.removesuffix(".npy")] = array.copy()  # writable
    return arrays


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"npy version {version}")
    with _ONE_HEADER:
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
        stated *= length  # a Python integer: it does not overflow
    if stated != found:
        raise ValueError(f"{found} bytes of numbers; the header states {stated}")


# ----------------------------------------------------------------------------------------- tensors


_CHUNK: Final = 1 << 20
# torch lets a file call `bytearray`, with as much memory as the file states.
_GREEDY: Final = b"bytearray"


def read_torch(path: Path, *, mapped: bool = False) -> Any:  # noqa: ANN401 (whatever was saved)
    """Return the content written by `torch.save`: tensors and plain values; code is never run.

    Args:
        path: The file.
        mapped: Whether the tensors are mapped from the file lazily.

    Raises:
        ValueError: If bytes have changed since they were written; torch raises eight further kinds.
            See `foreign`.
    """
    import torch

    check_whole(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)


def check_whole(path: Path) -> None:
    """Check the checksums in a torch archive; archives without checksums pass.

    Raises:
        OSError: If it cannot be read.
        ValueError: If bytes have changed, or it would unpack to more than its size;
            `zipfile.BadZipFile` if the archive itself is damaged.
    """
    status = path.stat()
    if seen_whole(path):
        return
    with path.open("rb") as file:
        packed = file.read(4) == b"PK\x03\x04"
    if packed:
        _check_archive(path, status.st_size)
    mark_whole(path, status)


def _check_archive(path: Path, size: int) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > size:
            raise ValueError("it would unpack to more than its size; torch packs nothing")
        for member in members:
            with archive.open(member) as part:  # checks the crc32 at its end
                start = part.read(_CHUNK)
                if member.filename.endswith("/data.pkl"):
                    start += part.read()
                    if _GREEDY in start:
                        raise ValueError("it holds more than tensors: a bytearray")
                while part.read(_CHUNK):
                    pass


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        SafetensorError: If it is damaged; further kinds are possible. See `foreign`.
    """
    from safetensors.torch import load_file

    return load_file(path)


# ------------------------------------------------------------------------------------------- Zarr

# Limits for reading: a multiple of the files' bytes, or an absolute number. A chunk is unpacked
# whole, whatever part is requested. The number of chunks is limited too.
_ZARR_RATIO: Final = 2_000
_ZARR_ALWAYS: Final = 2**29
_CHUNKS: Final = 10_000


def check_zarr(arrays: Mapping[str, Any], whole: Collection[str], folder: Path) -> None:
    """Raise an error if small files would expand to many gigabytes, whatever their metadata.

    Args:
        arrays: Arrays of zarr, of which only metadata were read.
        whole: Names of those read in full, as xarray reads coordinates when it opens a group.
        folder: Folder of their files.

    Raises:
        ValueError: With the requested and the available size.
    """
    read = [one for name, one in arrays.items() if name in whole]
    pieces = [math.prod(one.chunks or (1,)) * one.dtype.itemsize for one in arrays.values()]
    asked = max([one.nbytes for one in read] + pieces, default=0)
    chunks = max((one.nchunks for one in read), default=0)
    if asked <= _ZARR_ALWAYS and chunks <= _CHUNKS:
        return
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    if asked > max(_ZARR_ALWAYS, _ZARR_RATIO * sum(sizes)):
        raise ValueError(f"{asked} bytes are asked for, too many for files of {sum(sizes)}")
    if chunks > max(_CHUNKS, 2 * len(sizes)):
        raise ValueError(f"{chunks} chunks are asked for, too many for {len(sizes)} files")
