"""On a CPU, number format and attention are chosen by measurement, and the choice is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from pretrain_settings import with_groups

from eofm.networks.vit import Architecture, block_of
from eofm.train import trainer
from eofm.train.config import PretrainConfig
from eofm.train.run import pretrain
from eofm.train.trainer import CpuSpeed, measure_cpu, settle, use_attention

BF16_BY_FAR = {
    ("32-true", "fused"): 4.0,
    ("32-true", "plain"): 3.0,
    ("bf16-mixed", "fused"): 2.0,
    ("bf16-mixed", "plain"): 1.0,
}
SMALL = Architecture(width=48, depth=2, heads=3, patch=14)


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("auto", ("bf16-mixed", "plain")),
        ("fused", ("bf16-mixed", "fused")),
    ],
)
def test_what_is_left_open_is_the_fastest(asked: str, taken: tuple[str, str]) -> None:
    """A form of attention that is stated is obeyed; the precision is chosen among what remains."""
    speed = CpuSpeed(BF16_BY_FAR)

    assert taken == speed.fastest(asked)
    assert "bf16-mixed with plain attention" in speed.describe(("bf16-mixed", "plain"))
    assert "32-true fused 4000 ms" in speed.describe(taken)


def test_bfloat16_must_be_worth_its_rounding() -> None:
    """A twentieth less time is no reason to round."""
    close = CpuSpeed({("32-true", "plain"): 1.0, ("bf16-mixed", "plain"): 0.95})

    assert ("32-true", "plain") == close.fastest("auto")


def test_every_pair_is_measured_and_nothing_is_drawn() -> None:
    """Four times, none of them zero; the random state and the block's gradients are left alone."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    found = measure_cpu(SMALL, 28, 4, ("32-true", "bf16-mixed"))

    assert set(BF16_BY_FAR) == set(found.seconds)
    assert all(took > 0 for took in found.seconds.values())
    assert torch.equal(expected, torch.rand(3))


def test_both_forms_of_attention_agree() -> None:
    """Output and gradient, to the rounding of float32."""
    torch.manual_seed(0)
    block, images = block_of(SMALL), torch.randn(2, 17, 48)
    made = {}
    for form in ("fused", "plain"):
        use_attention(block, form)
        block.zero_grad()
        out = block(images)
        out.square().sum().backward()
        assert isinstance(block.attn.qkv.weight.grad, torch.Tensor)
        made[form] = out.detach(), block.attn.qkv.weight.grad.clone()
        assert block.attn.fused_attn is (form == "fused")

    torch.testing.assert_close(made["fused"], made["plain"], rtol=1e-4, atol=1e-4)
    use_attention(block, "auto")
    assert block.attn.fused_attn is False


@pytest.mark.parametrize(
    "architecture", ["vit-tiny-14", "resnet50", "timm:vit_small_patch14_dinov2"]
)
def test_small_and_other_networks_are_not_measured(
    config: PretrainConfig, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo gives the same numbers everywhere; of other networks no block is known."""
    monkeypatch.setattr(trainer, "measure_cpu", None)
    asked = with_groups(config, model={"architecture": architecture})

    assert (asked, "") == settle(asked, bf16=True)


def test_a_stated_precision_measures_nothing(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a run has the same numbers whenever it begins: attention is then timm's choice."""
    monkeypatch.setattr(trainer, "measure_cpu", None)
    asked = with_groups(config, model={"architecture": "vits14"}, trainer={"precision": "32-true"})

    assert (asked, "") == settle(asked, bf16=True)


def test_without_bfloat16_only_float32_is_tried(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU that emulates it would need a thirtieth of the speed to find out."""
    tried = []

    def fake(*args: object) -> CpuSpeed:
        tried.append(args[-1])
        return CpuSpeed({key: took for key, took in BF16_BY_FAR.items() if key[0] in args[-1]})  # type: ignore[operator]

    monkeypatch.setattr(trainer, "measure_cpu", fake)
    wide = with_groups(config, model={"architecture": "vits14-2blocks"})

    chosen, _ = settle(wide, bf16=False)

    assert [("32-true",)] == tried
    assert ("32-true", "plain") == (chosen.trainer.precision, chosen.trainer.attention)


def test_a_run_says_and_keeps_its_choice(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line on the terminal; config.yaml holds it, so that the resumed run does not measure."""
    made = {key: took for key, took in BF16_BY_FAR.items() if key[0] == "32-true"}
    monkeypatch.setattr(trainer, "measure_cpu", lambda *_: CpuSpeed(made))
    monkeypatch.setattr(trainer, "SMALLEST_WIDTH", 192)

    pretrain(config)

    said = capsys.readouterr().err
    assert "on this CPU 32-true with plain attention" in said
    saved = yaml.safe_load((Path(str(config.run.out)) / "config.yaml").read_text())["trainer"]
    assert ("32-true", "plain") == (saved["precision"], saved["attention"])

    monkeypatch.setattr(trainer, "measure_cpu", None)
    pretrain(with_groups(config, run={"resume": True}))
