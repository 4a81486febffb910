"""Several processes writing one store: the bytes do not tell how many, nor who was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eofm.errors import StoreError
from eofm.store.format import JOURNAL, PARTS
from eofm.store.parts import assign, write_parts
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter

PER_SHARD = 4
# what becomes of image i: a row, nothing (no valid pixels), or a broken file
FATES = ["row", "row", "void", "row", "row", "void", "void", "void", "void", "row", "bad", "row"]
IMAGES = {f"i{number:02d}": (number, fate) for number, fate in enumerate(FATES)}


class Filler:
    """Appends the miniature's images."""

    def __init__(self, miniature) -> None:
        self.miniature = miniature

    def __call__(self, writer: StoreWriter, images: Mapping[str, tuple[int, str]]) -> None:
        for name, (number, fate) in images.items():
            if name in writer.skipped:
                continue
            entry = self.miniature.entry(number)
            if fate == "bad":
                writer.quarantine(name, "the file is cut off")
                continue
            if fate == "row" and entry.id not in writer.ids:
                writer.append(entry, self.miniature.imagery(number))
            writer.source_done(name, int(fate == "void"))


def write(path: Path, miniature, workers: int = 1, images=IMAGES) -> bool:
    """Write the store by shards, or resume it."""
    size = PER_SHARD * miniature.card.row_bytes
    return write_parts(
        path, miniature.card, images, Filler(miniature), workers=workers, shard_bytes=size
    )


@given(st.dictionaries(st.text("ab", min_size=1, max_size=4), st.integers(0, 9)), st.integers(1, 8))
def test_assignment(rows: dict[str, int], per_shard: int) -> None:
    """Every image is in one part, in order; only an image too large for a shard overfills one."""
    parts = assign(rows, per_shard)

    assert list(rows) == [name for part in parts for name in part]
    assert all(parts)
    for part in parts:
        assert len(part) == 1 or sum(rows[name] for name in part) <= per_shard


def test_images_of_all_parts(tmp_path: Path, miniature) -> None:
    """Rows come in the order of the images; a part without a row leaves no shard behind."""
    assert write(tmp_path / "s", miniature)
    store = Store(tmp_path / "s")
    rows = [i for i, fate in enumerate(FATES) if fate == "row"]

    assert [miniature.entry(i).id for i in rows] == store.ids.tolist()
    assert [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)] == store.places(range(6))
    assert (12, 5) == (store.card.sources, store.card.skipped)
    assert {"i10": "the file is cut off"} == store.card.quarantined
    assert {JOURNAL, PARTS}.isdisjoint(f.name for f in (tmp_path / "s").iterdir())
    store.verify()
    for k, i in enumerate(rows):
        assert 1000 * i + 100 == store.images([k]).planes[10][0, 0, 0, 0].item()
    assert not write(tmp_path / "s", miniature)


def test_an_image_larger_than_a_shard(tmp_path: Path, miniature) -> None:
    """A part may fill several shards."""

    def fill(writer: StoreWriter, images: Mapping[str, range]) -> None:
        for name, numbers in images.items():
            for i in numbers:
                writer.append(miniature.entry(i), miniature.imagery(i))
            writer.source_done(name, 0)

    images = {"small": range(3), "large": range(3, 12)}
    rows = {name: len(numbers) for name, numbers in images.items()}
    size = PER_SHARD * miniature.card.row_bytes
    write_parts(tmp_path / "s", miniature.card, images, fill, rows=rows, shard_bytes=size)
    store = Store(tmp_path / "s")

    assert [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3] == [shard for shard, _ in store.places(range(12))]
    store.verify()


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path, miniature, kill) -> None:
    """Killed at any call to the system, a run resumes to the same bytes and is never readable."""
    with kill.at(10_000):
        write(tmp_path / "whole", miniature)

    points = kill.anywhere(lambda path: write(path, miniature), tmp_path, step=3)

    assert points > 40


def test_killed_again_and_again(tmp_path: Path, miniature, kill) -> None:
    """Runs that are killed while they take up the work of killed runs end in the same bytes."""
    write(tmp_path / "whole", miniature)

    kills = kill.repeatedly(lambda path: write(path, miniature), tmp_path, stores=6)

    assert kills > 16


_RUN = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np, torch
from eofm.store.format import Entry
from eofm.store.format import StoreCard
from eofm.store.parts import write_parts
from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import ImageSpec, Sensor, Unit

SPEC = ImageSpec(Sensor.S1_GRD, ("VV", "VH"), Unit.DB, (5, 7), 10.0)
CARD = StoreCard(SPEC, {10: ("VV", "VH")}, None, {"window": 5})

@dataclass(frozen=True)
class Filler:
    pause: float
    def __call__(self, writer, images):
        for name, i in images.items():
            if name not in writer.ids:
                time.sleep(self.pause)
                entry = Entry(name, name, "", 0.0, 0.0, "", name, "db")
                plane = torch.full((1, 2, 5, 7), i + 0.5)
                valid = torch.ones(1, 5, 7, dtype=torch.bool)
                writer.append(entry, NativeImagery({10: plane}, CARD.groups, SPEC, valid))
            if name not in writer.skipped:
                writer.source_done(name, 0)

if __name__ == "__main__":
    out, workers, pause = sys.argv[1:]
    images = {f"i{i:03d}": i for i in range(60)}
    size = 10 * CARD.row_bytes
    write_parts(out, CARD, images, Filler(float(pause)), workers=int(workers), shard_bytes=size)
