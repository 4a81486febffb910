"""Files of numbers: what numpy and torch wrote comes back; a flipped bit or code does not."""

from __future__ import annotations

import io
import os
import pickle
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from numpy.lib import format as npy_format

from eofm.errors import DataError, WeightsError
from eofm.formats import arrays
from eofm.formats.arrays import map_npy, read_npz, read_torch
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


def test_threads_read_one_header_at_a_time(tmp_path: Path, monkeypatch) -> None:
    """CPython 3.11 cannot evaluate two: a whole file was called damaged."""
    file = tmp_path / "x.npy"
    file.write_bytes(npy(np.arange(6)))
    inside: list[int] = []
    most: list[int] = []

    def slow(stream: IO[bytes]) -> object:
        inside.append(1)
        time.sleep(0.01)
        most.append(len(inside))
        inside.pop()
        return read(stream)

    read = npy_format.read_array_header_1_0
    monkeypatch.setattr(npy_format, "read_array_header_1_0", slow)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(map_npy, [file] * 8):
            assert list(range(6)) == found.tolist()
    assert [1] * 8 == most


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


# ----------------------------------------------------------------------------------------- tensors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Some tensors."""
    file = tmp_path / "x.pth"
    torch.save({"a": torch.arange(1000.0), "b": {"step": 3, "name": "x"}}, file)
    return file


@pytest.mark.parametrize("mapped", [False, True])
def test_what_was_saved(saved: Path, mapped: bool) -> None:
    """Tensors and plain values come back."""
    found = read_torch(saved, mapped=mapped)

    assert torch.arange(1000.0).equal(found["a"])
    assert {"step": 3, "name": "x"} == found["b"]


def test_every_flipped_bit_of_a_weight(saved: Path) -> None:
    """Torch takes a file with another weight; the checksum that it wrote itself is compared."""
    data = saved.read_bytes()
    start = data.index(torch.arange(1000.0).numpy().tobytes())
    for bit in range(0, 32 * 1000, 1013):
        changed = bytearray(data)
        changed[start + bit // 8] ^= 1 << bit % 8
        saved.write_bytes(changed)
        torch.load(saved, weights_only=True)

        with pytest.raises(WeightsError), foreign(WeightsError, "changed", where=saved):
            read_torch(saved)


class Call:
    """What pickle would call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def archive(pickled: object, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch writes it, of a pickle of one's own."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        file.writestr("x/data.pkl", pickle.dumps(pickled, 2))
        file.writestr("x/version", "3\n")
        file.writestr("x/byteorder", "little")
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        archive({"a": Call(os.mkdir, "ran")}),
        archive(Call(bytearray, 16 * 2**30)),
        archive(bytes(10**6), zipfile.ZIP_DEFLATED),
        archive({})[:100],
        b"",
        b"PK\x03\x04",
        b"<html>",
        pickle.dumps({"a": Call(os.mkdir, "ran")}),
        pickle.dumps(3),
        b"\x80\x02" + b"(" * 100_000,
    ],
    ids=["call", "large", "bomb", "cut", "empty", "zip", "page", "old", "number", "deep"],
)
def test_bad_files(tmp_path: Path, data: bytes, monkeypatch) -> None:
    """Code, a demand for memory, an archive that is packed, and rubbish: one error each."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.pth"
    file.write_bytes(data)

    with pytest.raises(WeightsError), foreign(WeightsError, "bad", where=file):
        read_torch(file)

    assert not (tmp_path / "ran").exists()


def test_the_check_is_remembered(saved: Path, monkeypatch) -> None:
    """A file that was not touched is looked at once; one that was, again."""
    looked = []
    monkeypatch.setattr("eofm.formats.foreign.SETTLED_NS", -(10**12))
    check = arrays._check_archive
    monkeypatch.setattr(arrays, "_check_archive", lambda *words: (looked.append(1), check(*words)))
    read_torch(saved)
    read_torch(saved)
    assert [1] == looked

    data = bytearray(saved.read_bytes())
    data[-400] ^= 1
    stat = saved.stat()
    saved.write_bytes(data)
    os.utime(saved, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its date as it was

    with pytest.raises(WeightsError), foreign(WeightsError, "bad", where=saved):
        read_torch(saved)


def test_a_file_of_before_torch_1_6_has_no_checksum(tmp_path: Path) -> None:
    """It is read as it is: there is nothing to compare."""
    file = tmp_path / "x.pth"
    torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=False)

    assert torch.ones(3).equal(read_torch(file)["a"])
