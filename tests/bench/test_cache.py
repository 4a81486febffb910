"""Kept features: whole or not at all, and found only under what they depend on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eofm.bench import features as module
from eofm.bench.features import FeatureCache, Key, code_sha256
from eofm.errors import DataError
from eofm.formats.foreign import sealed

KEY = Key({"weights": "a", "data": "b"})
FEATURES = torch.arange(6, dtype=torch.float32).view(3, 2)


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    """Bit for bit, by memory map; nothing half-written is left beside it."""
    cache = FeatureCache(tmp_path)

    assert cache.load(KEY, 3) is None
    cache.store(KEY, FEATURES, {"model": "mine"})
    found = cache.load(KEY, 3)

    assert found is not None
    assert torch.equal(FEATURES, found)
    assert [KEY.sha256] == [path.name for path in tmp_path.iterdir()]


def test_writing_to_what_was_found_does_not_reach_the_file(tmp_path: Path) -> None:
    """A probe that scales in place spoils nobody else's features."""
    cache = FeatureCache(tmp_path)
    cache.store(KEY, FEATURES, {})

    found = cache.load(KEY, 3)
    assert found is not None
    found.zero_()

    again = cache.load(KEY, 3)
    assert again is not None
    assert torch.equal(FEATURES, again)


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    """Other weights, other features."""
    cache = FeatureCache(tmp_path)
    cache.store(KEY, FEATURES, {})

    assert cache.load(Key({"weights": "c", "data": "b"}), 3) is None


def damage(folder: Path, how: str) -> None:
    """Spoil an entry."""
    features, meta = folder / "features.npy", folder / "meta.json"
    if how == "one bit":
        content = bytearray(features.read_bytes())
        content[-1] ^= 1
        features.write_bytes(content)
    elif how == "cut":
        features.write_bytes(features.read_bytes()[:-3])
    elif how == "foreign":
        about = json.loads(meta.read_text())
        meta.write_text(json.dumps({**about, "key": {"weights": "z"}}))
    elif how == "half":
        meta.write_text(meta.read_text()[:20])
    else:
        (folder / how).unlink()


@pytest.mark.parametrize("how", ["one bit", "cut", "foreign", "half", "meta.json", "features.npy"])
def test_a_damaged_entry_is_not_used_and_said(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One flipped bit is enough; the line names the folder, and a new entry replaces it."""
    cache = FeatureCache(tmp_path)
    cache.store(KEY, FEATURES, {})
    damage(tmp_path / KEY.sha256, how)

    assert cache.load(KEY, 3) is None
    said = capsys.readouterr().err
    assert "computed again" in said
    assert KEY.sha256 in said
    cache.store(KEY, FEATURES, {})
    assert cache.load(KEY, 3) is not None
    assert "" == capsys.readouterr().err


def test_other_rows_or_types_are_not_used(tmp_path: Path) -> None:
    """Features of four images are not those of three."""
    cache = FeatureCache(tmp_path)
    cache.store(KEY, FEATURES, {})

    assert cache.load(KEY, 4) is None
    np.save(tmp_path / "x.npy", FEATURES.double().numpy())
    cache.store(KEY, FEATURES.double(), {})
    assert cache.load(KEY, 3) is None


def test_without_a_folder_nothing_is_kept() -> None:
    """`--cache ''` computes anew."""
    cache = FeatureCache(None)
    cache.store(KEY, FEATURES, {})

    assert cache.load(KEY, 3) is None


def test_a_cache_that_cannot_be_kept_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the folder should be: features, facts and hashes go on, with one line."""
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file")

    cache.store(KEY, FEATURES, {})
    cache.store(KEY, FEATURES, {})

    assert 7 == cache.fact(KEY, lambda: 7)
    assert cache.load(KEY, 3) is None
    said = capsys.readouterr().err
    assert 1 == said.count("cannot be kept")
    assert "--cache ''" in said


def test_code_is_part_of_the_key_but_comments_are_not(tmp_path: Path) -> None:
    """A changed constant makes stale features; a reworded docstring does not."""
    file = tmp_path / "code.py"

    def sha(text: str) -> str:
        file.write_text(text)
        module._code_sha256.cache_clear()
        return code_sha256(str(file))

    plain = sha('def f():\n    """One."""\n    return 1\n')

    assert plain == sha('def f():\n    """Two."""\n\n    return 1  # why\n')
    assert plain != sha('def f():\n    """One."""\n    return 2\n')


def test_a_package_is_all_of_its_files(tmp_path: Path) -> None:
    """Code moved into a package is still code: a change in any of its files is another key."""
    (tmp_path / "__init__.py").write_text("")
    part = tmp_path / "part.py"
    hashes = []
    for number in (1, 2):
        part.write_text(f"x = {number}")
        module._code_sha256.cache_clear()
        hashes.append(code_sha256(str(tmp_path / "__init__.py")))

    assert hashes[0] != hashes[1]


# -------------------------------------------------------------------------------- facts


def test_a_fact_is_found_once_per_key(tmp_path: Path) -> None:
    """The second time it is read; under another key it is found anew; without a folder, always."""
    cache, found = FeatureCache(tmp_path / "new"), []

    def find() -> int:
        found.append(1)
        return 40 + len(found)

    assert [41, 41] == [cache.fact(KEY, find) for _ in range(2)]
    assert 42 == cache.fact(Key({"weights": "other"}), find)
    assert [43, 44] == [FeatureCache(None).fact(KEY, find) for _ in range(2)]


@pytest.mark.parametrize(
    "text", ["", '{"key": ', "[]", '{"key": {}, "value": 1}', "no number", "damaged"]
)
def test_a_fact_that_is_not_whole_is_found_again(tmp_path: Path, text: str) -> None:
    """Cut short, of another key, no number, or with another checksum: it is replaced."""
    cache = FeatureCache(tmp_path)
    cache.fact(KEY, lambda: 1)
    (file,) = tmp_path.glob("*.json")
    whole = json.loads(file.read_text())
    if text == "no number":
        text = json.dumps(sealed({**whole, "value": "1"}))
    elif text == "damaged":
        text = json.dumps({**whole, "value": 7})
    file.write_text(text)

    assert 2 == cache.fact(KEY, lambda: 2)
    assert 2 == cache.fact(KEY, lambda: 3)


def test_what_fails_is_no_fact(tmp_path: Path) -> None:
    """An error is raised again the next time, not remembered as passed."""
    cache = FeatureCache(tmp_path)

    def fail() -> int:
        raise DataError("a fault")

    for _ in range(2):
        with pytest.raises(DataError, match="a fault"):
            cache.fact(KEY, fail)
