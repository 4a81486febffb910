"""One vocabulary of task names: families and full names, wherever a task is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import eofm
from eofm.bench.candidates import bench_plan
from eofm.bench.config import (
    AggregateConfig,
    CompareConfig,
    PlanConfig,
    RecordsExportConfig,
    TableConfig,
    ValidateConfig,
)
from eofm.bench.records import read_results
from eofm.bench.reports.compare import aggregate, compare_models
from eofm.bench.reports.export import export, plot, print_table
from eofm.bench.reports.validate import validate
from eofm.cli import VERBS, find_verb, main, parse
from eofm.datasets.registry import (
    FAMILIES,
    TASKS,
    family_of,
    find_task,
    options_of,
    task_filter,
)
from eofm.errors import ConfigError

# records that version 0.1 wrote
OLD = Path(eofm.__file__).parents[1] / "benchmarks/results"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_runs_under_its_full_name(name: str) -> None:
    """`eofm bench NAME` is `eofm bench FAMILY` with the options that make the name."""
    verb, rest = find_verb(["bench", name, "--root", "x"])

    assert f"bench {family_of(name)}" == verb
    config = parse(verb, rest)
    assert name == config.task  # type: ignore[attr-defined]
    assert "x" == config.root  # type: ignore[attr-defined]


def test_every_family_is_a_verb_and_a_word() -> None:
    """What `eofm bench` runs is what all other verbs accept; defaults are the same."""
    verbs = {verb.split()[1] for verb in VERBS if VERBS[verb].action == "eofm.bench.run:bench"}

    assert set(FAMILIES) == verbs
    for family, benchmark in FAMILIES.items():
        task_filter(family)
        if not benchmark.own:
            assert benchmark.settings("").task == find_task(family).name
            assert options_of(find_task(family).name) is not None


def test_a_family_stands_for_its_tasks() -> None:
    """Of records, all of the family; of a plan, the one that `eofm bench FAMILY` runs."""
    asked = task_filter("bigearthnet")

    assert [name for name in TASKS if name.startswith("bigearthnet-")] == [*filter(asked, TASKS)]
    assert ["bigearthnet-v1-s1-43"] == [*filter(task_filter("bigearthnet-v1-s1-43"), TASKS)]
    assert task_filter("folder")("folder-mine")
    assert task_filter("masks-mine")("masks-mine")
    text = bench_plan(PlanConfig("bigearthnet", "softcon_vits14_s2")).describe()
    assert "on bigearthnet-v2-s2, version 1" in text
    assert "other tasks of bigearthnet: " in text
    assert "bigearthnet-v1-s1-43" in text


def test_an_unknown_name_is_refused_with_what_was_meant() -> None:
    """By every verb, in the same words; what it suggests is accepted."""
    old = str(OLD / "eurosat_subset.jsonl")
    for ask in (
        lambda: print_table(TableConfig(old, task="eurosta")),
        lambda: compare_models(CompareConfig("a", "b", results=old, task="eurosta")),
        lambda: aggregate(AggregateConfig(old, tasks="eurosta")),
        lambda: validate(ValidateConfig(old, task="eurosta")),
        lambda: bench_plan(PlanConfig("eurosta", "imagestats")),
    ):
        with pytest.raises(ConfigError, match="no task 'eurosta'") as caught:
            ask()
        meant = re.findall(r"did you mean (\S+)", str(caught.value))
        assert "eurosat" == meant[0]
    assert 0 == bench_plan(PlanConfig(meant[0], "imagestats")).status


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Records of 0.1 with their predictions."""
    shutil.copytree(OLD / "predictions", tmp_path / "predictions")
    return Path(shutil.copy(OLD / "eurosat_subset.jsonl", tmp_path / "old.jsonl"))


def test_records_of_version_01_are_read(old: Path, tmp_path: Path) -> None:
    """By table, plot, export, compare and validate."""
    records = read_results(old)
    names = list(dict.fromkeys(r.model.name for r in records if r.predictions))

    assert "eurosat" in print_table(TableConfig(str(old), task="eurosat")).describe()
    assert (
        "results.csv" in export(RecordsExportConfig(str(old), out=str(tmp_path / "x"))).describe()
    )
    assert ".png" in plot(RecordsExportConfig(str(old), out=str(tmp_path / "p"))).describe()
    config = CompareConfig(*names[:2], results=str(old), task="eurosat", bootstrap=9)
    assert compare_models(config).differences
    checked = validate(ValidateConfig(str(old), task="eurosat"))
    assert len(records) == len(checked.checked)
    assert not checked.status, checked.describe()


def test_every_kept_record_is_one_of_today(tmp_path: Path) -> None:
    """Reading and writing one again changes nothing but what is new and empty."""
    for file in OLD.glob("*.jsonl"):
        lines = file.read_text().splitlines()
        if '"probe"' not in lines[0] or '"sample"' not in lines[0]:
            continue  # of a study, no records
        for line, record in zip(lines, read_results(file), strict=True):
            old, new = json.loads(line), json.loads(record.to_line())
            new.pop("checksum")  # which those of 0.1 do not have
            for one, other in ((old.pop("sample"), new.pop("sample")), (old, new)):
                assert one == {name: value for name, value in other.items() if name in one}
                assert not any(other[name] for name in set(other) - set(one)), file


def test_the_names_of_old_are_those_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown word after `eofm bench` is a verb that does not exist."""
    assert 2 == main(["bench", "eurosatt", "--root", str(tmp_path)])
    assert "did you mean 'eofm bench eurosat'" in capsys.readouterr().err
