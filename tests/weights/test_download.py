"""Downloads: whole or not at all, resumed, locked, hash checked, and never behind one's back."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from eofm.errors import WeightsError
from eofm.weights.download import (
    SUFFIX,
    check_file,
    fetch,
    file_name,
    known_sha256,
    offline,
    read_record,
    weights_directory,
)

BODY = bytes(range(256)) * 12_000  # 3 MB: three chunks
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]


def refused(url: str, tmp_path: Path, **options: object) -> WeightsError:
    """The error that fetching ends in."""
    with pytest.raises(WeightsError) as caught:
        fetch(url, directory=tmp_path, progress=False, **options)
    return caught.value


def start_process(code: str, *, quiet: bool = False) -> subprocess.Popen[str]:
    """A process of its own, in this environment."""
    where = subprocess.DEVNULL if quiet else subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stderr=where, text=True)


# --------------------------------------------------------------------------- the plain case


def test_a_file_is_fetched_once(host, tmp_path: Path) -> None:
    """The bytes arrive, nothing else is left but a record, and the host is asked one time."""
    url = host.put("w.pth", BODY)

    first = fetch(url, sha256=SHA, directory=tmp_path, progress=False)
    second = fetch(url, sha256=SHA, directory=tmp_path, progress=False)

    assert BODY == first.read_bytes()
    assert first == second
    assert 1 == len(host.asked)
    kept = {p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")}
    assert {"w.pth", f"w.pth{SUFFIX}"} == kept


def test_the_folder_is_made_and_leading_digits_suffice(host, tmp_path: Path) -> None:
    """A folder that is not there yet is made; torch.hub's eight digits are a hash."""
    url = host.put("w.pth", BODY)

    path = fetch(url, sha256=SHA[:8].upper(), directory=tmp_path / "a" / "b", progress=False)

    assert BODY == path.read_bytes()


@pytest.mark.parametrize("digits", ["", "abc", "not hexadecimal", SHA + "0"])
def test_what_is_no_hash_is_refused(host, tmp_path: Path, digits: str) -> None:
    """Too few digits would let chance pass; an empty one means that none is published."""
    url = host.put("w.pth", BODY)
    if not digits:
        assert BODY == fetch(url, directory=tmp_path, progress=False).read_bytes()
        return

    assert "not a sha256" in str(refused(url, tmp_path, sha256=digits))


