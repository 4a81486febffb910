"""The completion scripts, asked by a real shell."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest

from eofm.cli import VERBS, main
from eofm.cli.completion import (
    SHELLS,
    CompletionConfig,
    _choices,
    _is_number,
    write_completion,
)
from eofm.cli.program import parser_of

Ask = Callable[..., list[str]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """What bash offers for the last of some words."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("completion")
    script = folder / "eofm.bash"
    script.write_text(write_completion(CompletionConfig("bash")).describe())
    (folder / "a_store").mkdir()

    def offered(*words: str) -> list[str]:
        code = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
            "_shtab_eofm; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            ["bash", "-c", code, "bash", str(script), "eofm", *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
        assert "" == done.stderr
        return done.stdout.split()

    return offered


def test_bash_completes_verbs(ask: Ask) -> None:
    """The first words, and the second ones of a family."""
    assert {name.split()[0] for name in VERBS} == set(ask(""))
    assert ["pretrain"] == ask("pret")
    assert {"tiles", "ssl4eo", "bigearthnet", "eurosat"} == set(ask("pack", ""))
    assert ["verify"] == ask("models", "ver")


@pytest.mark.parametrize("name", ["pretrain", "pack tiles", "bench eurosat", "data subset"])
def test_bash_completes_every_option(name: str, ask: Ask) -> None:
    """All options of a verb, those that its short help leaves out included."""
    known = {
        option
        for action in parser_of(name, VERBS[name])._actions
        for option in action.option_strings
    }

    assert known == set(ask(*name.split(), "-"))


def test_bash_completes_choices_and_files(ask: Ask) -> None:
    """Enumerations, literals and booleans by their words; free text by files; numbers not."""
    assert {"softcon", "moco"} <= set(ask("pretrain", "--method.objective", ""))
    assert {"s2-l1c", "s1-grd"} == set(ask("pretrain", "--data.sensor", "s"))
    assert ["true"] == ask("pretrain", "--method.symmetric", "t")
    assert ["a_store"] == ask("pretrain", "--data.store", "a_")
    assert ["a_store"] == ask("data", "verify", "a_")
    assert [] == ask("pretrain", "--optim.epochs", "")


def test_the_line_of_the_help_works_in_bash() -> None:
    """`eval "$(eofm completion bash)"`, as the help has it, leaves a completion for `eofm`."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    line = next(line for line in VERBS["completion"].examples if "eval" in line)
    program = f'eofm() {{ "{sys.executable}" -m eofm "$@"; }}'
    done = subprocess.run(
        ["bash", "-c", f"{program}; {line}\ncomplete -p eofm"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "-F _shtab_eofm eofm" in done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_knows_every_verb_and_option(shell: str) -> None:
    """No verb is missing from a script; a shell that is here reads it without complaint."""
    script = write_completion(CompletionConfig(shell)).describe()

    for name in VERBS:
        assert all(re.search(rf"\b{re.escape(word)}\b", script) for word in name.split()), name
    assert "data.store" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The error lists the shells that there are."""
    assert 1 == main(["completion", "tcsh"])
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_completion_loads_no_heavy_library() -> None:
    """The script is made from dataclasses alone: neither torch nor rasterio is imported."""
    code = (
        "import sys; from eofm.cli import main; main(['completion', 'bash']); "
        "assert not {'torch', 'rasterio', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr


class Kind(StrEnum):
    """Two words."""

    A = "a"
    B = "b"


@pytest.mark.parametrize(
    ("kind", "choices", "number"),
    [
        (Literal["x", "y"] | None, ["x", "y"], False),
        (bool | Literal["auto"], ["true", "false", "auto"], True),
        (Kind, ["a", "b"], False),
        (Kind | None, ["a", "b"], False),
        (float | None, [], True),
        (str | None, [], False),
        (Path, [], False),
        (list[str], [], False),
        (None, [], False),
    ],
)
def test_words_of_a_type(kind: object, choices: list[str], number: bool) -> None:
    """What can be listed is; what is neither that nor a number may be a file."""
    assert (choices, number) == (_choices(kind), _is_number(kind))
