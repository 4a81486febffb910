"""Download a weights file once: atomic, resumable, with a check of its hash. No torch.

Files are stored in the folder of torch.hub's checkpoints, so that downloads of other tools are
found, or in `EOFM_WEIGHTS`. Existing files are never downloaded again, and with `EOFM_OFFLINE=1`
no file is.

Source and sha256 of a file are recorded next to it. If a hash is published, the file must match it.
Otherwise the first file is trusted and its hash recorded (trust on first use): a different file
with the same name is then rejected. Hashing hundreds of megabytes takes a second, so a file is
hashed again only if it was modified.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from eofm.errors import WeightsError
from eofm.formats.foreign import foreign, fresh_sha256, opened, sealed
from eofm.formats.text import read_json
from eofm.weights.transfer import Interrupted, Part, check_address, transfer

__all__ = [
    "FEWEST_DIGITS",
    "LOCK_TIMEOUT_S",
    "RETRY_DELAYS_S",
    "SUFFIX",
    "DownloadRecord",
    "check_file",
    "compare_sha256",
    "fetch",
    "file_name",
    "hash_file",
    "known_sha256",
    "offline",
    "read_record",
    "record_path",
    "weights_directory",
    "write_record",
]

# ----------------------------------------------------------------------------- the record of a file

SUFFIX: Final = ".receipt.json"
# With fewer digits than in torch.hub's file names, a match could be accidental.
FEWEST_DIGITS: Final = 8


@dataclass(frozen=True)
class DownloadRecord:
    """Source and hash of a file.

    Args:
        url: Address of the download.
        sha256: Hash of its content.
        date: Time of the first record, in UTC.
        size: Size in bytes.
        stamp: Times of the last change of content (mtime) and of the entry (ctime) in
            nanoseconds, and the inode. The ctime cannot be set by hand, so a changed file with
            its old mtime is still detected.
    """

    url: str
    sha256: str
    date: str
    size: int
    stamp: tuple[int, int, int]


def record_path(file: Path) -> Path:
    """Return the path of the record of `file`."""
    return file.with_name(file.name + SUFFIX)


def read_record(file: Path) -> DownloadRecord | None:
    """Return the record of `file`, or None if there is none.

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
    """Record `file` in its current state; folders without write access (shared ones) get none."""
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
    """Return the sha256 of a file, from its record if it was not modified since."""
    record = read_record(file)
    return record.sha256 if record and _untouched(file, record) else hash_file(file)


def check_file(file: Path, url: str, published: str = "") -> str:
    """Compare a file with its published hash, or with the first recorded one.

    Args:
        file: File in the folder of downloads; its record is read and written there.
        url: Address of the download.
        published: sha256, complete or its leading digits; empty if none is published.

    Returns:
        The sha256 of the file.

    Raises:
        WeightsError: If the file differs.
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
            "a file of that name exists, but from another address, and without a published hash",
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
    """Raise an error unless `digest` begins with `published`.

    Raises:
        WeightsError: If it does not, or `published` is not a sha256.
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


# ----------------------------------------------------------------------------------------- fetching

# Pauses between attempts after an interruption or a busy host; each attempt resumes.
RETRY_DELAYS_S: tuple[float, ...] = (1.0, 2.0, 4.0)
# Maximum wait for another process that downloads the same file.
LOCK_TIMEOUT_S: Final = 3600.0
_OFFLINE: Final = ("EOFM_OFFLINE", "HF_HUB_OFFLINE")


def weights_directory() -> Path:
    """Return the folder of downloads: `EOFM_WEIGHTS`, or that of torch.hub's checkpoints."""
    if own := os.environ.get("EOFM_WEIGHTS"):
        return Path(own).expanduser()
    if hub := sys.modules.get("torch.hub"):  # includes the effect of a set_dir() in this program
        return Path(hub.get_dir()) / "checkpoints"
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def offline() -> bool:
    """Whether the user has disabled the network: `EOFM_OFFLINE=1` or `HF_HUB_OFFLINE=1`.

    Only values that mean no disable it: any other value of the variable means offline.
    """
    no = {"", "0", "false", "no", "off", "n", "f"}
    return any(os.environ.get(name, "").strip().lower() not in no for name in _OFFLINE)