def test_progress_is_a_line_now_and_then(
    host, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from a terminal a long download is told by a line in MiB, on stderr; a short one not."""
    fetch(host.put("short.pth", BODY), directory=tmp_path)
    assert ("", "") == tuple(capsys.readouterr())

    monkeypatch.setattr("eofm.terminal.LINE_EVERY_S", 0.0)
    fetch(host.put("long.pth", BODY), directory=tmp_path)
    out, err = capsys.readouterr()

    assert "" == out
    assert err.splitlines()[-1].startswith("long.pth, MiB: 3 of 3")


# ------------------------------------------------------------------------------ going on


def test_a_cut_is_resumed_with_the_rest_only(host, tmp_path: Path) -> None:
    """After a cut, exactly the missing bytes are asked for, under the condition of the ETag."""
    url = host.put("w.pth", BODY, cuts=[1_000_000])

    path = fetch(url, sha256=SHA, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()
    assert [None, "bytes=1000000-"] == host.ranges
    assert '"one"' == host.asked[1][1]["If-Range"]


def test_a_killed_process_is_resumed(host, tmp_path: Path) -> None:
    """What a process had fetched when it was killed is kept, and its lock is gone with it."""
    gate = threading.Event()
    url = host.put("w.pth", BODY, gate=gate, sent_first=2 << 20)
    process = start_process(
        f"from eofm.weights.download import fetch; fetch({url!r}, directory={str(tmp_path)!r})",
        quiet=True,
    )
    part = tmp_path / "w.pth.part"
    while not (part.exists() and part.stat().st_size >= 1 << 20):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    gate.set()
    host.files["/w.pth"].gate = None

    path = fetch(url, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()
    assert [None, f"bytes={kept}-"] == host.ranges


def test_a_part_that_was_complete_is_taken(host, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming: the host has no more, and all is there."""
    url = host.put("w.pth", BODY)
    (tmp_path / "w.pth.part").write_bytes(BODY)
    (tmp_path / "w.pth.part.json").write_text(json.dumps({"url": url, "version": '"one"'}))

    path = fetch(url, sha256=SHA, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()
    assert [f"bytes={len(BODY)}-"] == host.ranges


@pytest.mark.parametrize(
    "moods",
    [
        {"ranges": False},  # 200 and the whole file
        {"etag": '"two"'},  # If-Range does not hold: 200 and the whole file
        {"etag": '"two"', "condition": False},  # a host that does not know If-Range
        {"etag": None, "modified": "Thu, 01 Jan 2026 00:00:00 GMT"},
    ],
)
def test_a_changed_file_is_begun_again(host, tmp_path: Path, moods: dict[str, object]) -> None:
    """Pieces of two versions are never joined, also where no hash would tell."""
    url = host.put("w.pth", BODY, **moods)
    (tmp_path / "w.pth.part").write_bytes(OTHER[:1_000_000])
    (tmp_path / "w.pth.part.json").write_text(json.dumps({"url": url, "version": '"one"'}))

    path = fetch(url, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()


@pytest.mark.parametrize("label", ["", '{"url": "http://elsewhere/w.pth", "version": "x"}', "[]"])
def test_a_part_of_unknown_origin_is_begun_again(host, tmp_path: Path, label: str) -> None:
    """Bytes that do not say what they are of, or are of another address, are not gone on with."""
    url = host.put("w.pth", BODY)
    (tmp_path / "w.pth.part").write_bytes(OTHER[:1_000_000])
    if label:
        (tmp_path / "w.pth.part.json").write_text(label)

    path = fetch(url, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()
    assert [None] == host.ranges


@pytest.mark.parametrize(("sha256", "ranges"), [("", [None, None]), (SHA, [None, "bytes=9-"])])
def test_without_a_version_only_a_hash_allows_to_go_on(
    host, tmp_path: Path, sha256: str, ranges: list[str | None]
) -> None:
    """A host without ETag and date: resumed if the whole hash is known, else begun again."""
    url = host.put("w.pth", BODY, etag=None, cuts=[9])

    path = fetch(url, sha256=sha256, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()
    assert ranges == host.ranges


def test_a_weak_etag_is_no_promise_of_equal_bytes(host, tmp_path: Path) -> None:
    """RFC 9110 forbids a weak validator in If-Range."""
    url = host.put("w.pth", BODY, etag='W/"one"', cuts=[9])

    assert BODY == fetch(url, directory=tmp_path, progress=False).read_bytes()
    assert [None, None] == host.ranges


def test_damaged_older_bytes_are_fetched_anew(host, tmp_path: Path) -> None:
    """If the hash is wrong and part of the bytes was old, the whole is fetched once more."""
    url = host.put("w.pth", BODY)
    (tmp_path / "w.pth.part").write_bytes(OTHER[:1_000_000])
    (tmp_path / "w.pth.part.json").write_text(json.dumps({"url": url, "version": '"one"'}))

    path = fetch(url, sha256=SHA, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()
    assert ["bytes=1000000-", None] == host.ranges


def test_a_truncated_body_ends_in_an_error_that_keeps_it(host, tmp_path: Path) -> None:
    """A host that always breaks off: some attempts, one error, and the bytes stay for next time."""
    url = host.put("w.pth", BODY, cuts=[100, 100, 100])

    error = refused(url, tmp_path, sha256=SHA)

    assert "again and again" in error.problem
    assert f"300 of {len(BODY)} bytes" in str(error)
    assert BODY[:300] == (tmp_path / "w.pth.part").read_bytes()
    assert not (tmp_path / "w.pth").exists()
    assert BODY == fetch(url, sha256=SHA, directory=tmp_path, progress=False).read_bytes()


def test_a_busy_host_is_asked_again(host, tmp_path: Path) -> None:
    """503 may pass; after some attempts it is the error."""
    error = refused(host.put("w.pth", status=503), tmp_path)

    assert "503" in str(error)
    assert 3 == len(host.asked)


def test_no_host_is_one_error(host, tmp_path: Path) -> None:
    """Nobody listens: the address and the way out are named."""
    error = refused("http://127.0.0.1:9/w.pth", tmp_path)

    assert "no connection" in str(error)
    assert "http://127.0.0.1:9/w.pth" == error.where
    assert str(tmp_path / "w.pth") in str(error.remedy)


# ---------------------------------------------------------------------------- what is refused


def test_a_wrong_hash_leaves_nothing(host, tmp_path: Path) -> None:
    """Another file than the published one is refused, removed, and named by its hash."""
    error = refused(host.put("w.pth", OTHER), tmp_path, sha256=SHA)

    assert hashlib.sha256(OTHER).hexdigest() in str(error.found)
    assert SHA in str(error.expected)
    assert [] == [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert 1 == len(host.asked)


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "no such file"), (403, "accept its licence"), (401, "log in"), (400, "refuses")],
)
def test_an_answer_that_is_final_is_not_asked_for_again(
    host, tmp_path: Path, status: int, words: str
) -> None:
    """404 and the like: one request, one error with the address and a way out."""
    url = host.put("w.pth", status=status)

    error = refused(url, tmp_path)

    assert words in str(error)
    assert url == error.where
    assert str(tmp_path / "w.pth") in str(error.remedy)
    assert 1 == len(host.asked)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "text/html; charset=utf-8"),
        (b"\n<html>moved</html>", "application/octet-stream"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "text/plain"),
    ],
)
def test_a_page_or_a_pointer_is_no_file(host, tmp_path: Path, body: bytes, kind: str) -> None:
    """A login page with status 200, and a git LFS pointer, are refused and not kept."""
    error = refused(host.put("w.pth", body, kind=kind), tmp_path)

    assert "web page" in error.problem or "pointer" in error.problem
    assert [] == [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]


def test_without_length_and_hash_the_end_cannot_be_told(host, tmp_path: Path) -> None:
    """No Content-Length: a cut would look like the end, so a published hash is wanted."""
    url = host.put("w.pth", BODY, length=False)

    assert "truncated download could not be detected" in refused(url, tmp_path).problem
    assert BODY == fetch(url, sha256=SHA, directory=tmp_path, progress=False).read_bytes()


def test_a_redirect_is_followed(host, tmp_path: Path) -> None:
    """The file keeps the name it was asked for, and a cut is resumed through the redirect."""
    real = host.put("cdn/abc", BODY, cuts=[10])
    url = host.put("w.pth", status=302, location=real)

    path = fetch(url, sha256=SHA, directory=tmp_path, progress=False)

    assert "w.pth" == path.name
    assert BODY == path.read_bytes()
    assert [None, None, "bytes=10-", "bytes=10-"] == host.ranges


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/w.pth", "data:,x"])
def test_a_redirect_away_from_http_is_refused(host, tmp_path: Path, target: str) -> None:
    """A host cannot have us read our own disk."""
    error = refused(host.put("w.pth", status=302, location=target), tmp_path)

    assert "must not come from" in error.problem
    assert not (tmp_path / "w.pth").exists()


@pytest.mark.parametrize("url", ["ftp://h/w.pth", "data:,x/w.pth", "w.pth", "https://h/a/../"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    """Only http, https and file, and the address must name a file."""
    assert url in str(refused(url, tmp_path))


def test_a_local_address_is_read_where_it_is(tmp_path: Path) -> None:
    """A file:// address is not copied; its hash is compared if one is stated."""
    path = tmp_path / "with space.pth"
    path.write_bytes(BODY)

    assert path == fetch(path.as_uri(), sha256=SHA, directory=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(WeightsError, match="hash differs"):
        fetch(path.as_uri(), sha256=SHA[::-1])
    with pytest.raises(WeightsError, match="no such file"):
        fetch((tmp_path / "none.pth").as_uri())


# ------------------------------------------------------------------------------------ disk


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond a megabyte: what the system then answers is an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_error_and_keeps_the_part(
    host, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Writing fails midway: no retry, the bytes stay, and with free space it resumes from there."""
    url = host.put("w.pth", BODY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.getfixturevalue("small_disk")

    error = refused(url, tmp_path, sha256=SHA)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "cannot be written" in error.problem
    assert 1 == len(host.asked)
    assert 1_000_000 == (tmp_path / "w.pth.part").stat().st_size
    assert BODY == fetch(url, sha256=SHA, directory=tmp_path, progress=False).read_bytes()
    assert "bytes=1000000-" == host.ranges[-1]


def test_too_little_room_is_known_beforehand(
    host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot fit is not begun."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    error = refused(host.put("w.pth", BODY), tmp_path)

    assert f"{len(BODY)} bytes are to come, 1000 are free" in str(error)


def test_a_folder_that_is_a_file_is_one_error(host, tmp_path: Path) -> None:
    """What cannot be a folder is named, with the setting that chooses another."""
    (tmp_path / "taken").write_text("")

    error = refused(host.put("w.pth", BODY), tmp_path / "taken")

    assert "EOFM_WEIGHTS" in str(error.remedy)


# -------------------------------------------------------------------------- two processes


def test_two_processes_fetch_once(host, tmp_path: Path) -> None:
    """The second waits for the first, says so, and finds the file: one request in all."""
    gate = threading.Event()
    url = host.put("w.pth", BODY, gate=gate, sent_first=1000)
    code = (
        "from eofm.weights.download import fetch; "
        f"fetch({url!r}, sha256={SHA!r}, directory={str(tmp_path)!r})"
    )
    first = start_process(code)
    while not host.asked:
        assert first.poll() is None
        time.sleep(0.005)
    second = start_process(code)
    assert second.stderr is not None
    assert "another process fetches it" in second.stderr.readline()
    gate.set()
    done = [process.communicate() and process.returncode for process in (first, second)]

    assert [0, 0] == done
    assert 1 == len(host.asked)
    assert BODY == (tmp_path / "w.pth").read_bytes()


# --------------------------------------------------------------------------------- offline


@pytest.mark.parametrize("name", ["EOFM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_for(
    host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without the file: an error with the address and the place to put it. With it: the file."""
    url = host.put("w.pth", BODY)
    monkeypatch.setenv(name, "1")

    error = refused(url, tmp_path / "cache", sha256=SHA)
    assert url in str(error.remedy)
    assert str(tmp_path / "cache" / "w.pth") in str(error.remedy)

    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "w.pth").write_bytes(BODY)
    assert BODY == fetch(url, sha256=SHA, directory=tmp_path / "cache").read_bytes()
    assert [] == host.asked


def test_offline_is_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what says no, and an empty value, allow the network."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yes, no = ("1", "true", "ON", "y", "Y", "2", "offline"), ("0", "", " ", "No", "false", "off")
    for value, expected in [*((word, True) for word in yes), *((word, False) for word in no)]:
        monkeypatch.setenv("EOFM_OFFLINE", value)
        assert expected is offline(), value


# ------------------------------------------------------------------- hashes and first trust


def test_the_first_file_is_trusted_and_another_refused(host, tmp_path: Path) -> None:
    """Without a published hash: the first is recorded with its source, a changed one refused."""
    url = host.put("w.pth", BODY)
    path = fetch(url, directory=tmp_path, progress=False)
    record = read_record(path)
    path.write_bytes(OTHER)

    error = refused(url, tmp_path)

    assert record is not None
    assert (url, SHA, len(BODY)) == (record.url, record.sha256, record.size)
    assert record.date.endswith("+00:00")
    assert "trusted first" in error.problem
    assert f"{path.name}{SUFFIX}" in str(error.remedy)
    assert path == fetch(url, directory=tmp_path, check_hash=False)


def test_a_file_put_there_by_hand_is_recorded(host, tmp_path: Path) -> None:
    """A file that another tool fetched is taken as the first one."""
    (tmp_path / "w.pth").write_bytes(BODY)
    url = host.put("w.pth", OTHER)

    path = fetch(url, directory=tmp_path, progress=False)

    assert BODY == path.read_bytes()
    assert SHA == known_sha256(path)
    assert [] == host.asked


def test_a_file_of_the_same_name_from_elsewhere_is_refused(host, tmp_path: Path) -> None:
    """torch.hub would serve the stale file: it looks at the name alone."""
    fetch(host.put("a/w.pth", BODY), directory=tmp_path, progress=False)

    error = refused(host.put("b/w.pth", OTHER), tmp_path)

    assert "another address" in error.problem


def test_a_changed_file_is_seen_though_its_size_and_date_are_kept(host, tmp_path: Path) -> None:
    """The hash is remembered while the file is untouched; setting the date back does not help."""
    url = host.put("w.pth", BODY)
    path = fetch(url, sha256=SHA, directory=tmp_path, progress=False)
    before = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    after = path.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    assert "hash differs" in refused(url, tmp_path, sha256=SHA).problem


def test_an_untouched_file_is_not_hashed_again(
    host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading 350 MB a second time costs no second of hashing."""
    url = host.put("w.pth", BODY)
    path = fetch(url, sha256=SHA, directory=tmp_path, progress=False)
    monkeypatch.setattr("eofm.weights.download.hash_file", lambda _: pytest.fail("hashed again"))

    fetch(url, sha256=SHA, directory=tmp_path, progress=False)

    assert SHA == known_sha256(path)


def test_a_remembered_hash_is_still_compared(host, tmp_path: Path) -> None:
    """A card that gains a hash later finds out what was trusted before."""
    url = host.put("w.pth", OTHER)
    fetch(url, directory=tmp_path, progress=False)

    assert "hash differs" in refused(url, tmp_path, sha256=SHA).problem


def test_a_damaged_record_is_an_error(host, tmp_path: Path) -> None:
    """One digit of a remembered hash: it is not taken for the hash of the file."""
    path = fetch(host.put("w.pth", BODY), directory=tmp_path, progress=False)
    record = path.with_name(path.name + SUFFIX)
    record.write_text(record.read_text().replace(SHA, "0" + SHA[1:]))

    with pytest.raises(WeightsError, match="cannot be read") as caught:
        known_sha256(path)
    assert "checksum" in str(caught.value.found)


def test_a_record_of_before_has_no_checksum(host, tmp_path: Path) -> None:
    """It is believed, as it was."""
    path = fetch(host.put("w.pth", BODY), directory=tmp_path, progress=False)
    record = path.with_name(path.name + SUFFIX)
    plain = json.loads(record.read_text())
    plain.pop("checksum")
    record.write_text(json.dumps(plain))

    assert SHA == known_sha256(path)


def test_a_record_that_cannot_be_read_is_an_error(host, tmp_path: Path) -> None:
    """A damaged record is not the same as no record."""
    url = host.put("w.pth", BODY)
    path = fetch(url, directory=tmp_path, progress=False)
    (tmp_path / f"w.pth{SUFFIX}").write_text("{}")

    with pytest.raises(WeightsError, match="record"):
        check_file(path, url)


# ------------------------------------------------------------------------------------ names


def test_the_folder_is_that_of_torch_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`EOFM_WEIGHTS`, else torch.hub's checkpoints, as torch says, or as it would say."""
    import torch

    monkeypatch.setenv("EOFM_WEIGHTS", str(tmp_path / "own"))
    assert tmp_path / "own" == weights_directory()

    monkeypatch.delenv("EOFM_WEIGHTS")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    expected = Path(torch.hub.get_dir()) / "checkpoints"
    assert tmp_path / "home" / "hub" / "checkpoints" == expected == weights_directory()

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "set"))
    assert tmp_path / "set" / "checkpoints" == weights_directory()

    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for variables in ({"TORCH_HOME": "/h"}, {"XDG_CACHE_HOME": "/x"}, {}):
        for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with_torch = weights_directory()
        with monkeypatch.context() as without:
            without.delitem(sys.modules, "torch.hub")
            assert with_torch == weights_directory(), variables


def test_file_names_tell_files_apart() -> None:
    """Hugging Face's many `model.safetensors` do not overwrite one another; queries are cut off."""
    hub = "https://huggingface.co"

    assert "w.pth" == file_name(f"{hub}/o/r/resolve/main/w.pth?download=true")
    assert "o--r--model.safetensors" == file_name(f"{hub}/o/r/resolve/main/model.safetensors")
    assert "a b.pth" == file_name("https://h/a%20b.pth")
    for url in ("https://h", "https://h/..", "https://h/a%2Fb.pth", "https://h/%5Cb.pth"):
        with pytest.raises(WeightsError, match="names no file"):
            file_name(url)
