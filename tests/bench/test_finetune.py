"""Training heads and networks through Lightning: against a plain loop, and with wrong networks."""

from __future__ import annotations

import ast
import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toy_task import Broken, Collapsed, Counting, Small, Stubborn, toy_chips, trainee

import eofm.bench
from eofm.bench.config import TrainingConfig
from eofm.bench.features import EMBEDDING
from eofm.bench.finetune import fit as fitting
from eofm.bench.finetune.classifier import Classifier, predict
from eofm.bench.finetune.fit import fit, parameter_groups, rate_at
from eofm.bench.finetune.runs import TrainingJob, run_job
from eofm.bench.finetune.trainings import (
    Augmentation,
    Case,
    Faults,
    Images,
    Optimiser,
    Training,
    in_order,
    shuffled,
    training_of,
)
from eofm.bench.sources import Trainee, state_sha256
from eofm.errors import ConfigError, EofmError, PixelError, TrainingError, WeightsError
from eofm.probes.features import ProbeResult

TRAIN, VAL, TEST = (Images(toy_chips(n, seed), 3) for seed, n in enumerate((24, 12, 15)))
FINETUNE = replace(
    training_of(
        "finetune",
        TrainingConfig(epochs=3, batch=8, rate=0.02, factors="0.1"),
        Case(convolutional=True, multi_label=False),
    )
)
HEADS = Training(
    Optimiser.SGD,
    rates=(0.1, 0.5),
    factors=(0.0,),
    reference=0,
    epochs=2,
    batch=8,
    augmentation=Augmentation(),
)


def job(folder: Path, training: Training, network: nn.Module, **other: object) -> TrainingJob:
    """A probe of a toy network on the toy task."""
    splits = {"train": TRAIN, "val": VAL, "scored": TEST}
    options: dict[str, object] = {"classes": 3, "seed": 0, "folder": folder / "journal"}
    trainees = (trainee(network),)
    return TrainingJob("finetune", training, trainees, **{**splits, **options, **other})  # type: ignore[arg-type]


def accuracy(result: ProbeResult) -> float:
    """Share of the test images that are right."""
    return float((result.scores.argmax(dim=1) == TEST.target).float().mean())


def model_of(training: Training, network: nn.Module | None = None) -> Classifier:
    """Networks and heads before training."""
    sample = next(TRAIN.batches([[0]])).imagery
    one = trainee(network or Small())
    return Classifier((one,), training, 3, 0, sample)


# ---------------------------------------------------------------------------- the plain loop


