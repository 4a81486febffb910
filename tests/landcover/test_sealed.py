"""Tables of labels and their unfinished batches are what was written, or are not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import CASES

from eofm.errors import LabelError
from eofm.formats.parquet import SEAL
from eofm.landcover.table import KEY, SEALED, LabelOutput, TableBatch, open_table, schema


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Labels of sixteen windows of a map."""
    return CASES["labels.parquet"].make(tmp_path)


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table], *, sealed: bool = True) -> None:
    """Change a table with all that its metadata say of it, or as eofm 0.1 wrote it."""
    about = dict(pq.ParquetFile(file).metadata.metadata)
    if not sealed:
        del about[SEAL]
        plain = json.loads(about[KEY])
        rest = {k: v for k, v in plain.items() if k not in {SEALED, "checksum"}}
        about[KEY] = json.dumps(rest).encode()
    about.pop(b"ARROW:schema", None)
    pq.write_table(change(pq.read_table(file)).replace_schema_metadata(about), file)


def inverted(table: pa.Table) -> pa.Table:
    """Make every class that is present absent, and the other way round."""
    at = table.schema.get_field_index("multi_hot")
    kind = table.schema.field(at).type
    values = [[1 - one for one in row] for row in table["multi_hot"].to_pylist()]
    return table.set_column(at, table.schema.field(at), pa.array(values, kind))


def test_inverted_labels_are_found(table: Path) -> None:
    """A table that is edited is refused; one of 0.1 has no checksum, and is read."""
    before = open_table(table).labels()[0]
    rewrite(table, lambda whole: whole)
    assert (before == open_table(table).labels()[0]).all()

    rewrite(table, inverted)
    with pytest.raises(LabelError, match="damaged") as caught:
        open_table(table).labels()
    assert "multi_hot" in str(caught.value.found)

    rewrite(table, lambda whole: whole, sealed=False)
    assert (before == 1 - open_table(table).labels()[0]).all()


def test_edited_metadata_are_found(table: Path) -> None:
    """Classes in another order, and checksums that were taken out."""
    about = dict(pq.ParquetFile(table).metadata.metadata)
    plain = json.loads(about[KEY])
    plain["classes"].reverse()
    for spoiled in (
        {**about, KEY: json.dumps(plain).encode()},
        {key: value for key, value in about.items() if key != SEAL},
    ):
        spoiled.pop(b"ARROW:schema", None)
        pq.write_table(pq.read_table(table).replace_schema_metadata(spoiled), table)
        with pytest.raises(LabelError, match="damaged"):
            open_table(table)


def test_a_damaged_batch_is_counted_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that resumes looks at what is finished, and says what it does not believe."""
    layout = schema(2)
    rows = pa.table({field.name: pa.nulls(3, field.type) for field in layout}, schema=layout)
    out = tmp_path / "l.parquet"

    def output() -> LabelOutput:
        return LabelOutput(out, {"n": 1}, {}, layout, 3, resume=True)

    with output() as writing:  # and left before its end
        for number in range(3):
            writing.add(number, TableBatch(rows, 0, {}))
    parts = sorted((tmp_path / "l.parquet.parts").glob("*.parquet"))
    parts[0].write_bytes(parts[0].read_bytes()[:-9])
    other = pq.read_table(parts[1])
    pq.write_table(other.slice(0, 2).replace_schema_metadata(other.schema.metadata), parts[1])

    with output() as writing:
        assert [0, 1] == writing.left

    assert 2 == capsys.readouterr().err.count("is counted again")