"""


def _committed(path: Path) -> int:
    return sum(f.read_text().count('{"row"') for f in path.glob(f"{PARTS}/*/{JOURNAL}"))


def _family(parent: int) -> list[int]:
    """All processes below one; none where there is no /proc."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [parent]
    while todo:
        children = below.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _is_there(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_sigkill_of_two_workers(tmp_path: Path, tree) -> None:
    """The run is killed by SIGKILL twice, a worker once; the store has the bytes of one process."""
    script = tmp_path / "run.py"
    script.write_text(_RUN)

    def start(out: str, workers: int, pause: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(tmp_path / out), str(workers), str(pause)]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    before = 0
    for _ in range(2):
        run = start("many", 2, 0.1)
        while _committed(tmp_path / "many") < before + 5:
            assert run.poll() is None
            time.sleep(0.02)
        workers = _family(run.pid)
        os.kill(run.pid, signal.SIGKILL)  # its workers are left behind, and must notice
        assert -signal.SIGKILL == run.wait()
        run.stderr.close()
        assert 2 <= len(workers)
        until = time.monotonic() + 30
        while any(map(_is_there, workers)):
            assert time.monotonic() < until, "workers outlive the run that started them"
            time.sleep(0.05)
        before = _committed(tmp_path / "many")
    last = start("many", 2, 0)
    assert b"" == last.communicate()[1]
    alone = start("alone", 1, 0)
    assert b"" == alone.communicate()[1]

    assert 0 == last.returncode
    assert tree(tmp_path / "alone") == tree(tmp_path / "many")
    assert 60 == len(Store(tmp_path / "many"))
    assert 10 <= before < 60


def test_error_in_a_part(tmp_path: Path, miniature, tree) -> None:
    """What goes wrong in one part is raised as it is, and what is committed is kept."""

    def fill(writer: StoreWriter, images: Mapping[str, tuple[int, str]]) -> None:
        Filler(miniature)(writer, images)
        if "i09" in images:
            writer.append(miniature.entry(9), miniature.imagery(9))

    size = PER_SHARD * miniature.card.row_bytes
    with pytest.raises(StoreError, match="in the store already") as caught:
        write_parts(tmp_path / "s", miniature.card, IMAGES, fill, shard_bytes=size)
    assert "p4_9" == caught.value.found

    write(tmp_path / "s", miniature)
    write(tmp_path / "t", miniature)
    assert tree(tmp_path / "s") == tree(tmp_path / "t")


def test_one_identifier_in_two_parts(tmp_path: Path, miniature) -> None:
    """No writer sees the rows of another; the finished store is still without doubles."""
    with pytest.raises(StoreError, match="same identifier") as caught:
        write(tmp_path / "s", miniature, images={**IMAGES, "i12": (0, "row")})

    assert "p0_0" == caught.value.found


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_disk_full(tmp_path: Path, miniature, tree) -> None:
    """A full disk is one clear error, and the same call resumes after it."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written") as caught:
            write(tmp_path / "s", miniature)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "ulimit -f" in str(caught.value.remedy)  # the limit is not the disk

    write(tmp_path / "s", miniature)
    write(tmp_path / "whole", miniature)
    assert tree(tmp_path / "whole") == tree(tmp_path / "s")


def test_other_images(tmp_path: Path, miniature) -> None:
    """Other images would be assigned to other shards: the store is not gone on with."""
    write(tmp_path / "s", miniature)
    fewer = dict(list(IMAGES.items())[:-1])

    with pytest.raises(StoreError, match="by_shard 11 images"):
        write(tmp_path / "s", miniature, images=fewer)


def test_not_the_store_of_one_writer(tmp_path: Path, miniature, kill) -> None:
    """A half-written store of the one kind is not gone on with as the other."""
    with kill.at(30), pytest.raises(kill.Error):
        write(tmp_path / "s", miniature)
    with pytest.raises(StoreError, match=r"settings.by_shard None instead of 12 images"):
        StoreWriter(tmp_path / "s", miniature.card)


def test_two_runs(tmp_path: Path, miniature) -> None:
    """A second run on the same folder is turned away while the first is at work."""
    refused = []

    def fill(writer: StoreWriter, images: Mapping[str, tuple[int, str]]) -> None:
        with pytest.raises(StoreError, match="another process") as caught:
            write_parts(tmp_path / "s", miniature.card, IMAGES, fill, shard_bytes=size)
        refused.append(caught.value.where)
        Filler(miniature)(writer, images)

    size = PER_SHARD * miniature.card.row_bytes
    write_parts(tmp_path / "s", miniature.card, IMAGES, fill, shard_bytes=size)

    assert {tmp_path / "s"} == set(refused)


def test_no_row_at_all(tmp_path: Path, miniature) -> None:
    """Images without a valid pixel make no store."""
    with pytest.raises(StoreError, match="nothing to pack"):
        write(tmp_path / "s", miniature, images={"i02": (2, "void")})


def test_half_written_store_counts_its_parts(tmp_path: Path, miniature, kill) -> None:
    """The message says how many images there are in all parts."""
    with kill.at(60), pytest.raises(kill.Error):
        write(tmp_path / "s", miniature)
    rows = 0
    for file in (tmp_path / "s" / PARTS).glob("*/spec.json"):
        rows += json.loads(file.read_text())["rows"]
    rows += _committed(tmp_path / "s")

    with pytest.raises(StoreError, match="half written") as caught:
        Store(tmp_path / "s")
    assert rows > 2
    assert f"{rows} images so far, and a journal" == caught.value.found
