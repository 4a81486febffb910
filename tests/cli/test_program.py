"""The command line: instant help, strict keys, one clear error, honest exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

import eofm
from eofm.cli import VERBS, joined, main, parse
from eofm.cli.program import load
from eofm.train.config import PretrainConfig

VERB_NAMES = sorted(VERBS)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command."""
    try:
        code = main(list(words))
    except SystemExit as done:
        code = int(done.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """`eofm`, `eofm --help` and `eofm help` list all verbs and succeed."""
    for words in ((), ("--help",), ("help",)):
        code, out, _ = run(capsys, *words)
        assert 0 == code
        assert all(name in out for name in VERBS)


@pytest.mark.parametrize("name", VERB_NAMES)
def test_every_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` shows examples and a line for each option."""
    code, out, _ = run(capsys, *name.split(), "--help")

    assert 0 == code
    assert "examples:" in out
    assert VERBS[name].examples[0] in out


@pytest.mark.parametrize("name", VERB_NAMES)
def test_every_verb_leads_somewhere(name: str) -> None:
    """Settings and action exist under the names the table gives."""
    assert callable(load(VERBS[name].settings))
    assert callable(load(VERBS[name].action))


def test_a_wrong_verb_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt verb is status 2 with the nearest name."""
    code, _, err = run(capsys, "pretrian")

    assert 2 == code
    assert "did you mean 'eofm pretrain'" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--optim.epoch", "3"), "--optim.epochs"),  # an abbreviation is not taken silently
        (("--optim.epochs", "three"), "optim.epochs"),
        (("--method.soft_form", "triplet"), "'triplet' is none of bce, ce, mse"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--optim.epochs",), "expected one argument"),
    ],
)
def test_wrong_options_are_status_2_and_named(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names key and choice, in a few lines, with the way to the help."""
    code, _, err = run(capsys, "pretrain", *words)

    assert 2 == code
    assert expected in err
    assert "eofm pretrain --help" in err
    assert len(err.splitlines()) < 6


def test_a_misspelt_yaml_key_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown key in a file is refused with the nearest one, not ignored."""
    (tmp_path / "run.yaml").write_text("optim:\n  epohcs: 3\n")

    code, _, err = run(capsys, "pretrain", "--config", str(tmp_path / "run.yaml"))

    assert 2 == code
    assert "epohcs" in err
    assert "--optim.epochs" in err


def test_out_of_range_settings_are_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A value of the right type that makes no sense is an EofmError: found, expected, where."""
    code, _, err = run(capsys, "pretrain", "--method.mask_ratio", "1.5")

    assert 1 == code
    assert "found:    1.5" in err


def test_precedence_is_the_order_given(tmp_path: Path) -> None:
    """A later file overrides an earlier flag, and a later flag overrides the file."""
    path = tmp_path / "run.yaml"
    path.write_text("optim:\n  lr: 1e-4\n  epochs: 7\n")

    first = parse("pretrain", ["--optim.lr", "0.5", "--config", str(path)])
    second = parse("pretrain", ["--config", str(path), "--optim.lr", "0.5"])

    assert isinstance(first, PretrainConfig)
    assert isinstance(second, PretrainConfig)
    assert (1e-4, 0.5) == (first.optim.lr, second.optim.lr)  # 1e-4 is a number, not text
    assert 7 == second.optim.epochs


def test_print_config_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--print_config` prints the resolved settings without running; `--config` reads them."""
    code, out, _ = run(capsys, "pretrain", "--augment.scale", "[0.3, 0.9]", "--print_config")
    path = tmp_path / "printed.yaml"
    path.write_text(out)

    again = parse("pretrain", ["--config", str(path)])

    assert 0 == code
    assert isinstance(again, PretrainConfig)
    assert (0.3, 0.9) == tuple(again.augment.scale)
    assert 18 == yaml.safe_load(out)["optim"]["epochs"] == again.optim.epochs


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`eofm --version` prints the package's version."""
    code, out, _ = run(capsys, "--version")

    assert 0 == code
    assert out.startswith("eofm ")


def options_of(text: str) -> list[str]:
    """The options that a help text lists."""
    return re.findall(r"^  (?:-\w, )?(--[\w.-]+)", text, re.MULTILINE)


def test_the_help_of_pretrain_shows_what_most_runs_need(capsys: pytest.CaptureFixture[str]) -> None:
    """At most 35 options; all of them with --help-all; each common one exists."""
    code, few_text, _ = run(capsys, "pretrain", "--help")
    all_code, every_text, _ = run(capsys, "pretrain", "--help-all")
    few, every = options_of(few_text), options_of(every_text)

    assert (0, 0) == (code, all_code)
    assert len(few) <= 35
    assert {f"--{name}" for name in VERBS["pretrain"].common} <= set(few) <= set(every)
    assert len(every) > 90


def test_all_options_of_pretrain_stand_in_its_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    """What `--help-all` lists and what `--print_config` writes are the same settings."""
    _, text, _ = run(capsys, "pretrain", "--help-all")
    _, printed, _ = run(capsys, "pretrain", "--print_config")
    listed = {option for option in options_of(text) if "." in option}
    written = {
        f"--{group}.{key}" for group, keys in yaml.safe_load(printed).items() for key in keys or ()
    }

    assert listed == written


def test_the_overview_has_titles(capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb stands once, under a title."""
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()

    assert {"pretraining", "data", "benchmark", "models"} <= set(lines)
    for name in VERBS:
        assert 1 == sum(line.startswith(f"  {name}  ") for line in lines), name


@dataclass(frozen=True)
class Listed:
    """Settings with a list, a text of words with commas, and a word of their own."""

    store: str = field(metadata={"positional": True})
    bands: list[str] | None = None
    model: str = field(default="", metadata={"list": True})
    out: str = ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["S", "--bands", "B02", "B03"], ["S", "--bands", "[B02,B03]"]),
        (["S", "--bands", "B02,B03", "--out", "x"], ["S", "--bands", "[B02,B03]", "--out", "x"]),
        (["S", "--bands", "[B02,B03]"], ["S", "--bands", "[B02,B03]"]),
        (["--model", "a", "b", "S"], ["--model", "a,b", "S"]),
        (["--out", "x", "--model", "a", "b", "S"], ["--out", "x", "--model", "a,b", "S"]),
        (["S", "--model", "a", "b"], ["S", "--model", "a,b"]),
        (["--model", "a,b", "--out", "x", "S"], ["--model", "a,b", "--out", "x", "S"]),
        (["--bands=B02", "S"], ["--bands", "[B02]", "S"]),
    ],
)
def test_lists_are_words(words: list[str], expected: list[str]) -> None:
    """Words, commas and YAML are one list, and the verb's own words stay its own."""
    assert expected == joined(words, Listed)


def test_python_m_eofm() -> None:
    """`python -m eofm` is the program."""
    done = subprocess.run(
        [sys.executable, "-m", "eofm", "--version"], capture_output=True, text=True, check=True
    )

    assert f"eofm {eofm.__version__}" == done.stdout.strip()


def test_python_m_eofm_cli() -> None:
    """`torchrun -m eofm.cli`, as scripts for 0.1 have it, is the same program."""
    done = subprocess.run(
        [sys.executable, "-m", "eofm.cli", "--version"], capture_output=True, text=True, check=True
    )

    assert f"eofm {eofm.__version__}" == done.stdout.strip()


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("--at", "-3.703,40.413"), "-3.703,40.413"),
        (("--at", "-3.703", "40.413"), "-3.703,40.413"),
        (("--at", "-3.703,", "-40.413"), "-3.703,-40.413"),
        (("--at=-3.703,40.413",), "-3.703,40.413"),
        (("--at", "3", "40", "--top", "5"), "3,40"),
    ],
)
def test_places_west_of_greenwich_are_no_options(words: tuple[str, ...], value: str) -> None:
    """A coordinate that begins with a minus is a value, with a comma or without."""
    found = parse("search", ["emb", *words])

    assert value == found.at  # type: ignore[attr-defined]
    assert "emb" == found.embeddings  # type: ignore[attr-defined]


def test_an_area_is_numbers_or_a_file() -> None:
    """Four numbers as words, and what stands behind them stays a scene."""
    base = ["a.tif", "--model", "m", "--out", "o"]
    box = parse("embed", ["--where", "-3.7", "40.4", "-3.6", "40.5", *base])
    file = parse("embed", ["--where", "fields.gpkg", *base])

    assert "-3.7,40.4,-3.6,40.5" == box.where  # type: ignore[attr-defined]
    assert "fields.gpkg" == file.where  # type: ignore[attr-defined]
    assert ["a.tif"] == box.scenes == file.scenes  # type: ignore[attr-defined]


def test_lists_behind_a_sign_of_equality() -> None:
    """`--bands=B02,B03` is `--bands B02 B03`, and one word is a list of one."""
    words = ["a.tif", "--model", "m", "--out", "o", "--bands=B02,B03", "--formats=[tif]"]
    found = parse("embed", words)
    labels = parse("map", ["emb", "--labels=a.gpkg"])

    assert ["B02", "B03"] == found.bands  # type: ignore[attr-defined]
    assert ["tif"] == found.formats  # type: ignore[attr-defined]
    assert ["a.gpkg"] == labels.labels  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "embed a.tif --model m --out o --chips many",
            "--chips takes a whole number, and not 'many'",
        ),
        ("models list --sensor s2", "--sensor takes one of s1-grd, s1-rtc, s2-l1c"),
        ("embed a.tif --out o", "required: --model"),
        ("search", "required: EMBEDDINGS"),
        ("pretrain --data nope", "--data.store"),
        ("pretrain --trainer.max_epochs 3", "did you mean: --optim.epochs"),
        ("pretrain --lr 3", "did you mean: --optim.lr"),
        ("pretrain --batch-size 3", "did you mean: --optim.batch"),
        ("models show x", "did you mean 'eofm models info'"),
        ("-v", "there is no verb '-v'"),
    ],
)
def test_wrong_words_are_answered_in_words(
    words: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Types, missing options, options of other tools: what to type is said in words."""
    code, _, err = run(capsys, *words.split())

    assert 2 == code
    assert expected in err
    assert "<class" not in err
    assert "typing." not in err


def test_a_word_that_is_no_option_gets_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    """A stray `true` behind a flag was said to mean `--stride`."""
    code, _, err = run(
        capsys, *["embed", "a.tif", "--model", "m", "--out", "o", "--patches", "true"]
    )

    assert 2 == code
    assert "did you mean" not in err


def test_help_that_is_asked_for_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`eofm help VERB` is its help; a group lists its verbs, which is wrong usage only unasked."""
    assert run(capsys, "help", "models", "info")[0] == 0
    assert run(capsys, "bench", "--help")[0] == 0
    assert run(capsys, "bench")[0] == 2
    assert run(capsys, "version")[1].startswith("eofm ")
    listed = run(capsys, "bench", "--help")[1].splitlines()
    summaries = {
        line.index(VERBS[name].summary[:20])
        for name in VERBS
        for line in listed
        if line.startswith(f"eofm {name} ")
    }
    assert 1 == len(summaries)


@pytest.mark.parametrize(
    ("verb", "text", "key"),
    [
        (["map"], "embeddings: v\nlabels: [a.gpkg]\nfolds:\n", "folds"),
        (["pretrain"], "optim:\n  epochs:\n", "optim.epochs"),
        (["pretrain"], "trainer: null\n", "trainer"),
    ],
)
def test_a_key_without_a_value_is_named(
    verb: list[str], text: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`folds:` holds nothing where a number has to stand: status 2 and the key, no traceback."""
    (tmp_path / "s.yaml").write_text(text)

    assert 2 == main([*verb, "--config", str(tmp_path / "s.yaml")])

    assert key in capsys.readouterr().err


def test_what_all_settings_of_a_kind_share_is_no_key() -> None:
    """A class variable of settings, the name of their verb, is asked of nobody."""
    settings = parse("bench so2sat", ["--root", "DIR", "--model", "imagestats"])

    assert "DIR" == settings.root
