"""An objective of one's own: one file, named by `--method.objective file.py:Class`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from contributing import write_example
from softcon_small import Patches, small

from eofm.cli import main
from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.method import LabelFacts, SoftCon
from eofm.method.objectives import make_objective
from eofm.weights.encoder import load_encoder


def test_the_example_trains(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file alone makes it: a run ends in an encoder whose card names the objective."""
    monkeypatch.chdir(tmp_path)
    write_example("spread.py", tmp_path)
    store = make_store(tmp_path / "store")
    settings = "--model.size 28 --optim.batch 8 --optim.epochs 1 --method.hidden 16"
    settings += " --method.dim 8 --trainer.accelerator cpu --run.figures false --run.out run"

    words = ["pretrain", "--data.store", str(store), "--method.objective", "spread.py:Spread"]
    assert 0 == main([*words, *settings.split(), "--monitor.every_epochs", "0"])

    assert "own: spread.py:Spread" == load_encoder(Path("run/export/student")).card.objective
    assert "objective: spread.py:Spread" in Path("run/config.yaml").read_text()


def test_the_example_adds_its_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is that of SoftCon and the term of the file."""
    monkeypatch.chdir(tmp_path)
    write_example("spread.py", tmp_path)
    own = make_objective(
        Patches(),
        small(objective="spread.py:Spread"),
        torch.Generator().manual_seed(0),
        LabelFacts(9),
        band_mean=0.5,
    )
    assert isinstance(own, SoftCon)
    queries = [torch.rand(4, 8), torch.rand(4, 8)]
    labels = Labels(torch.ones(4, 9), torch.ones(4, dtype=torch.bool))
    term = sum(torch.relu(1 - rows.std(dim=0)).mean() for rows in queries)

    whole = own.loss(queries, queries, labels).loss
    plain = SoftCon.loss(own, queries, queries, labels).loss

    torch.testing.assert_close(whole, plain + term)


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
