"""What is known of a downloaded file, kept beside it: its source and its sha256. No torch.

Where a hash is published, a file must have it. Where none is, the first file is trusted and its
hash is kept (trust on first use): another file under the same name is refused from then on.
Hashing hundreds of megabytes takes a second, so a file is hashed again only when it was touched.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from eofm.errors import WeightsError
from eofm.formats.foreign import foreign
from eofm.formats.seal import fresh_sha256, opened, sealed
from eofm.formats.text import read_json

SUFFIX: Final = ".receipt.json"
# Fewer digits than torch.hub puts into file names would let chance pass.
FEWEST_DIGITS: Final = 8


@dataclass(frozen=True)
class DownloadRecord:
    """Where a file came from and what it was.

    Args:
        url: Where it was asked for.
        sha256: Of its content.
        date: When that was first recorded, in UTC.
        size: In bytes.
        stamp: Times of the last change of content and of the entry in nanoseconds, and the
            inode. The second cannot be set by hand, so that a changed file with its old date is
            still seen to be changed.
    """

    url: str
    sha256: str
    date: str
    size: int
    stamp: tuple[int, int, int]


def record_path(file: Path) -> Path:
    """Return where the record of `file` lies."""
    return file.with_name(file.name + SUFFIX)


def read_record(file: Path) -> DownloadRecord | None:
    """Return the record of `file`, or None where there is none.

    Raises:
        WeightsError: If it cannot be read.
    """
    path = record_path(file)
    if not path.exists():
        return None
    with foreign(
        WeightsError,
        "the record of a downloaded file cannot be read",
        where=path,
        remedy=f"delete it; {file.name} is then recorded as it is now",
    ):
        plain, whole = opened(read_json(path))
        if whole is False:
            raise ValueError("its checksum is not that of its content")
        return _parse(plain)


def _parse(data: Mapping[str, Any]) -> DownloadRecord:
    if set(data) != {field.name for field in fields(DownloadRecord)}:
        raise KeyError(f"keys {', '.join(sorted(data))}")
    changed, entered, inode = map(int, data["stamp"])
    texts = {key: str(data[key]) for key in ("url", "sha256", "date")}
    return DownloadRecord(**texts, size=int(data["size"]), stamp=(changed, entered, inode))


def write_record(file: Path, url: str, sha256: str) -> None:
    """Record `file` as it is now. A folder that cannot be written to (a shared one) gets none."""
    status = file.stat()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = DownloadRecord(url, sha256, now, status.st_size, _stamp(status))
    path = record_path(file)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(sealed(asdict(record)), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)


def hash_file(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        WeightsError: If it cannot be read.
    """
    try:
        return fresh_sha256(path)
    except OSError as error:
        raise WeightsError("the file cannot be read", found=error, where=path) from error


def known_sha256(file: Path) -> str:
    """Return the sha256 of a file, from its record if it was not touched since."""
    record = read_record(file)
    return record.sha256 if record and _untouched(file, record) else hash_file(file)


def check_file(file: Path, url: str, published: str = "") -> str:
    """Compare a file with its published hash, or else with what was there first.

    Args:
        file: In the folder of downloads; its record is read and written there.
        url: Where it is asked for.
        published: sha256, whole or its leading digits; empty where none is published.

    Returns:
        The sha256 of the file.

    Raises:
        WeightsError: If the file is another one.
    """
    record = read_record(file)
    fresh = record is not None and _untouched(file, record)
    digest = record.sha256 if record and fresh else hash_file(file)
    if published:
        compare_sha256(digest, published, file)
    elif record and digest != record.sha256:
        raise WeightsError(
            "the file is not the one that was trusted first",
            found=f"sha256 {digest}",
            expected=f"sha256 {record.sha256}, recorded {record.date} from {record.url}",
            where=file,
            remedy=f"if the change is meant, delete {record_path(file).name}; "
            "otherwise delete both files and download again",
        )
    elif record and record.url != url:
        raise WeightsError(
            "a file of that name is here, but from another address, and no hash tells them apart",
            found=record.url,
            expected=url,
            where=file,
            remedy=f"name another folder, or delete the file and {record_path(file).name}, and "
            "download again",
        )
    if not fresh:
        write_record(file, url, digest)
    return digest


def compare_sha256(digest: str, published: str, where: Path) -> None:
    """Raise unless `digest` begins with `published`.

    Raises:
        WeightsError: If it does not, or `published` is no sha256.
    """
    if not re.fullmatch(rf"[0-9a-fA-F]{{{FEWEST_DIGITS},64}}", published):
        raise WeightsError(
            "this is not a sha256",
            found=published,
            expected=f"{FEWEST_DIGITS} to 64 hexadecimal digits",
        )
    if not digest.startswith(published.lower()):
        raise WeightsError(
            "the file is not the published one: its hash differs",
            found=f"sha256 {digest}",
            expected=f"sha256 {published.lower()}" + ("..." if len(published) < 64 else ""),
            where=where,
            remedy="delete it and download it again; should that give the same, the host serves "
            "another file: tell its owner",
        )


def _untouched(file: Path, record: DownloadRecord) -> bool:
    status = file.stat()
    return (status.st_size, _stamp(status)) == (record.size, record.stamp)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino
