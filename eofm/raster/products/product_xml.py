"""The metadata of a product as XML, read without trust: no DTD, no entities, bounded in size.

A document type declaration is what entity expansion ("billion laughs") and reading of foreign files
need; no Sentinel-2 product has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from eofm.errors import RasterError

MAX_BYTES: Final = 64 * 2**20  # MTD_TL.xml of a full tile has 0.6 MB, with its angle grids
_MAX_DEPTH: Final = 64


class _ForbiddenError(Exception):
    pass


def parse_xml(data: bytes, where: object) -> Element:
    """Return the root of a document whose names have lost their namespaces.

    Args:
        data: The document.
        where: File, for the message of an error.

    Raises:
        RasterError: If it is too large, declares a document type, or is no XML.
    """
    if len(data) > MAX_BYTES:
        raise too_large(len(data), where)
    builder, parser = TreeBuilder(), expat.ParserCreate(namespace_separator="}")
    depth = 0

    def forbid(*_: object) -> None:
        raise _ForbiddenError("a document type declaration")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise _ForbiddenError(f"elements within elements, more than {_MAX_DEPTH} deep")
        builder.start(tag.rpartition("}")[2], attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.rpartition("}")[2])

    parser.StartDoctypeDeclHandler = forbid
    parser.EntityDeclHandler = forbid
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        return builder.close()
    except (_ForbiddenError, expat.ExpatError, ValueError, LookupError, AssertionError) as error:
        raise RasterError(
            "the metadata of the product cannot be read",
            found=error,
            expected="XML as ESA writes it",
            where=where,
            remedy="copy or download the product again",
        ) from error


def too_large(size: int, where: object) -> RasterError:
    """Return the error for a document of more bytes than metadata have."""
    return RasterError(
        "the metadata of the product are too large to be metadata",
        found=f"{size:,} bytes",
        expected=f"at most {MAX_BYTES:,}",
        where=where,
        remedy="copy or download the product again",
    )


def texts(root: Element, name: str) -> Iterator[str]:
    """Yield the texts of all elements of a name."""
    for element in root.iter(name):
        if element.text and element.text.strip():
            yield element.text.strip()


def first_text(root: Element, *names: str) -> str | None:
    """Return the text of the first element that has one of the names, tried in order."""
    for name in names:
        for text in texts(root, name):
            return text
    return None
