"""A user's own scheme."""

from __future__ import annotations

from pathlib import Path

import pytest

from eofm.errors import LabelError
from eofm.landcover.schemes import SCHEMES, find_scheme

GOOD = """
name: my-map
version: 2024
classes: {1: water, 2: forest, 3: forest, 7: fields}
nodata: 0
cloud: [10, 11]
unknown: ignore
"""


def test_built_in() -> None:
    """A name is a built-in scheme."""
    assert SCHEMES["esri"] is find_scheme("esri")


def test_own(tmp_path: Path) -> None:
    """Every key of the file reaches the scheme; codes with one name are one class."""
    (tmp_path / "my.yaml").write_text(GOOD)

    scheme = find_scheme(str(tmp_path / "my.yaml"))

    assert ("my-map", "2024", "my.yaml") == (scheme.name, scheme.version, scheme.source)
    assert ("water", "forest", "fields") == scheme.names
    assert (1, 2, 3, 7, 0, 10, 11) == scheme.codes
    assert [0, 1, 1, 2, 3, 4, 4] == scheme.columns.tolist()
    assert scheme.ignore_unknown


def test_digest_follows_codes(tmp_path: Path) -> None:
    """One renumbered class is another scheme."""
    digests = set()
    for number, text in enumerate(
        (GOOD, GOOD.replace("7:", "8:"), GOOD.replace("ignore", "error"))
    ):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        digests.add(find_scheme(str(file)).digest)

    assert 3 == len(digests)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2: forest", "1: forest", "1 twice"),
        ("nodata: 0", "nodata: 7", "means two things"),
        ("nodata: 0", "nodata: -9999", "out of range"),
        ("nodata: 0", "nodata: 0.5", "whole numbers"),
        ("nodata: 0", "nodat: 0", "nodat (unknown), no nodata"),
        ("nodata: 0", "nodata: []", "at least one class and one nodata"),
        ("ignore", "drop", "unknown: error | ignore"),
        ("1: water", "one: water", "whole numbers"),
        ("1: water", "1: 5", "classes:"),
        ("{1: water", "[1: water", "YAML"),
    ],
)
def test_not_a_scheme(old: str, new: str, said: str, tmp_path: Path) -> None:
    """Each fault of a file is named."""
    (tmp_path / "my.yaml").write_text(GOOD.replace(old, new))

    with pytest.raises(LabelError) as caught:
        find_scheme(str(tmp_path / "my.yaml"))

    assert said in str(caught.value)


def test_no_such_scheme(tmp_path: Path) -> None:
    """A misspelt name gets a suggestion, a missing file its path."""
    with pytest.raises(LabelError) as caught:
        find_scheme("worldcovr")
    assert "--scheme worldcover" == caught.value.remedy

    with pytest.raises(LabelError, match="no such scheme file"):
        find_scheme(str(tmp_path / "none.yaml"))
