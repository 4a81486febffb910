"""A term or an objective of one's own: one file, named on the command line, or put beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from contributing import write_example
from pretrain_settings import with_groups
from softcon_small import Patches, small

import eofm.method.terms
from eofm.cli import main
from eofm.contract.imagery import Labels
from eofm.errors import ConfigError, WeightsError
from eofm.method import LabelFacts, SoftCon
from eofm.method.objectives import make_objective
from eofm.train.config import PretrainConfig
from eofm.train.run import pretrain
from eofm.train.run_folder import LATER, from_dict
from eofm.weights.encoder import load_encoder
from eofm.weights.load import CHECKPOINT_KEY, from_checkpoint

TERMS = "{softcon: 1, spread.py:Spread: 0.1}"  # as the guide has it
WHOLE = """
from dataclasses import replace
from eofm.method import SoftCon

class Twice(SoftCon):
    def loss(self, queries, keys, labels):
        output = super().loss(queries, keys, labels)
        return replace(output, loss=2 * output.loss)
"""


@pytest.fixture
def config(config: PretrainConfig) -> PretrainConfig:
    """Nobody evaluates on the way: what is asked here is of the terms and of the end."""
    return with_groups(config, monitor={"every_epochs": 0})


def run(store: Path, *words: str) -> int:
    """One epoch, in the working directory."""
    settings = "--model.architecture vit-tiny-14-2blocks --model.size 28"
    settings += " --optim.batch 8 --optim.epochs 1 --method.hidden 16"
    settings += " --method.dim 8 --trainer.accelerator cpu --run.figures false --run.out run"
    settings += " --monitor.every_epochs 0"
    return main(["pretrain", "--data.store", str(store), *settings.split(), *words])


def test_the_example_trains(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file alone makes it: a run ends in an encoder whose card names both terms."""
    monkeypatch.chdir(tmp_path)
    write_example("spread.py", tmp_path)

    assert 0 == run(make_store(tmp_path / "store"), "--method.terms", TERMS)

    card = load_encoder(Path("run/export/student")).card
    assert "arXiv 2405.20462" in card.objective
    assert card.objective.endswith("; 0.1 x own: spread.py:Spread")
    assert "spread.py:Spread: 0.1" in Path("run/config.yaml").read_text()
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert {"softcon/loss", "Spread/loss", "Spread/embedding_std", "hard"} <= set(rows[0])
    assert rows[0]["loss"] == pytest.approx(
        rows[0]["softcon/loss"] + 0.1 * rows[0]["Spread/loss"], rel=1e-4
    )


