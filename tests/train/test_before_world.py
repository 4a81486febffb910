"""Settings that cannot work fail before the demo's world is written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from eofm.cli import main


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--model.architecture vitx14", "there is no architecture"),
        ("--model.architecture resnet18", "has no tokens to drop"),
        ("--model.size 113", "113"),
        ("--model.weights absent.pth", "absent.pth"),
        ("--model.weights softcon_vits14_s1 --model.architecture vits14", "the file is not here"),
        ("--model.continue_from absent.ckpt", "there is no checkpoint"),
        ("--optim.batch 4096", "fewer training scenes than a batch"),
        ("--data.views seasons --optim.batch 512", "fewer training places than a batch"),
        ("--data.scenes 3 --trainer.accumulate 4", "fewer training scenes than a batch"),
        ("--data.replay absent --data.replay_share 0.5", "absent"),
        ("--monitor.store absent", "absent"),
        (
            "--model.architecture resnet18 --method.mask_ratio 0 --trainer.chunk 8",
            "batch norms cannot see a batch in chunks",
        ),
        ("--data.views sensors --model.architecture croma-base-s2", "CROMA has one encoder"),
        (
            "--data.sensor s1-grd --augment.rgb_probability 0.1",
            "images without red, green and blue cannot be seen in these alone",
        ),
        (
            "--data.views sensors --augment.rgb_probability 0.1",
            "augment.rgb_probability is out of range",
        ),
        ("--method.objective absent.py:A", "an objective of your own cannot be made"),
    ],
)
def test_what_cannot_work_leaves_nothing_behind(
    words: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One error, and neither a world nor a run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EOFM_OFFLINE", "1")
    monkeypatch.setenv("EOFM_WEIGHTS", str(tmp_path / "none"))

    assert 1 == main(["pretrain", "--trainer.accelerator", "cpu", *shlex.split(words)])

    assert problem in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


def test_the_remedy_of_a_large_batch_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch that the error names passes, and the run goes on to write the world."""
    monkeypatch.chdir(tmp_path)
    base = ["pretrain", "--data.scenes", "4", "--trainer.accelerator", "cpu"]
    assert 1 == main([*base, "--optim.batch", "64"])
    found = capsys.readouterr().err.split("a smaller batch: ")[1].partition(",")[0]

    class Written(Exception):  # noqa: N818 (no error)
        pass

    def make(_: object) -> None:
        raise Written

    monkeypatch.setattr("eofm.train.build.make_demo", make)
    with pytest.raises(Written):
        main([*base, *found.split()])