def plain_heads(training: Training, rate: float) -> Tensor:
    """Weights of one head, by a loop without Lightning: SGD, momentum, cosine, no views."""
    model = model_of(replace(training, rates=(rate,)))
    head, network, source = model.heads[0], model.networks[0], model.trainees[0]
    velocity = [torch.zeros_like(p) for p in head.parameters()]
    step, total = 0, training.epochs * (len(TRAIN) // training.batch)
    for epoch in range(training.epochs):
        for rows in shuffled(len(TRAIN), training.batch, 0, epoch):
            (batch,) = TRAIN.batches([rows])
            with torch.no_grad():
                vectors = network(source.pixels(batch.imagery[0]))
            loss = functional.cross_entropy(head(vectors), batch.target)
            gradients = torch.autograd.grad(loss, list(head.parameters()))
            now = rate * 0.5 * (1 + math.cos(math.pi * step / total))
            with torch.no_grad():
                for p, v, g in zip(head.parameters(), velocity, gradients, strict=True):
                    v.mul_(0.9).add_(g)
                    p.sub_(now * v)
            step += 1
    return next(head.parameters())


def test_heads_learn_as_in_a_plain_loop_and_do_not_touch_one_another() -> None:
    """Two rates on one pass end where each ends alone, and the network stays as it was."""
    model = model_of(HEADS)
    before = state_sha256(model.networks)

    fit(model, HEADS, 0.0, TRAIN, 0, lambda _: None)

    for head, rate in zip(model.heads, HEADS.rates, strict=True):
        assert torch.allclose(plain_heads(HEADS, rate), head.weight, atol=1e-6)
    assert before == state_sha256(model.networks)


def test_the_global_random_state_is_left_alone() -> None:
    """A training draws from sources of its own."""
    torch.manual_seed(7)
    expected = torch.rand(3)

    torch.manual_seed(7)
    fit(model_of(HEADS), HEADS, 0.0, TRAIN, 0, lambda _: None)

    assert torch.equal(expected, torch.rand(3))


def test_rates_rise_and_fall() -> None:
    """A linear rise, half a cosine to zero; or tenths at the drops."""
    warm = replace(HEADS, warmup=0.1)
    rates = [rate_at(step, 100, warm) for step in range(100)]
    drops = [rate_at(step, 100, replace(HEADS, drops=(0.6, 0.8))) for step in (0, 59, 60, 80, 99)]

    assert [1 / 11, 2 / 11, 10 / 11] == pytest.approx([rates[0], rates[1], rates[9]])
    assert 1.0 == max(rates) == rates[10]
    assert 0.5 == pytest.approx(rates[55])
    assert rates[99] < 1e-3
    assert [1, 1, 0.1, 0.01, 0.01] == pytest.approx(drops)


def test_each_layer_learns_at_its_own_rate(whole_encoder: object) -> None:
    """Head at 1, final norm at factor, block i at factor times decay to its depth; no tables."""
    from eofm.weights.encoder import Encoder

    assert isinstance(whole_encoder, Encoder)
    one = Trainee("vit", whole_encoder.trunk, whole_encoder.trunk, whole_encoder.recipe, ())
    training = replace(FINETUNE, rates=(1.0,), layer_decay=0.5, weight_decay=0.1)
    model = model_of(training)
    model.trainees, model.networks = (one,), nn.ModuleList([copy.deepcopy(whole_encoder.trunk)])

    groups = parameter_groups(model, training, 0.1)

    names = {id(p): n for n, p in model.networks[0].named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
        if id(p) in names
    }
    assert set(names.values()) == set(found)
    assert (0.1, 0.0) == pytest.approx(found["norm.weight"])
    assert (0.05, 0.1) == pytest.approx(found["blocks.5.attn.qkv.weight"])
    assert (0.1 * 0.5**6, 0.0) == pytest.approx(found["blocks.0.attn.qkv.bias"])
    assert (0.1 * 0.5**7, 0.0) == pytest.approx(found["pos_embed"])
    assert (0.1 * 0.5**7, 0.1) == pytest.approx(found["patch_embed.proj.weight"])
    assert 1.0 == max(group["lr"] for group in groups)


# ---------------------------------------------------------------------------------- a run


def test_a_network_learns_and_its_original_does_not(tmp_path: Path) -> None:
    """Three band means tell the classes apart; the candidate's own weights stay as they were."""
    network = Small()
    before = state_sha256(network)

    result, spectrum = run_job(job(tmp_path, replace(FINETUNE, epochs=8), network))

    assert accuracy(result) > 0.9
    assert before == state_sha256(network)
    assert spectrum.rank > 1
    assert result.probability is not None
    assert torch.allclose(torch.ones(15).double(), result.probability.sum(dim=1))
    assert not result.chosen  # there was nothing to choose
    assert "32-true" == result.details["precision"]
    assert "network 0.1, embedding, rate 0.02" in result.details["tried on val"]


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    """Order, views and weights come from it, and another seed gives others."""
    runs = [
        run_job(job(tmp_path / name, FINETUNE, Small(), seed=seed))[0].scores
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]

    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_killed_run_goes_on_with_the_next_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second of three, it repeats that one alone, and ends as if undisturbed."""
    training = replace(FINETUNE, factors=(0.01, 0.1, 1.0), epochs=2)
    whole, _ = run_job(job(tmp_path / "whole", training, Small()))
    tried: list[float] = []

    def dying(*words: object) -> None:
        tried.append(float(words[2]))  # type: ignore[arg-type]
        if tried == [0.01, 0.1]:
            raise KeyboardInterrupt
        fit(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "fit", dying)
    with pytest.raises(KeyboardInterrupt):
        run_job(job(tmp_path, training, Small()))
    again, _ = run_job(job(tmp_path, training, Small()))

    assert [0.01, 0.1, 0.1, 1.0] == tried
    assert torch.equal(whole.scores, again.scores)
    assert whole.details["tried on val"] == again.details["tried on val"]


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    """It is not taken for a journal of nothing."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "tried.json").write_text("[[0.1, {")

    with pytest.raises(EofmError, match="journal") as caught:
        run_job(job(tmp_path, FINETUNE, Small()))

    assert "starts from the beginning" in str(caught.value)


def test_a_rate_that_diverges_is_named_and_not_chosen(tmp_path: Path) -> None:
    """The others go on; if none is left, the run ends with a remedy."""
    training = replace(FINETUNE, factors=(0.1, 1e30), epochs=2)

    result, _ = run_job(job(tmp_path, training, Small()))

    assert "diverged at 1e+30" in result.notes
    assert "network 0.1" in result.chosen
    with pytest.raises(TrainingError, match="finite at no rate"):
        run_job(job(tmp_path / "none", replace(training, factors=(1e30,)), Small()))


def test_the_test_split_has_no_say(tmp_path: Path) -> None:
    """The choice and what is said of an image do not depend on what else is scored."""
    training = replace(FINETUNE, factors=(0.01, 0.1), epochs=2)
    few = Images(TEST.chips[:4], 3)

    whole, _ = run_job(job(tmp_path / "a", training, Small()))
    part, _ = run_job(job(tmp_path / "b", training, Small(), scored=few))

    assert whole.chosen == part.chosen
    assert torch.allclose(whole.scores[:4], part.scores, atol=1e-5)


def test_a_choice_needs_a_validation_split(tmp_path: Path) -> None:
    """One rate needs none."""
    with pytest.raises(ConfigError, match="validation split"):
        run_job(job(tmp_path, replace(FINETUNE, factors=(0.1, 1.0)), Small(), val=None))

    result, _ = run_job(job(tmp_path, FINETUNE, Small(), val=None))
    assert (15, 3) == tuple(result.scores.shape)


def test_multi_label_images_are_independent_decisions(tmp_path: Path) -> None:
    """Probabilities are sigmoids, and the three classes are learnt."""
    train, val, test = (Images(toy_chips(n, n, several=True), 3) for n in (60, 30, 40))
    training = replace(FINETUNE, epochs=8)

    result, _ = run_job(job(tmp_path, training, Small(), train=train, val=val, scored=test))

    assert torch.equal(result.scores.sigmoid(), result.probability)
    assert ((result.scores > 0) == test.target.bool()).float().mean() > 0.85


def test_a_frozen_network_is_one_of_the_factors(tmp_path: Path) -> None:
    """Factor 0 trains the head alone, and the record says so."""
    result, _ = run_job(job(tmp_path, replace(FINETUNE, factors=(0.0,)), Small()))

    assert "network 0, " in result.details["tried on val"]
    assert "network=0," in result.probe


# ------------------------------------------------------------------------- wrong networks


@pytest.mark.parametrize("training", [FINETUNE, HEADS], ids=["finetune", "heads"])
@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (Broken(), PixelError, "not finite"),
        (Counting(), WeightsError, "changed"),
        (Stubborn(), WeightsError, "training mode"),
    ],
    ids=["nan", "buffers", "train mode"],
)
def test_wrong_networks_are_found_and_named(
    tmp_path: Path, network: nn.Module, error: type[EofmError], message: str, training: Training
) -> None:
    """NaN, moving buffers, and a part that does not obey eval(): before anything is trained."""
    with pytest.raises(error, match=message) as caught:
        run_job(job(tmp_path, training, network))

    assert "toy" in str(caught.value)
    assert not (tmp_path / "journal").exists()


def test_features_of_low_rank_are_measured(tmp_path: Path) -> None:
    """Sixteen times the same feature is one direction: the harness flags ranks below five."""
    _, spectrum = run_job(job(tmp_path, replace(HEADS, rates=(0.1,)), Collapsed()))

    assert 1.0 == pytest.approx(spectrum.rank, abs=1e-3)


# --------------------------------------------------------------------------------- faults


def test_the_drift_of_batch_norm_is_repeated_on_demand(tmp_path: Path) -> None:
    """A frozen ResNet in training mode moves its statistics: another score, and a mark."""
    honest = replace(HEADS, rates=(0.1,), protocol="ssl4eo")
    faulty = replace(honest, faults=Faults(drift=True))

    plain, _ = run_job(job(tmp_path / "a", honest, Small()))
    drifted, _ = run_job(job(tmp_path / "b", faulty, Small()))

    assert not torch.allclose(plain.scores, drifted.scores, atol=1e-3)
    assert ("ssl4eo in part",) == plain.notes
    assert any(note.startswith("nonstandard: faults of ssl4eo") for note in drifted.notes)
    assert "ssl4eo: not reproduced" in plain.details


def test_val_is_watched_and_reported_on_demand(tmp_path: Path) -> None:
    """The best epoch on val is chosen, and what is said is said of val."""
    watching = replace(HEADS, rates=(0.1,), epochs=4, protocol="softcon", faults=Faults(on_val=2))

    result, _ = run_job(job(tmp_path, watching, Small(), scored=VAL))

    assert len(VAL) == len(result.scores)
    assert result.chosen.endswith(("epoch 2", "epoch 4"))


def test_batch_statistics_before_a_head_have_no_parameters() -> None:
    """MAE's linear probe: standardised features, one weight and one bias per class."""
    model = model_of(replace(HEADS, normed=True, rates=(0.1,)))

    assert ["0.1.weight", "0.1.bias"] == [name for name, _ in model.heads.named_parameters()]
    fit(model, replace(HEADS, normed=True, rates=(0.1,)), 0.0, TRAIN, 0, lambda _: None)
    assert predict(model, TEST).isfinite().all()


# --------------------------------------------------------------------------------- images


def test_images_are_kept_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read once, or every time: the batches are the same."""
    chips = toy_chips(5, 9)
    reads: list[str] = []
    pixels = type(chips[0].pixels[0])
    read = pixels.read
    monkeypatch.setattr(pixels, "read", lambda self: reads.append("") or read(self))
    rows = in_order(5, 2)

    batches = {}
    for memory in (2**20, 0):
        images = Images(chips, 3, memory)
        batches[memory] = [b.imagery[0].pixels for _ in range(2) for b in images.batches(rows)]

    assert 5 + 10 == len(reads)
    assert all(map(torch.equal, batches[2**20], batches[0]))
    assert [2, 2, 1, 2, 2, 1] == [len(b) for b in batches[0]]


def test_every_epoch_has_an_order_of_its_own() -> None:
    """Each image at most once, whole batches only, and the same order for the same epoch."""
    one, other = shuffled(10, 4, 0, 0), shuffled(10, 4, 0, 1)

    assert one == shuffled(10, 4, 0, 0)
    assert one != other
    assert [4, 4] == [len(rows) for rows in one]
    assert 8 == len({row for rows in one for row in rows})


def test_lightning_is_imported_only_when_something_is_trained() -> None:
    """No file of the benchmark imports the trainer at its top."""
    for path in Path(eofm.bench.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert "eofm.bench.finetune.fit" not in {node.module for node in top}, path.name


def test_the_embedding_is_what_a_fine_tuned_head_reads() -> None:
    """As for frozen features: the network's own pooling."""
    assert (EMBEDDING,) == FINETUNE.readouts
