"""Hosts that are slow, endless or malicious: a download ends, in words, and nothing is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_hosts import BODY, HOSTS, serve, whole

from eofm.errors import WeightsError
from eofm.weights.download import fetch
from eofm.weights.transfer import check_address


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes become fractions of a second, gigabytes megabytes."""
    for name in ("EOFM_OFFLINE", "HF_HUB_OFFLINE", "EOFM_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("eofm.weights.download.RETRY_DELAYS_S", (0.0,))
    monkeypatch.setattr("eofm.weights.transfer.HEAD_S", 0.3)
    monkeypatch.setattr("eofm.weights.transfer.RATE_OVER_S", 0.3)
    monkeypatch.setattr("eofm.weights.transfer.TIMEOUT_S", 0.5)
    monkeypatch.setattr("eofm.weights.transfer.LARGEST", 4 << 20)


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("sha256", ["", "0" * 64])
def test_a_bad_host(tmp_path: Path, name: str, sha256: str) -> None:
    """Whatever it does ends in one WeightsError, soon, and no file of it is there to be trusted."""
    with serve(HOSTS[name]) as url, pytest.raises(WeightsError):
        fetch(url, sha256=sha256, directory=tmp_path, progress=False)

    assert [] == [path.name for path in tmp_path.glob("w.pth*") if ".part" not in path.name]


def test_a_good_host(tmp_path: Path) -> None:
    """The same clock lets an answer pass that comes in time."""
    with serve(lambda line: line.sendall(whole(BODY))) as url:
        assert BODY == fetch(url, directory=tmp_path, progress=False).read_bytes()


@pytest.mark.parametrize(
    "url",
    ["http://[::1/w", "http://h:x/w", "http://h:99999999/w", "http:///w", "https://a b/w", "http://h/\u2028",
     "http://h/\ud800", "http://h/w\n", "http://" + "h" * 300 + "/w", "http://h..h/w", "http://h:0/w"],
)  # fmt: skip
def test_a_bad_address(tmp_path: Path, url: str) -> None:
    """It is refused before anybody is asked, and quoted so that a terminal can show it."""
    with pytest.raises(WeightsError, match="not an address") as caught:
        fetch(url, directory=tmp_path)

    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    str(caught.value).encode("utf-8")


def test_good_addresses() -> None:
    """Ports, names with accents in their ASCII form, queries and local files are addresses."""
    for url in ("https://h/w", "http://127.0.0.1:80/w?x=1", "http://[::1]:8000/w", "file:///w",
                "https://xn--bcher-kva.example/w%20x"):  # fmt: skip
        check_address(url)
