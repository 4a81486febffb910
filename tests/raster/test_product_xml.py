"""Metadata from strangers: bounded, without document types."""

from __future__ import annotations

import pytest

from eofm.errors import RasterError
from eofm.raster import safe
from eofm.raster.safe import first_text, parse_xml, texts

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<lolz>&b;</lolz>"""
FOREIGN = b"""<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]><x>&f;</x>"""


def test_names_lose_their_namespace() -> None:
    """Elements are found by their name, whatever the schema's version is."""
    root = parse_xml(b'<n:a xmlns:n="u"><b k="1"> x </b><n:b>y</n:b></n:a>', "here")

    assert "a" == root.tag
    assert ["x", "y"] == list(texts(root, "b"))
    assert "x" == first_text(root, "missing", "b")
    assert first_text(root, "missing") is None
    assert "1" == root.find("b").get("k")


@pytest.mark.parametrize("data", [BOMB, FOREIGN, BOMB.decode().encode("utf-16")])
def test_a_document_type_is_refused(data: bytes) -> None:
    """Neither expanding entities nor foreign files are ever looked at, in any encoding."""
    with pytest.raises(RasterError, match="cannot be read") as refused:
        parse_xml(data, "here")
    assert "document type" in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no xml",
        b"<a><b></a>",
        b"<a>",
        b"\xff\xfe",
        b'<?xml version="1.0" encoding="martian"?><a/>',
        b"<a>" * 100_000,
        b"<a>&undefined;</a>",
        b"\x00" * 100,
    ],
)
def test_broken_documents_are_said(data: bytes) -> None:
    """Whatever is wrong is one error that names the file."""
    with pytest.raises(RasterError, match="cannot be read") as broken:
        parse_xml(data, "MTD.xml")
    assert "MTD.xml" == broken.value.where


def test_a_large_document_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata have a size, and beyond it nothing is parsed."""
    monkeypatch.setattr(safe, "MAX_BYTES", 10)
    assert "a" == parse_xml(b"<a></a>", "here").tag
    with pytest.raises(RasterError, match="too large"):
        parse_xml(b"<aaaaa></aaaaa>", "here")
