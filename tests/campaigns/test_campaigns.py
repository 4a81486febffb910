"""The campaigns in short: each driver finds no fault in a few trials, and would find one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import conditions
import inputs
import kill_training
import kill_writers
import pytest
import races
from mutations import made

from eofm.cli.program import find_verb
from eofm.cli.verbs import VERBS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::Warning:rasterio"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # words of GDAL, by pyogrio
    # rasterio passes on words of GDAL that name what a spoiled file holds, in no encoding
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SLOW = {
    "encoder: card.json",
    "encoder: weights.safetensors",
    "STAC item of a model",
    "STAC item of vectors",
}


@pytest.mark.parametrize("name", sorted(set(inputs.CASES) - SLOW))
def test_spoiled_inputs(name: str, tmp_path: Path) -> None:
    """A few spoiled files of each format: the same value, or words."""
    found = inputs.run_case(name, 12, 7, tmp_path / "case")

    assert {} == found.faults
    assert 12 == found.counts.total()


@pytest.mark.parametrize(
    ("name", "seed", "number"),
    [
        ("GeoTIFF", 1, 882),
        ("STAC items of maps", 1, 723),
        ("footprints.parquet", 1, 143),
        ("stores: rows.parquet", 1, 29),
        ("polygons.geojson", 1, 313),
        ("patches.zarr: embedding/zarr.json", 3, 760),
    ],
)
def test_what_once_was_a_fault(name: str, seed: int, number: int, tmp_path: Path) -> None:
    """GDAL's own error, a null byte in a path, statistics that ended Arrow, an edge too long, a
    million dimensions.
    """
    found = inputs.run_case(name, 1, seed, tmp_path / "case", number)

    assert {"refused": 1} == dict(found.counts)


def test_the_oracle_sees_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises something foreign, and one that believes what is spoiled, are caught."""
    case = inputs.CASES["ids.txt"]

    def read(file: Path) -> object:
        return file.read_bytes().decode("ascii")

    for sealed, words in ((False, "UnicodeDecodeError"), (True, "ALTERED")):
        spoiled = inputs.Case(case.make, read, case.spoil, sealed)
        monkeypatch.setattr(inputs, "CASES", {"ids.txt": spoiled})
        found = inputs.run_case("ids.txt", 60, 0, tmp_path / "case")
        assert any(words in fault for fault in found.faults)


