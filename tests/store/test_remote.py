"""Stores behind a URL: whole files, cached at once, with the size the index demands."""

from __future__ import annotations

import functools
import http.server
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from eofm.errors import StoreError
from eofm.loading.feeder import Feeder
from eofm.store.format import JOURNAL
from eofm.store.reader import Store, cache_root, is_remote

fsspec = pytest.importorskip("fsspec", reason="stores behind URLs need the extra `remote`")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and writes down what was asked for."""

    def __init__(self, *arguments, asked: list[str], **keywords) -> None:
        self.asked = asked
        super().__init__(*arguments, **keywords)

    def log_message(self, *_: object) -> None:
        if self.command == "GET":
            self.asked.append(self.path)


@pytest.fixture
def served(tmp_path: Path, miniature) -> Iterator[tuple[str, Path, list[str]]]:
    """A store of nine images on a server of this machine: URL, folder, and what was asked for."""
    pytest.importorskip("aiohttp")
    folder = miniature.store(tmp_path / "host" / "s", 9)
    asked: list[str] = []
    handler = functools.partial(Handler, directory=str(tmp_path / "host"), asked=asked)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/s", folder, asked
        server.shutdown()
        thread.join()


def same(store: Store, local: Store, rows: list[int]) -> None:
    """Compare images and labels."""
    for gsd, plane in local.images(rows).planes.items():
        assert torch.equal(plane, store.images(rows).planes[gsd])
    assert torch.equal(local.labels(rows).multi_hot, store.labels(rows).multi_hot)


def test_only_what_is_read_is_fetched(served, tmp_path: Path) -> None:
    """Opening fetches card and index; a row, the files of its shard, once for ever."""
    url, folder, asked = served
    store = Store(url, cache=tmp_path / "cache")
    assert not any("shard" in path for path in asked)
    same(store, Store(folder), [4, 5])
    assert 4 == sum("shard-00001" in path for path in asked)
    assert not any("shard-00000" in path for path in asked)
    bands = Store(url, cache=tmp_path / "cache").images([8], bands=("B8A",))
    assert 8200 == bands.planes[20][0, 0, 0, 0]
    assert {"/s/shard-00002/20m.npy", "/s/shard-00002/valid.npy"} == {
        path for path in asked if "shard-00002" in path
    }

    again = Store(url, cache=tmp_path / "cache")
    before = len(asked)
    same(again, Store(folder), [4, 5])
    assert before == len(asked)
    again.verify()


def test_many_readers_at_once(served, tmp_path: Path) -> None:
    """Threads with stores of their own fetch each file once, and a pickled store finds its way."""
    url, folder, asked = served
    sent = pickle.dumps(Store(url, cache=tmp_path / "cache"))

    def read(i: int) -> int:
        return int(pickle.loads(sent).images([i]).planes[10][0, 0, 0, 0])

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(read, [i % 9 for i in range(18)]))
    assert [1000 * (i % 9) + 100 for i in range(18)] == found
    shards = [path for path in asked if "shard" in path]
    assert 12 == len(shards) == len(set(shards))
    local = Store(folder)
    with Feeder(pickle.loads(sent), 3) as feeder:
        for imagery, _ in feeder.feed([[0, 8, 4]]):
            assert torch.equal(local.images([0, 8, 4]).planes[60], imagery.planes[60])


def test_file_of_another_size(served, tmp_path: Path) -> None:
    """A file that was copied in half is an error, and does not get into the cache."""
    url, folder, _ = served
    store = Store(url, cache=tmp_path / "cache")
    file = folder / "shard-00000/20m.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(StoreError, match="another size") as caught:
        store.images([0])
    assert (f"{len(whole) - 10} bytes", f"{len(whole)} bytes") == (
        caught.value.found,
        caught.value.expected,
    )

    file.write_bytes(whole)
    same(store, Store(folder), [0])


def test_file_that_is_missing(served, tmp_path: Path) -> None:
    """A file that is not there names itself and the store."""
    url, folder, _ = served
    store = Store(url, cache=tmp_path / "cache")
    (folder / "shard-00000/20m.npy").unlink()

    with pytest.raises(StoreError, match="cannot be read") as caught:
        store.images([0])
    assert f"{url}/shard-00000/20m.npy" == caught.value.where


@pytest.mark.parametrize(
    ("file", "problem"), [(JOURNAL, "half written"), ("relabelled/spec.json", "half relabelled")]
)
def test_unfinished_store(served, tmp_path: Path, file: str, problem: str) -> None:
    """What was copied before it was finished is not read."""
    url, folder, _ = served
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).touch()

    with pytest.raises(StoreError, match=problem):
        Store(url, cache=tmp_path / "cache")


def test_no_store_and_no_server(served, tmp_path: Path) -> None:
    """An address without a store, without a server, or of an unknown kind is one clear error."""
    url, _, _ = served
    for wrong, problem in (
        (url + "x", "no packed store"),
        ("http://127.0.0.1:9/s", "cannot be read"),
        ("gopher-mail://x", "not known"),
    ):
        with pytest.raises(StoreError, match=problem):
            Store(wrong, cache=tmp_path / "cache")


def test_store_that_changed(tmp_path: Path, miniature, radar_miniature) -> None:
    """A store packed again at the same address gets a cache of its own."""
    address = (tmp_path / "s").as_uri()
    miniature.store(tmp_path / "s", 3)
    assert 2100 == Store(address, cache=tmp_path / "c").images([2]).planes[10][0, 0, 0, 0]
    for file in sorted((tmp_path / "s").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    radar_miniature.store(tmp_path / "s", 3)

    store = Store(address, cache=tmp_path / "c")
    assert 2100.25 == store.images([2]).planes[10][0, 0, 0, 0]


def test_store_in_memory(tmp_path: Path, miniature, monkeypatch) -> None:
    """Any file system of fsspec will do; the cache is where the environment says."""
    monkeypatch.setenv("EOFM_CACHE", str(tmp_path / "mine"))
    folder = miniature.store(tmp_path / "s", 5)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/s", recursive=True)
    store = Store("memory://bucket/s")

    same(store, Store(folder), [0, 4])
    assert tmp_path / "mine" == cache_root()
    assert (tmp_path / "mine") in store.path.parents
    memory.rm("/bucket", recursive=True)


def test_what_is_a_url() -> None:
    """Paths, also of Windows, are not URLs."""
    assert is_remote("s3://bucket/x")
    assert not any(map(is_remote, ("stores/mine", "C:\\stores", Path("s3://bucket/x"))))
