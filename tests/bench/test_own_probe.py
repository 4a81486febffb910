"""A probe of one's own: one file, named by `--probe file.py:function`."""

from __future__ import annotations

from pathlib import Path

import pytest
from contributing import write_example

from eofm.bench.features import _code_sha256
from eofm.bench.records import read_results
from eofm.cli import main
from eofm.cli.verbs import VERBS


def words(eurosat: Path, probe: str) -> list[str]:
    """A run of the control that needs no network."""
    assert "bench eurosat" in VERBS
    small = ["--controls", "false", "--bootstrap", "10", "--k", "1", "--cache", "cache"]
    return [
        *("bench", "eurosat", "--root", str(eurosat), "--model", "imagestats", "--probe", probe),
        *("--out", "results.jsonl", *small),
    ]


def test_the_example_is_a_probe(
    eurosat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file alone makes it: it is scored with intervals, and stands in the record."""
    monkeypatch.chdir(tmp_path)
    write_example("medians.py", tmp_path)

    assert 0 == main(words(eurosat, "medians.py:medians,knn"))

    made = {result.probe.partition("[")[0] for result in read_results(Path("results.jsonl"))}
    assert "medians" in made
    assert 2 == len(made)


def test_a_changed_probe_is_fitted_again(
    eurosat: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Predictions that were kept are those of the file as it is: another score is a conflict."""
    monkeypatch.chdir(tmp_path)
    path = write_example("medians.py", tmp_path)
    assert 0 == main(words(eurosat, "medians.py:medians"))
    assert 0 == main(words(eurosat, "medians.py:medians"))
    path.write_text(path.read_text().replace("-torch.cdist", "torch.cdist"))
    _code_sha256.cache_clear()  # as in another process

    assert 1 == main(words(eurosat, "medians.py:medians"))
    assert "conflicting duplicate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probe", "text", "expected"),
    [
        ("absent.py:f", "", "a probe of your own cannot be loaded"),
        ("mine.py:absent", "x = 1", "a probe of your own cannot be loaded"),
        ("mine.py:x", "x = 1", "a probe of your own is not a function"),
        ("mine.py:f", "def f(*_): return 3", "must return its predictions for the test samples"),
        ("mine", "", "there is no such probe"),
    ],
)
def test_what_is_no_probe_is_refused(
    probe: str,
    text: str,
    expected: str,
    eurosat: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One error of eofm, whatever is wrong with the file."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(text)

    assert 1 == main([*words(eurosat, probe), "--limit", "10"])
    assert expected in capsys.readouterr().err