def test_the_same_seed_is_the_same_harm() -> None:
    """A trial can be repeated alone."""
    data = b"0123456789" * 9

    assert inputs.mutations.of_bytes(data, made(3, "x", 5)) == inputs.mutations.of_bytes(
        data, made(3, "x", 5)
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What writers and verbs read."""
    folder = tmp_path_factory.mktemp("campaign") / "sources"
    conditions.make_sources(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) for n in ("store", "data relabel in place", "labels")],
)
def test_killed_writers(name: str, tmp_path: Path, sources: Path) -> None:
    """Killed at a few points and again in the recovery, a writer ends as if undisturbed."""
    scenario = kill_writers.scenarios(sources)[name]
    found = kill_writers.run_scenario(name, scenario, 4, 7, tmp_path / "work")

    assert 4 == found["points"] <= found["killed"]
    assert not kill_writers.faults(found)


@pytest.mark.slow
def test_a_writer_that_does_not_resume_is_caught(tmp_path: Path) -> None:
    """One that appends, and one that refuses what is there."""

    def append(folder: Path) -> None:
        with (folder / "out").open("a") as file:
            file.write("x")
            file.flush()
        (folder / "end").mkdir()

    def refuse(folder: Path) -> None:
        (folder / "out").mkdir()
        (folder / "out" / "end").mkdir()

    found = kill_writers.run(
        {"append": kill_writers.Scenario(append), "refuse": kill_writers.Scenario(refuse)},
        12,
        0,
        tmp_path / "work",
    )

    assert found["append"]["different"]
    assert found["refuse"]["cannot resume"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one process", "two processes"])
def test_killed_training(name: str, tmp_path: Path) -> None:
    """Killed at a few points and again while it resumes, a run ends as if undisturbed."""
    # by the clock they die somewhere else on every machine: that is for the long form
    scenario = replace(kill_training.make(tmp_path)[name], by_clock=0.0)
    found = kill_writers.run_scenario(name, scenario, 4, 7, tmp_path / "work")

    assert 4 == found["points"]
    assert found["killed"]
    assert not kill_writers.faults(found)


def test_races(tmp_path: Path) -> None:
    """Three benchmarks at once on a cold cache."""
    found = races.run(3, 1)

    assert {"processes": 3} == {name: count for name, count in found.items() if count}


@pytest.mark.slow
def test_races_for_a_run(tmp_path: Path) -> None:
    """Two processes that resume one folder: one owns it, the other waits or is refused."""
    found = races.resume(2, 2)

    assert found["refused"] <= 1  # none if the first was done before the second began
    assert {"processes", "refused"} >= {name for name, count in found.items() if count}


@pytest.mark.slow
def test_conditions() -> None:
    """Three verbs under three conditions: words and a status."""
    under = ["stdout closed", "stdout full", "a name of 300 characters"]
    found = conditions.run(["models list", "data stats", "bench validate"], under)

    assert 9 == found["runs"]
    assert not found["fault"]


@pytest.mark.slow
def test_spoiled_inputs_of_verbs(sources: Path) -> None:
    """A failure names the input; a folder, an empty file and half of one are no other kind."""
    found = conditions.run(["map", "data verify"], kind="inputs", sources=sources)

    assert 12 == found["runs"]  # `map` reads no folder
    assert not found["fault"]


@pytest.mark.slow
def test_stopped_verbs(sources: Path) -> None:
    """Ctrl-C and SIGTERM in the middle; what is printed then finishes the work."""
    found = conditions.run(["labels", "pack tiles"], kind="signals", sources=sources)

    assert 4 == found["runs"]
    assert not found["fault"]


def test_every_verb_is_tried(tmp_path: Path) -> None:
    """The table of conditions has each verb of the command line, with the words it needs."""
    tried = conditions.verbs(tmp_path).values()

    assert set(VERBS) == {find_verb(words)[0] for words in tried} - {None}


def test_what_is_a_fault_of_a_verb() -> None:
    """A traceback, a signal, an odd status, and a failure without a word."""
    judge = conditions.judge
    assert not judge(0, "", "plain")
    assert not judge(1 << 8, "eofm: error: ...", "plain")
    assert "signal" not in judge(1 << 8, "", "stderr closed")
    assert "SIGKILL" in judge(9, "", "plain")
    assert "traceback" in judge(71 << 8, "Traceback ...", "plain")
    assert "status 3" in judge(3 << 8, "words", "plain")
    assert "without a word" in judge(1 << 8, "", "plain")
    assert "status 143" in judge(143 << 8, "words", "plain")
    assert not judge(143 << 8, "stopped", "SIGTERM", signal.SIGTERM)
    assert "status 130" in judge(130 << 8, "stopped", "SIGTERM", signal.SIGTERM)


def test_the_printed_command_is_the_one_that_is_run() -> None:
    """Where nothing is printed, the command is given again as it was."""
    said = "eofm: stopped by SIGINT; the same command resumes where it stopped\n    eofm labels 'a b' --resume\n"

    assert ["labels", "a b", "--resume"] == conditions._printed(said)
    assert [] == conditions._printed("eofm: stopped by SIGINT")
    of_training = (
        "stopped by SIGTERM after step 3; resume the run with\n    eofm pretrain --run.out a\n"
    )
    assert ["pretrain", "--run.out", "a"] == conditions._printed(of_training)


def test_one_input_is_spoiled(tmp_path: Path) -> None:
    """The source stays whole; a verb that reads no folder is not tried with one."""
    sources, work = tmp_path / "sources", tmp_path / "work"
    (sources / "packed").mkdir(parents=True)
    work.mkdir()
    (sources / "packed" / "card.json").write_text("0123456789")
    words = ["data", "check", str(sources / "packed")]

    changed, spoiled = conditions.spoil_input(
        words, sources, work, "a truncated file", random.Random(0)
    )

    assert ["data", "check", str(work / "in" / "packed")] == changed
    assert "01234" == spoiled.read_text()
    assert "0123456789" == (sources / "packed" / "card.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["inputs.py", "--trials", "2500"],
        ["kill_writers.py", "--kills", "100"],
        ["kill_training.py", "--kills", "15"],
        ["races.py", "--processes", "20", "--rounds", "1"],
        ["conditions.py", "--pairs", "120"],
        ["conditions.py", "--inputs", "--pairs", "80"],
        ["conditions.py", "--signals", "--pairs", "20"],
    ],
    ids=lambda words: " ".join([Path(words[0]).stem, *words[1:2]]),
)
def test_a_tenth_of_the_long_form(words: list[str]) -> None:
    """A tenth of what `benchmarks/results/reliability.md` tells of, each driver by its command."""
    script = Path(__file__).parent / words[0]

    done = subprocess.run(
        [sys.executable, str(script), *words[1:]], capture_output=True, text=True, check=False
    )

    assert not done.returncode, done.stderr[-2000:]
