"""Files of torch and safetensors: tensors alone, and what their checksums say.

`torch.save` writes a zip archive with a crc32 of every tensor, which torch itself does not look at.
Here it is compared, once per process and state of the file. Archives of before torch 1.6 and
safetensors have no checksum: of those only what a card or a publisher states can be compared.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from eofm.formats.seal import mark_whole, seen_whole

_CHUNK: Final = 1 << 20
# `bytearray` is among what torch lets a file call, and takes as much memory as the file says.
_GREEDY: Final = b"bytearray"


def read_torch(path: Path, *, mapped: bool = False) -> Any:  # noqa: ANN401 (whatever was saved)
    """Return what `torch.save` wrote: tensors and plain values; code in it is never run.

    Args:
        path: The file.
        mapped: Leave the tensors in the file until they are looked at.

    Raises:
        ValueError: If bytes have changed since they were written; torch raises eight further kinds.
            See `foreign`.
    """
    check_whole(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)


def check_whole(path: Path) -> None:
    """Compare the checksums that an archive of torch holds; one without any passes.

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
            with archive.open(member) as part:  # compares the crc32 at its end
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
