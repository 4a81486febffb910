"""Files of torch: a flipped bit is found, code is not run, and the check costs once."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from eofm.errors import WeightsError
from eofm.formats import tensors
from eofm.formats.foreign import foreign
from eofm.formats.tensors import read_torch


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
    monkeypatch.setattr("eofm.formats.seal.SETTLED_NS", -(10**12))
    check = tensors._check_archive
    monkeypatch.setattr(tensors, "_check_archive", lambda *words: (looked.append(1), check(*words)))
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