def test_a_file_beside_ours_is_a_term(
    config: PretrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pretrain_interrupted: Callable[[PretrainConfig], None],
) -> None:
    """Called by its name, alone: no teacher is kept, and a killed run is resumed exactly."""
    folder = tmp_path / "terms"
    folder.mkdir()
    write_example("spread.py", folder)
    monkeypatch.setattr(eofm.method.terms, "__path__", [*eofm.method.terms.__path__, str(folder)])
    config = with_groups(config, method={"terms": {"spread": {"least": 0.5}}})
    config = with_groups(config, run={"threads": 1, "checkpoint_minutes": 0.0})
    killed = with_groups(config, run={"out": str(tmp_path / "killed")})

    pretrain(config)
    pretrain_interrupted(killed)
    pretrain(PretrainConfig(run=with_groups(killed, run={"resume": True}).run))

    whole, again = (Path(str(each.run.out)) for each in (config, killed))
    assert (whole / "metrics.jsonl").read_text() == (again / "metrics.jsonl").read_text()
    assert "momentum" not in (whole / "metrics.jsonl").read_text()
    assert {"init", "student"} == {path.name for path in (whole / "export").iterdir()}
    one, other = (
        load_encoder(path / "export/student").trunk.state_dict() for path in (whole, again)
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    with pytest.raises(WeightsError, match="has no teacher"):
        from_checkpoint(whole / "checkpoints/last.ckpt", "teacher")


@pytest.mark.slow
def test_a_run_from_before_there_were_terms_is_resumed(
    config: PretrainConfig, pretrain_interrupted: Callable[[PretrainConfig], None]
) -> None:
    """Its settings and its checkpoint do not speak of them; what else is missing is an error.

    A run without `augment.rgb_probability` was refused as one of another version.
    """
    assert "augment.rgb_probability" in LATER
    pretrain_interrupted(config)
    folder = Path(str(config.run.out))
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    for groups in (settings, saved[CHECKPOINT_KEY]["config"]):
        for key in LATER:
            group, _, name = key.partition(".")
            del groups[group][name]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    torch.save(saved, folder / "checkpoints/last.ckpt")
    resumed = PretrainConfig(run=with_groups(config, run={"resume": True}).run)

    text = pretrain(resumed).text
    assert "student" in text
    assert "in red, green and blue alone" not in text

    del settings["method"]["tau"]
    del settings["trainer"]["attention"]  # of version 0.1, whose views were drawn in another way
    with pytest.raises(ConfigError, match="another version") as caught:
        from_dict(settings, folder / "config.yaml")
    assert "no method.tau, no trainer.attention" == caught.value.found


def test_a_run_without_a_teacher_evaluates_its_student(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask for the teacher is an error before training, and its remedy is obeyed."""
    monkeypatch.chdir(tmp_path)
    write_example("spread.py", tmp_path)
    config = with_groups(config, method={"terms": {"spread.py:Spread": 1}})
    with pytest.raises(ConfigError, match="no teacher") as caught:
        pretrain(with_groups(config, monitor={"branch": "teacher"}))
    assert "--monitor.branch student" == caught.value.remedy

    assert "student" in pretrain(with_groups(config, monitor={"branch": "student"})).text


def test_a_dry_run_speaks_of_the_terms(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negatives are counted where something is told apart, and a teacher moves if there is one."""
    monkeypatch.chdir(tmp_path)
    write_example("spread.py", tmp_path)
    dry = with_groups(config, run={"dry_run": True})

    both = pretrain(with_groups(dry, method={"terms": {"softcon": 1, "spread.py:Spread": 1}})).text
    alone = pretrain(with_groups(dry, method={"terms": {"spread.py:Spread": 1}})).text

    assert "negatives  7 for each scene" in both
    assert "negatives" not in alone
    assert "memory " in alone


def test_a_term_that_needs_other_views_is_refused(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the option to set; with it, the second view is a crop of the first."""
    monkeypatch.chdir(tmp_path)
    text = write_example("spread.py", tmp_path).read_text()
    needs = "settings = SpreadSettings\n    needs = Needs(views=ViewKind.NESTED)\n"
    text = text.replace("settings = SpreadSettings\n", needs)
    (tmp_path / "spread.py").write_text(text.replace("RandomMask,", "Needs, RandomMask, ViewKind,"))
    config = with_groups(config, method={"terms": {"spread.py:Spread": 1}})
    with pytest.raises(ConfigError, match="needs other views") as caught:
        pretrain(config)
    assert "add --data.views nested" == caught.value.remedy

    assert "student" in pretrain(with_groups(config, data={"views": "nested"})).text


def test_a_whole_objective_trains(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class derived from SoftCon brings its networks, and the card names it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(WHOLE)

    assert 0 == run(make_store(tmp_path / "store"), "--method.objective", "mine.py:Twice")

    assert "own: mine.py:Twice" == load_encoder(Path("run/export/teacher")).card.objective
    assert "objective: mine.py:Twice" in Path("run/config.yaml").read_text()


def test_a_whole_objective_changes_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is what the file makes of SoftCon's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(WHOLE)
    config, generator = small(objective="mine.py:Twice"), torch.Generator().manual_seed(0)
    own = make_objective(Patches(), config, generator, LabelFacts(9), band_mean=0.5)
    assert isinstance(own, SoftCon)
    queries = [torch.rand(4, 8), torch.rand(4, 8)]
    labels = Labels(torch.ones(4, 9), torch.ones(4, dtype=torch.bool))

    whole = own.loss(queries, queries, labels).loss

    assert torch.equal(whole, 2 * SoftCon.loss(own, queries, queries, labels).loss)


@pytest.mark.parametrize(
    ("objective", "text", "expected"),
    [
        ("absent.py:A", "", "cannot be made"),
        ("mine.py:A", "x = 1", "cannot be made"),
        ("mine.py:A", "def A(*_, **__): return 3", "no method of training"),
    ],
)
def test_what_is_no_objective_is_refused(
    objective: str, text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error of eofm, whatever is wrong with the file."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(text)
    generator = torch.Generator().manual_seed(0)

    with pytest.raises(ConfigError, match=expected):
        make_objective(
            Patches(), small(objective=objective), generator, LabelFacts(9), band_mean=0.5
        )


def test_a_word_that_is_neither_is_refused() -> None:
    """What is no objective of eofm and names no class is an error that lists what there is."""
    with pytest.raises(ConfigError) as caught:
        small(objective="softcom")

    assert "softcon, moco, soft, shuffled, multilabel, or module:Class" == caught.value.expected
