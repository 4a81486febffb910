"""Ways to spoil a file: bytes, JSON values, cells of tables. The same seed, the same harm."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

Mutate = Callable[[bytes, random.Random], bytes]

_EXTREMES: Final = (0, 1, -1, 127, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63))
HOSTILE: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 10**6, 2**31, 2**63, 10**30, -0.0, 0.5, 1e308, 1e-320),
    *("", "x", "\x00", "\u2028", "\ud800", "../../etc/passwd", "/dev/zero", "NaN", "nan", "-1"),
    *("é" * 300, "1" * 5000, [], {}, [None], [[]], {"": None}, [1, "a", None], {"a": {"a": {}}}),
)
_TEXTS: Final = (
    *("[" * 20_000, "{" * 5_000, "9" * 5_000, "NaN", "Infinity", "-Infinity", "1e999", "null"),
    *("\u2028", "\ufeff", "\x00", "&a [*a]", "!!python/name:os.system ", "true", '"', "\\ud800"),
    *("<!DOCTYPE x [<!ENTITY a 'b'>]>", "&a;", "..", "\n", "\r\n", ",", ":", "- "),
)


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Harm bytes: a bit, a byte, a run, an integer, an end."""
    out = bytearray(data)
    size = len(out)
    at, span = rng.randrange(size + 1), min(size, 1 << rng.randrange(1, 12))
    end = min(size, at + rng.randrange(1, span + 2))
    match rng.randrange(11):
        case 0 | 1 | 2 if size:
            out[rng.randrange(size)] ^= 1 << rng.randrange(8)
        case 3 if size:
            out[rng.randrange(size)] = rng.randrange(256)
        case 4:
            out[at:at] = rng.randbytes(rng.randrange(1, 64))
        case 5:
            del out[at:end]
        case 6:
            del out[at:]
        case 7:
            out[at:at] = out[at:end]
        case 8:
            out[at:end] = bytes([rng.choice((0, 255))]) * (end - at)
        case 9:
            width = rng.choice((2, 4, 8))
            number = rng.choice(_EXTREMES) % (1 << 8 * width)
            out[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        case _:
            out += rng.randbytes(rng.randrange(1, 64))
    return bytes(out)


def of_text(data: bytes, rng: random.Random) -> bytes:
    """Harm a text: by bytes, or by a word that a parser may choke on."""
    if rng.random() < 0.4:
        return of_bytes(data, rng)
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((0, 0, 1, 4, 16)))
    return data[:at] + rng.choice(_TEXTS).encode() + data[end:]


def _spots(value: Any, spots: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: its container and its key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(pairs):
        spots.append((value, key))
        if isinstance(part, dict | list):
            _spots(part, spots)
    return spots


def of_value(plain: Any, rng: random.Random) -> Any:
    """Harm a JSON value: another value, a key less, a key more, two exchanged."""
    out = copy.deepcopy(plain)
    spots = _spots(out, [])
    if not spots or rng.random() < 0.03:
        return copy.deepcopy(rng.choice(HOSTILE))
    home, key = rng.choice(spots)
    match rng.randrange(8):
        case 0:
            del home[key]
        case 1 if isinstance(home, dict):
            home["one more"] = copy.deepcopy(rng.choice(HOSTILE))
        case 1:
            home.append(copy.deepcopy(rng.choice(HOSTILE)))
        case 2:
            other, place = rng.choice(spots)
            home[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(home[key])
        case 3 if isinstance(home[key], list):
            home[key].reverse()
        case 4 if isinstance(home[key], int | float):
            home[key] = home[key] * rng.choice((-1, 2, 1000, 1.5)) + rng.choice((0, 1))
        case _:
            home[key] = copy.deepcopy(rng.choice(HOSTILE))
    return out


def of_json(data: bytes, rng: random.Random) -> bytes:
    """Harm a JSON file: its text or its values."""
    if rng.random() < 0.4:
        return of_text(data, rng)
    return json.dumps(of_value(json.loads(data), rng), indent=rng.choice((None, 2))).encode()


def of_parquet(data: bytes, rng: random.Random) -> bytes:
    """Harm a table: its bytes, or a column of it."""
    if rng.random() < 0.4:
        return of_bytes(data, rng)
    table = pq.read_table(io.BytesIO(data))
    at = rng.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at)
    rows = table.num_rows
    match rng.randrange(10):
        case 0:
            table = table.drop([name])
        case 1:
            table = table.rename_columns(["x" if n == name else n for n in table.column_names])
        case 2:
            order = [rng.randrange(rows) for _ in range(rows)]
            table = table.set_column(at, table.schema.field(at), column.take(order))
        case 3:
            order = [rng.randrange(rows) for _ in range(rng.choice((0, 1, rows, 99)))]
            table = table.take(pa.array(order, pa.int64()))
        case 4:
            values = column.to_pylist()
            values[rng.randrange(rows)] = None
            table = table.set_column(at, name, pa.array(values, column.type))
        case 5:
            table = table.append_column("one more", pa.array([0] * rows))
        case 6:
            kind = rng.choice((pa.int64(), pa.string(), pa.float64(), pa.binary(), pa.null()))
            table = table.set_column(at, name, pa.nulls(rows, kind))
        case 7:
            metadata = {k: of_text(v, rng) for k, v in (table.schema.metadata or {}).items()}
            table = table.replace_schema_metadata(metadata)
        case _:
            table = _another_cell(table, at, rng)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _another_cell(table: pa.Table, at: int, rng: random.Random) -> pa.Table:
    """Give one cell a value that its type can hold."""
    column, field = table.column(at), table.schema.field(at)
    values = column.to_pylist()
    row = rng.randrange(len(values))
    fits = []
    tried = [*HOSTILE, float("nan"), float("inf")]
    if isinstance(values[row], list):
        tried = [[one] * len(values[row]) for one in tried] + [values[row][::-1], []]
    for value in tried:
        try:
            fits.append(pa.array([value], field.type))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    values = pa.chunked_array([column.slice(0, row).combine_chunks()])
    chosen = rng.choice(fits) if fits else column.slice(row, 1).combine_chunks()
    parts = [column.slice(0, row), pa.chunked_array([chosen]), column.slice(row + 1)]
    return table.set_column(at, field, pa.chunked_array([c for p in parts for c in p.chunks], field.type))  # fmt: skip


def of_npy(data: bytes, rng: random.Random) -> bytes:
    """Harm an npy file: its bytes, or what its header says."""
    if rng.random() < 0.6:
        return of_bytes(data, rng)
    length = int.from_bytes(data[8:10], "little")
    shape = rng.choice(
        ("(1,)", "()", "(-1, 2)", "(99999999999999, 9)", "(3, 4, 2, 2)", "'x'", "(2,) * 9")
    )
    dtype = rng.choice(
        ("'<u2'", "'>u2'", "'|O'", "'<f8'", "[('a', '<u2')]", "'<U9'", "None", "'x'")
    )
    order = rng.choice(("True", "False", "None"))
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"
    return data[:10] + text.encode().ljust(length - 1)[: length - 1] + b"\n" + data[10 + length :]


def made(seed: int, name: str, number: int) -> random.Random:
    """The random numbers of one trial: none depends on how many there were before."""
    return random.Random(f"{seed}|{name}|{number}")
