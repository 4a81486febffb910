"""Whether a store may be resumed: what is in it must still be what it was."""

from __future__ import annotations

from collections.abc import Mapping

from eofm.contract.spec import Unit
from eofm.errors import StoreError
from eofm.store.reader import Store
from eofm.store.writer import StoreWriter


def check_sources(writer: StoreWriter, units: Mapping[str, Unit]) -> None:
    """Check that images with committed rows are still there, in the unit they were packed from.

    Others may have been repaired, removed or added meanwhile, unless the store is complete.

    Args:
        writer: The store.
        units: Name -> stated unit of the images there are now.

    Raises:
        StoreError: If one is gone, is stated otherwise, or is missing in a complete store.
    """
    store = Store(writer.path) if writer.complete else None
    before = writer.source_units if store is None else _source_units(store)
    found = [f"{name} is gone" for name in before if name not in units]
    found += [
        f"{name} was in {unit}, now in {units[name].value}"
        for name, unit in before.items()
        if name in units and units[name].value != unit
    ]
    if found:
        raise StoreError(
            "images that are in the store already are not what they were",
            found="; ".join(found[:5]) + ("; ..." if found[5:] else ""),
            where=writer.path,
            remedy="restore them, or choose another --out",
        )
    if store is not None and len(units) != store.card.sources:
        raise StoreError(
            "the store is complete, but there are other images now",
            found=f"{len(units)} images",
            expected=f"the {store.card.sources} it was packed from",
            where=writer.path,
            remedy="choose another --out",
        )


def _source_units(store: Store) -> dict[str, str]:
    columns = [store.table[name].to_pylist() for name in ("source", "source_unit")]
    return dict(zip(*columns, strict=True))