def file_name(url: str) -> str:
    """Return the file name of a download: that in the address, if it is distinctive.

    On Hugging Face many files are called `model.safetensors`; their repository is prepended.

    >>> file_name("https://huggingface.co/wangyi111/softcon/resolve/main/B2_rn50_softcon.pth")
    'B2_rn50_softcon.pth'
    >>> file_name("https://huggingface.co/timm/vit_base.lvd/resolve/main/model.safetensors")
    'timm--vit_base.lvd--model.safetensors'
    """
    parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
    name = parts[-1] if parts else ""
    if name in {"", ".", ".."} or re.search(r"[\\/\0]", name):
        raise WeightsError("the address names no file", found=url)
    if name in {"model.safetensors", "pytorch_model.bin"} and "resolve" in parts:
        return "--".join([*parts[: parts.index("resolve")], name])
    return name


def fetch(
    url: str,
    *,
    sha256: str = "",
    directory: Path | str | None = None,
    check_hash: bool = True,
    progress: bool = True,
) -> Path:
    """Return the path of the file at `url`, downloading it if needed.

    Args:
        url: http, https or file.
        sha256: Published hash, complete or its leading digits. Empty: the hash of the first file is
            recorded next to it, and a different file with that name is rejected later.
        directory: Folder of downloads; None uses `weights_directory()`.
        check_hash: Whether to compare the hash. It is recomputed only for a modified file.
        progress: Whether to report progress on stderr.

    Raises:
        WeightsError: If the file cannot be downloaded, or does not match the hash.
    """
    check_address(url)
    if urlsplit(url).scheme == "file":
        return _local(url, sha256 if check_hash else "")
    folder = weights_directory() if directory is None else Path(directory).expanduser()
    target = folder / file_name(url)
    if not target.is_file():
        _check_allowed(url, target)
        with _alone(target, progress=progress):
            if not target.is_file():  # the process that held the lock may have downloaded it
                _download(url, target, sha256 if check_hash else "", progress=progress)
    if check_hash:
        check_file(target, url, sha256)
    return target


def _local(url: str, sha256: str) -> Path:
    path = Path(url2pathname(urlsplit(url).path))
    if not path.is_file():
        raise WeightsError("there is no such file", found=path, where=url)
    if sha256:
        compare_sha256(hash_file(path), sha256, path)
    return path


def _check_allowed(url: str, target: Path) -> None:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise WeightsError(
            "weights are downloaded by http, https or file", found=url, remedy="state the whole url"
        )
    if offline():
        raise WeightsError(
            "the file is not here, and the network is disabled",
            found=f"{' or '.join(_OFFLINE)} is set",
            expected=target,
            where=url,
            remedy=f"download {url} on another machine and put it at {target}",
        )


@contextmanager
def _alone(target: Path, *, progress: bool) -> Iterator[None]:
    """Hold the lock on a download; wait while another process has it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if progress:
                print(f"{target.name}: another process fetches it", file=sys.stderr)  # noqa: T201
            lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        raise WeightsError(
            "another process has been fetching this file for too long",
            found=f"{LOCK_TIMEOUT_S / 60:.0f} minutes",
            where=target,
            remedy="end that process, then try again",
        ) from error
    except OSError as error:
        raise WeightsError(
            "weights cannot be stored in this folder",
            found=error,
            where=target.parent,
            remedy="name another by EOFM_WEIGHTS or directory=",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _download(url: str, target: Path, sha256: str, *, progress: bool) -> None:
    part = Part(target.with_name(f"{target.name}.part"))
    resumed = _transfer_patiently(url, part, target, sha256, progress=progress)
    digest = hash_file(part.path)
    if resumed and sha256 and not digest.startswith(sha256.lower()):
        part.remove()  # the partial file may be corrupt: try once more from the start
        _transfer_patiently(url, part, target, sha256, progress=progress)
        digest = hash_file(part.path)
    if sha256:
        try:
            compare_sha256(digest, sha256, target)
        except WeightsError:
            part.remove()
            raise
    part.path.replace(target)
    part.remove()
    write_record(target, url, digest)


def _transfer_patiently(url: str, part: Part, target: Path, sha256: str, *, progress: bool) -> bool:
    """Finish a download despite interruptions; return whether older bytes were kept."""
    resumed = part.size > 0
    for delay in (*RETRY_DELAYS_S, None):
        try:
            transfer(url, part, target, sha256, progress=progress)
        except Interrupted as error:
            if delay is None:
                raise WeightsError(
                    "the download was interrupted again and again",
                    found=f"{error}; {part.size} bytes so far, in {part.path.name}",
                    where=url,
                    remedy="try again: it resumes where it stopped; or download the file by hand "
                    f"and put it at {target}",
                ) from error
            time.sleep(delay)
        else:
            break
    return resumed
