"""npy and npz: numpy's own arrays come back; whatever else its parser takes does not."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from eofm.errors import DataError
from eofm.formats.arrays import map_npy, read_npz
from eofm.formats.foreign import foreign


def npy(array: np.ndarray, **options: object) -> bytes:
    """An npy file as numpy writes it."""
    stream = io.BytesIO()
    np.save(stream, array, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def header(text: str) -> bytes:
    """An npy file with a header of one's own, and 24 bytes of numbers."""
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + bytes(24)


BAD = {
    "in Fortran order": npy(np.asfortranarray(np.arange(6).reshape(2, 3))),
    "objects": npy(np.array([{}, []], dtype=object), allow_pickle=True),
    "a pickle": pickle.dumps([1]),
    "fields": npy(np.zeros(3, dtype=[("a", "<f8")])),
    "absurd": header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
    "negative": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -3)}"),
    "16 GiB": header("{'descr': '<f8', 'fortran_order': False, 'shape': (2147483648,)}"),
    "fewer": header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}"),
    "no header": header("[" * 60),
    "no type": header("{'descr': 'what', 'fortran_order': False, 'shape': (3,)}"),
    "cut short": npy(np.arange(9))[:-1],
    "longer": npy(np.arange(9)) + b"x",
    "nothing": b"",
}


@pytest.mark.parametrize("how", BAD)
def test_bad_arrays(tmp_path: Path, how: str) -> None:
    """One error each, of a file and of a member of an archive."""
    file = tmp_path / "x.npy"
    file.write_bytes(BAD[how])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", BAD[how])

    with pytest.raises(DataError), foreign(DataError, "no array", where=file):
        map_npy(file)
    with pytest.raises(DataError), foreign(DataError, "no array", where=file):
        read_npz(stream.getvalue())


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", "f8", "?", "<U7", "u1"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_good_arrays(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Type, shape and numbers are those that numpy wrote."""
    array = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, x=array)
    found = read_npz(stream.getvalue())["x"]
    assert (array.dtype, array.shape) == (found.dtype, found.shape)
    assert (array == found).all()
    if not array.size:
        return  # nothing can be mapped
    file = tmp_path / "x.npy"
    file.write_bytes(npy(array))

    mapped = map_npy(file)

    assert (array.dtype, array.shape) == (mapped.dtype, mapped.shape)
    assert (array == mapped).all()
    assert map_npy(file, writable=True).flags.writeable


def test_one_flipped_bit_in_an_archive() -> None:
    """The crc32 of a member is compared, also where numpy would stop before it."""
    stream = io.BytesIO()
    np.savez(stream, x=np.arange(1000.0))
    data = bytearray(stream.getvalue())
    data[4000] ^= 1
    np.load(io.BytesIO(data))  # takes it

    with pytest.raises(DataError) as caught, foreign(DataError, "no archive", where="x"):
        read_npz(bytes(data))
    assert "CRC" in str(caught.value.found)


def test_a_bomb() -> None:
    """An archive that would unpack to far more than its size is refused unread."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(200 * 2**20))

    with pytest.raises(ValueError, match="unpack to 209715200 bytes"):
        read_npz(stream.getvalue())
