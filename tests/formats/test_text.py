"""JSON, YAML and settings that others wrote: the right value, or one error that names the file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from eofm.cli import main, parse
from eofm.errors import ConfigError, DataError
from eofm.formats.text import YAML_BYTES, parse_yaml, read_json, read_yaml, split_lines

BAD_JSON = {
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "cut short": b'{"a": [1, 2',
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "long integer": b'{"a": ' + b"9" * 5000 + b"}",
    "no number": b'{"a": NaN}',
    "no bound": b'{"a": -Infinity}',
    "empty": b"",
    "two values": b"1 2",
}
BAD_YAML = {
    "not UTF-8": b"a: \xff\xfe",
    "cut short": b"a: [1, 2",
    "nested": b"[" * 5_000 + b"]" * 5_000,
    "long integer": b"a: " + b"9" * 5000,
    "holds itself": b"a: &x [*x]",
    "multiplied": b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        f"{n}: &{n} [{','.join([f'*{m}'] * 10)}]\n".encode()
        for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "code": b"a: !!python/object/apply:os.system ['true']",
    "a list as a key": b"? [a, b]\n: 1",
    "a date that is none": b"a: 2021-13-45",
    "too large": b"#" * (YAML_BYTES + 1),
}


@pytest.mark.parametrize("how", BAD_JSON)
def test_bad_json(tmp_path: Path, how: str) -> None:
    """Whatever is wrong is one error of the kind that was asked for, in one line."""
    file = tmp_path / "x.json"
    file.write_bytes(BAD_JSON[how])

    with pytest.raises(ConfigError, match="cannot be had") as caught:
        read_json(file, ConfigError, "it cannot be had", remedy="write it")

    assert (file, "write it") == (caught.value.where, caught.value.remedy)
    assert "\n" not in str(caught.value.found)
    assert len(str(caught.value.found)) < 310


@pytest.mark.parametrize("how", BAD_YAML)
def test_bad_yaml(tmp_path: Path, how: str) -> None:
    """The same for YAML; and no code in it is run, nor an alias followed without end."""
    file = tmp_path / "x.yaml"
    file.write_bytes(BAD_YAML[how])

    with pytest.raises(DataError) as caught:
        read_yaml(file)

    assert file == caught.value.where


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_plain_file(tmp_path: Path, read) -> None:
    """Nothing, a folder, a device that never ends: each has its words."""
    for path, words in [
        (tmp_path / "none", "no such file"),
        (tmp_path, "no plain file"),
        (Path("/dev/zero"), "no plain file"),
    ]:
        with pytest.raises(DataError) as caught:
            read(path)
        assert words in str(caught.value.found)


def test_bounds(tmp_path: Path) -> None:
    """A file that is longer than allowed is not read."""
    file = tmp_path / "x.json"
    file.write_text("[1, 2, 3]")
    assert [1, 2, 3] == read_json(file, limit=9)

    with pytest.raises(DataError) as caught:
        read_json(file, limit=8)
    assert "9 bytes, more than the 8" in str(caught.value.found)


def test_yaml_means_what_it_says() -> None:
    """An alias repeats a part; equal keys are refused only where that is asked for."""
    text = "a: &x [1, 2]\nb: *x\na: 3\n"

    assert {"a": 3, "b": [1, 2]} == parse_yaml(text)
    with pytest.raises(ValueError, match="a twice"):
        parse_yaml(text, unique=True)
    assert {1: "one", 2: {"deep": [1]}} == parse_yaml("1: one\n2: {deep: [1]}", unique=True)
    assert parse_yaml("") is None
    merged = "a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n"  # not a key twice
    assert {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}} == parse_yaml(merged, unique=True)


def test_lines() -> None:
    """Only a line feed ends a line: not U+2028, nor a carriage return within a name."""
    text = '"a\u2028b"\n\n"c\x85d"\n'.encode()

    assert [(1, '"a\u2028b"'.encode()), (3, '"c\x85d"'.encode())] == list(split_lines(text))


# ---------------------------------------------------------------------------------------- settings


BAD_SETTINGS = {
    "not UTF-8": b"scenes: \xff",
    "no YAML": b"scenes: [1",
    "nested": b"[" * 5000,
    "multiplied": b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        f"{n}: &{n} [{','.join([f'*{m}'] * 10)}]\n".encode()
        for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "long integer": b"scenes: " + b"9" * 5000,
    "holds itself": b"scenes: &a [*a]",
    "a key twice": b"scenes: 1\nseed: 0\nscenes: 2\n",
}  # fmt: skip


@pytest.mark.parametrize("how", [*BAD_SETTINGS, "a device"])
def test_bad_settings(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1 and the file; `--config FILE` and `--config=FILE`."""
    file = Path("/dev/zero") if how == "a device" else tmp_path / "x.yaml"
    if how in BAD_SETTINGS:
        file.write_bytes(BAD_SETTINGS[how])

    for words in (["--config", str(file)], [f"--config={file}"]):
        assert 1 == main(["world", *words, "--out", str(tmp_path / "w")])
        said = capsys.readouterr().err
        assert "the settings cannot be read" in said
        assert str(file) in said
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("key", ["null", "true", "3"])
def test_a_key_that_is_no_text_to_yaml(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`eofm change` has an option `null`: "Key must be a string, got: None". The quotes help."""
    file = tmp_path / "x.yaml"
    file.write_text(f"before: a.tif\nafter: b.tif\n{key}: [c.tif, d.tif]\n")

    assert 1 == main(["change", "--config", str(file)])

    said = capsys.readouterr().err
    quoted = said.partition("quotes: ")[2].splitlines()[0]
    assert f"'{key}':" == quoted
    file.write_text(file.read_text().replace(f"{key}:", quoted))
    if key == "null":
        found = parse("change", ["--config", str(file)])
        assert ["c.tif", "d.tif"] == found.null  # type: ignore[attr-defined]


def test_settings_from_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--config <(...)` of a shell is read, once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("scenes: 3\n",))
    writer.start()

    with pytest.raises(SystemExit) as done:
        main(["world", "--config", str(pipe), "--print_config"])

    writer.join()
    assert not done.value.code
    assert "scenes: 3" in capsys.readouterr().out
