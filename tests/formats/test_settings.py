"""Files of settings on the command line: bad ones end in one line, before the parser sees them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from eofm.cli import main

BAD = {
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
}  # fmt: skip


@pytest.mark.parametrize("how", [*BAD, "a device"])
def test_bad_settings(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1 and the file; `--config FILE` and `--config=FILE`."""
    file = Path("/dev/zero") if how == "a device" else tmp_path / "x.yaml"
    if how in BAD:
        file.write_bytes(BAD[how])

    for words in (["--config", str(file)], [f"--config={file}"]):
        assert 1 == main(["world", *words, "--out", str(tmp_path / "w")])
        said = capsys.readouterr().err
        assert "the settings cannot be read" in said
        assert str(file) in said
    assert not (tmp_path / "w").exists()


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
