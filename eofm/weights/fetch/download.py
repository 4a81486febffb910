"""Fetch a weights file once: whole or not at all, resumed where it stopped, hash checked. No torch.

A file lies in the folder of torch.hub's checkpoints, so that what other tools fetched is found,
or in `EOFM_WEIGHTS`. What is there is never fetched again. With `EOFM_OFFLINE=1` nothing is.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from eofm.errors import WeightsError
from eofm.weights.fetch.host import Interrupted, check_address
from eofm.weights.fetch.record import check_file, compare_sha256, hash_file, write_record
from eofm.weights.fetch.transfer import Part, transfer

# Pauses between attempts after a cut or a busy host; each attempt resumes where the last stopped.
RETRY_DELAYS_S: tuple[float, ...] = (1.0, 2.0, 4.0)
# How long to wait for another process that fetches the same file.
LOCK_TIMEOUT_S: Final = 3600.0
_OFFLINE: Final = ("EOFM_OFFLINE", "HF_HUB_OFFLINE")


def weights_directory() -> Path:
    """Return the folder of downloads: `EOFM_WEIGHTS`, or that of torch.hub's checkpoints."""
    if own := os.environ.get("EOFM_WEIGHTS"):
        return Path(own).expanduser()
    if hub := sys.modules.get("torch.hub"):  # knows of a set_dir() in this program
        return Path(hub.get_dir()) / "checkpoints"
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def offline() -> bool:
    """Whether the user has forbidden the network: `EOFM_OFFLINE=1` or `HF_HUB_OFFLINE=1`.

    Only what says no is a no: whoever sets the variable to anything else wants to be offline.
    """
    no = {"", "0", "false", "no", "off", "n", "f"}
    return any(os.environ.get(name, "").strip().lower() not in no for name in _OFFLINE)


def file_name(url: str) -> str:
    """Return the name under which a download is kept: that of the file, if it tells files apart.

    On Hugging Face many a file is called `model.safetensors`; there the repository goes before.

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
    """Return the path of the file at `url`, fetched if it is not here yet.

    Args:
        url: http, https or file.
        sha256: Published hash, whole or its leading digits. Empty: the hash of the first file is
            recorded beside it, and another file under that name is refused later.
        directory: Where it is kept; None takes `weights_directory()`.
        check_hash: Compare the hash. It is computed again only for a file that was touched.
        progress: Say on stderr how far it is.

    Raises:
        WeightsError: If the file cannot be fetched, or is not the one the hash names.
    """
    check_address(url)
    if urlsplit(url).scheme == "file":
        return _local(url, sha256 if check_hash else "")
    folder = weights_directory() if directory is None else Path(directory).expanduser()
    target = folder / file_name(url)
    if not target.is_file():
        _check_allowed(url, target)
        with _alone(target, progress=progress):
            if not target.is_file():  # the process that we waited for may have fetched it
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
            "weights are fetched by http, https or file", found=url, remedy="state the whole url"
        )
    if offline():
        raise WeightsError(
            "the file is not here, and the network is switched off",
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
        part.remove()  # what lay there may be at fault: once more from the start
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
