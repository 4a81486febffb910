"""Which scenes train, how they are read, and that memory is not used again too soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretrain_settings import with_groups
from torch import Tensor

from eofm.cli import parse
from eofm.contract.imagery import Labels, NativeImagery
from eofm.contract.spec import Sensor
from eofm.errors import ConfigError, PixelError, StoreError, TrainingError
from eofm.loading.feeder import Batch, StoreLoader
from eofm.store.reader import Store
from eofm.train.config import DataConfig, MonitorConfig, PretrainConfig
from eofm.train.datamodule import StoreDataModule, held_out
from eofm.train.distributed import ProcessPlace
from eofm.train.module import PretrainModule
from eofm.train.run import prepare, pretrain

names = st.lists(st.sampled_from([f"place-{i}" for i in range(20)]), min_size=1, max_size=60)


@given(names, st.floats(0, 0.9), st.integers(0, 5))
def test_a_location_is_never_on_both_sides(places: list[str], share: float, seed: int) -> None:
    """Held out or not is a property of the location; the share is met, and one is always left."""
    outside = held_out(places, share, seed)

    pairs = set(zip(places, outside.tolist(), strict=True))
    sides = {place: {side for name, side in pairs if name == place} for place in places}
    assert all(len(side) == 1 for side in sides.values())
    count = sum(side == {True} for side in sides.values())
    assert abs(count - share * len(sides)) <= 0.5 or count in {1, len(sides) - 1}
    assert (count > 0) == (share > 0 and len(sides) > 1)
    assert count < len(sides)


@given(names, st.integers(0, 5))
def test_the_split_does_not_depend_on_the_order(places: list[str], seed: int) -> None:
    """Reversing the scenes reverses the mask and changes nothing else."""
    forward, backward = held_out(places, 0.3, seed), held_out(places[::-1], 0.3, seed)

    assert forward.tolist() == backward[::-1].tolist()


def test_unlabelled_scenes_are_dropped_or_kept(store_path: Path) -> None:
    """`drop` leaves unlabelled scenes out, `hard-only` keeps them; probes never use them."""
    store = Store(store_path)
    drop = StoreDataModule(store, DataConfig(holdout=0.25), 4, 0)
    keep = StoreDataModule(store, DataConfig(holdout=0.25, unlabelled="hard-only"), 4, 0)

    known = store.labels(range(len(store))).known.numpy()
    outside = held_out(store.locations.tolist(), 0.25, 0)
    assert np.flatnonzero(~outside).tolist() == keep.train_rows.tolist()
    assert np.flatnonzero(~outside & known).tolist() == drop.train_rows.tolist()
    for rows in (keep.probe_rows, keep.test_rows, drop.train_rows):
        assert known[rows].all()


def test_unlabelled_scenes_inherit(tmp_path: Path, make_store: Callable[..., Path]) -> None:
    """`inherit` trains on a scene with the labels of its place's other season; probes do not."""
    store = Store(make_store(tmp_path / "s", unlabelled=1))
    data = StoreDataModule(store, DataConfig(holdout=0.0, unlabelled="inherit"), 4, 0)

    assert list(range(24)) == data.train_rows.tolist()
    assert list(range(1, 24)) == data.probe_rows.tolist()
    assert data.train_labels.known.all()
    assert data.labels.multi_hot[0].equal(store.labels([1]).multi_hot[0])
    seen = {
        row: labels.multi_hot[i] for rows, labels in batches_of(data) for i, row in enumerate(rows)
    }
    assert seen[0].equal(data.labels.multi_hot[0])
    alone = Store(make_store(tmp_path / "t", unlabelled=2))
    dropped = StoreDataModule(alone, DataConfig(holdout=0.0, unlabelled="inherit"), 4, 0)
    assert list(range(2, 24)) == dropped.train_rows.tolist()


def test_a_store_without_labels_says_what_to_do(
    tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """All scenes unlabelled: an error with two remedies, unless the hard term is to be alone."""
    store = Store(make_store(tmp_path / "s", unlabelled=24))
    for unlabelled in ("drop", "inherit"):
        with pytest.raises(TrainingError, match="no scene is labelled") as caught:
            StoreDataModule(store, DataConfig(unlabelled=unlabelled), 4, 0)
    words = str(caught.value.remedy).partition("without labels: ")[2].split()
    typed = parse("pretrain", ["--data.holdout", "0", *words])
    assert isinstance(typed, PretrainConfig)
    assert 0 == typed.method.soft_weight
    kept = StoreDataModule(store, typed.data, 4, 0)
    assert 24 == len(kept.train_rows)


def test_shares_and_places_come_with_the_labels_if_asked_for(store_path: Path) -> None:
    """The batches carry covered shares and place numbers of their rows; else neither."""
    store = Store(store_path)
    config = DataConfig(holdout=0.25)
    bare, full = (
        StoreDataModule(store, config, 4, 0),
        StoreDataModule(store, config, 4, 0, shares=True, places=True),
    )
    for rows, labels in batches_of(full):
        assert store.fractions(rows).equal(labels.shares)
        names = store.locations[rows]
        same = labels.places[:, None] == labels.places[None]
        assert (names[:, None] == names[None]).tolist() == same.tolist()
    assert all(labels.shares is None and labels.places is None for _, labels in batches_of(bare))


def test_images_are_named_by_the_batch_they_are_in(store_path: Path) -> None:
    """An error about the second and third image of the present batch names their scenes."""
    store = Store(store_path)
    data = StoreDataModule(store, DataConfig(holdout=0.25), 4, 0)
    error = PixelError("pixels marked valid are not finite", found="NaN", images=(1, 2))
    assert data.named(error) is error
    loader = data.train_dataloader()
    for rows, _ in zip(loader.sampler.rows(0), loader, strict=True):
        words = str(data.named(error))
        assert (
            f"{store.ids[rows[1]]} (row {rows[1]}), {store.ids[rows[2]]} (row {rows[2]})" in words
        )
        assert str(store.path) in words
    data.close()


def test_batches_stay_native_until_they_are_on_the_device(store_path: Path) -> None:
    """A batch is uint16 planes at 10, 20 and 60 m with its labels."""
    data = StoreDataModule(Store(store_path), DataConfig(holdout=0.25), 4, 0)

    imagery, labels = next(iter(data.train_dataloader()))

    assert {10: (4, 4, 60, 60), 20: (4, 6, 30, 30), 60: (4, 3, 10, 10)} == {
        gsd: tuple(plane.shape) for gsd, plane in imagery.planes.items()
    }
    assert "torch.uint16" == str(imagery.planes[10].dtype)
    assert np.isin(labels.multi_hot.numpy(), (0, 1)).all()
    data.close()


def test_too_small_a_store_says_so(store_path: Path) -> None:
    """The message counts held-out and unlabelled scenes; where items are places, it says places."""
    with pytest.raises(TrainingError, match="fewer training scenes than a batch"):
        StoreDataModule(Store(store_path), DataConfig(), 100, 0)
    with pytest.raises(TrainingError, match="fewer training places than a batch"):
        StoreDataModule(Store(store_path), DataConfig(views="seasons"), 12, 0)


# --------------------------------------------------------------------------------- loader


def same(batch: Batch, store: Store, rows: list[int]) -> bool:
    """Whether a batch holds just these images and labels."""
    expected, labels = store.images(rows), store.labels(rows)
    planes = [expected.planes[gsd].equal(plane) for gsd, plane in batch[0].planes.items()]
    return (
        all(planes)
        and expected.valid.equal(batch[0].valid)
        and labels.multi_hot.equal(batch[1].multi_hot)
        and labels.known.equal(batch[1].known)
    )


@pytest.fixture
def data(store_path: Path) -> Iterator[StoreDataModule]:
    """Sixteen rows, four steps of four, three threads."""
    made = StoreDataModule(Store(store_path), DataConfig(holdout=0.25), 4, 0, readers=3)
    yield made
    made.close()


def test_an_epoch_left_early_and_one_entered_late(data: StoreDataModule) -> None:
    """A consumer may leave; the next epoch is whole; a loaded state skips what was consumed."""
    loader = data.train_dataloader()
    rows = [loader.sampler.rows(epoch).tolist() for epoch in range(3)]
    for _ in zip(range(2), loader, strict=False):
        pass
    state = loader.state_dict()
    assert {"epoch": 0, "step": 2} == state

    loader.sampler.set_epoch(1)
    assert all(same(batch, data.store, line) for batch, line in zip(loader, rows[1], strict=True))
    loader = data.train_dataloader()
    loader.load_state_dict(state)
    rest = [same(batch, data.store, line) for batch, line in zip(loader, rows[0][2:], strict=True)]
    assert [True, True] == rest
    loader.sampler.set_epoch(2)
    assert 4 == sum(
        same(batch, data.store, line) for batch, line in zip(loader, rows[2], strict=True)
    )


def test_a_state_of_a_finished_epoch_skips_nothing(data: StoreDataModule) -> None:
    """Saved at the end of epoch 0, epoch 1 begins at its beginning."""
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": 0, "step": 4})
    loader.sampler.set_epoch(1)

    assert 4 == sum(1 for _ in loader)


class Copy:
    """Stands for a copy to a GPU that ends when somebody waits for it."""

    def __init__(self, batch: Batch, store: Store, rows: list[int]) -> None:
        self.batch, self.store, self.rows = batch, store, rows
        self.arrived: bool | None = None

    def synchronize(self) -> None:
        """Give the readers time to do damage, then look at what the copy would have read."""
        time.sleep(0.02)
        self.arrived = same(self.batch, self.store, self.rows)


def test_memory_waits_for_a_copy_that_does_not_wait(data: StoreDataModule) -> None:
    """A batch still being copied when the next one is asked for is whole until the copy ends."""
    loader = data.train_dataloader()
    rows = loader.sampler.rows(0).tolist()
    copies: list[Copy] = []
    late = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        for batch, line in zip(loader, loader.sampler.rows(epoch).tolist(), strict=True):
            late += [same(copy.batch, data.store, copy.rows) for copy in copies[-1:]]
            copies.append(Copy(batch, data.store, line))
            loader.copied_when(copies[-1])
    loader.stop()

    assert 12 == len(copies)
    assert all(copy.arrived for copy in copies)
    assert 4 == len(rows)
    # and a copy later than that would have been spoilt: the check above can fail
    spoilt = [not same(copy.batch, data.store, copy.rows) for copy in copies[:-4]]
    assert any(spoilt)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_copies_to_a_gpu_that_is_busy(store_path: Path) -> None:
    """Batches copied behind a long kernel arrive as they were read."""
    store = Store(store_path)
    data = StoreDataModule(store, DataConfig(holdout=0.25), 4, 0, readers=3)
    loader = data.train_dataloader()
    arrived = []
    for batch, line in zip(loader, loader.sampler.rows(0).tolist(), strict=True):
        torch.cuda._sleep(50_000_000)
        arrived.append((data.transfer_batch_to_device(batch, torch.device("cuda"), 0), line))
    data.close()

    for (imagery, labels), line in arrived:
        assert same((imagery.to("cpu"), labels.to("cpu")), store, line)


@pytest.mark.slow
def test_no_step_sees_an_overwritten_batch(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a real run a batch is the store's own at the start and the end of its step, not later."""
    store = Store(str(config.data.store))
    step = PretrainModule.training_step
    checks, spoilt = [], []
    before: list[tuple[Batch, list[int]]] = []

    def checked(self: PretrainModule, batch: Batch, batch_idx: int) -> Tensor:
        module = self.trainer.datamodule  # type: ignore[attr-defined]
        line = module.batches().rows(self.current_epoch)[batch_idx].tolist()
        checks.append(same(batch, store, line))
        spoilt.extend(not same(old, store, rows) for old, rows in before[:-3])
        time.sleep(0.02)
        loss = step(self, batch, batch_idx)
        checks.append(same(batch, store, line))
        before.append((batch, line))
        return loss

    monkeypatch.setattr(PretrainModule, "training_step", checked)
    config = replace(config, optim=replace(config.optim, batch=4))
    pretrain(replace(config, run=replace(config.run, readers=3)))

    assert [True] * 16 == checks
    assert any(spoilt)


def test_processes_share_a_batch(data: StoreDataModule) -> None:
    """Two processes read halves of one process's steps; three cannot share four scenes."""
    alone = data.batches().rows(1)
    halves = [data.batches(rank, 2).rows(1) for rank in range(2)]

    assert alone.tolist() == np.concatenate(halves, axis=1).tolist()
    with pytest.raises(ConfigError, match="divided evenly"):
        data.batches(0, 3)


# -------------------------------------------------------------------------------- options


def batches_of(data: StoreDataModule, epoch: int = 0) -> list[tuple[list[int], Labels]]:
    """The rows and labels of an epoch's batches."""
    loader: StoreLoader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    out = [
        (line, labels)
        for (_, labels), line in zip(loader, loader.sampler.rows(epoch).tolist(), strict=True)
    ]
    data.close()
    return out


def test_seasons_are_read_in_halves(store_path: Path) -> None:
    """Eight places fill two batches of four: eight images each, in pairs of one place."""
    store = Store(store_path)
    data = StoreDataModule(store, DataConfig(holdout=0.25, views="seasons"), 4, 0)
    found = batches_of(data)

    assert [8, 8] == [len(labels) for _, labels in found]
    for rows, labels in found:
        first, second = store.locations[rows[:4]], store.locations[rows[4:]]
        assert first.tolist() == second.tolist()
        assert not set(rows[:4]) & set(rows[4:])
        assert labels.multi_hot.equal(store.labels(rows).multi_hot)


@pytest.mark.parametrize("views", ["seasons", "crops"])
def test_a_share_of_the_scenes_is_seen_in_colours_alone(
    views: str, config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both views of a place alike; the others have all their bands, and each draw is another."""
    store = Store(str(config.data.store))
    monkeypatch.setattr("eofm.loading.views.Views.make", lambda self, pixels, _: pixels)
    config = replace(
        config,
        data=replace(config.data, views=views),
        augment=replace(config.augment, rgb_probability=0.5),
    )
    _, module, _ = prepare(config, ProcessPlace())
    native = store.images(list(range(16)))
    bands = module.recipe.bands
    colours = [bands.index(band) for band in ("B04", "B03", "B02")]
    torch.manual_seed(1)
    drawn = []
    for _ in range(3):
        imagery, first, second = module.two_views(native)
        halves = imagery.pixels.chunk(2) if views == "seasons" else (imagery.pixels,) * 2
        alone = [
            [not torch.equal(shown, whole) for shown, whole in zip(view.pixels, half, strict=True)]
            for view, half in zip((first, second), halves, strict=True)
        ]
        assert alone[0] == alone[1]
        assert 0 < sum(alone[0]) < len(alone[0])
        for row in (i for i, is_alone in enumerate(alone[0]) if is_alone):
            of_colour = halves[1][row, colours]
            assert torch.equal(of_colour, second.pixels[row, colours])
            kinds = {tuple(band.flatten().tolist()) for band in second.pixels[row]}
            assert kinds == {tuple(band.flatten().tolist()) for band in of_colour}
        drawn.append(alone[0])
    assert drawn[0] != drawn[1] or drawn[1] != drawn[2]


@pytest.mark.parametrize("views", ["seasons", "crops"])
def test_views_and_their_labels(
    views: str, config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first view is of the first half with its labels, the second of the second."""
    store = Store(str(config.data.store))
    monkeypatch.setattr("eofm.loading.views.Views.make", lambda self, pixels, _: pixels)
    seen = []

    def spy(self: PretrainModule, native: NativeImagery, inner=PretrainModule.two_views):
        imagery, first, second = inner(self, native)
        seen.append((imagery.pixels, first.pixels, second.pixels))
        return imagery, first, second

    class StopHereError(Exception):
        pass

    def method(self: object, images: object, labels: object, *_: object) -> None:
        seen.append(labels)
        raise StopHereError

    monkeypatch.setattr(PretrainModule, "two_views", spy)
    monkeypatch.setattr("eofm.method.CombinedTerms.forward", method)
    with pytest.raises(StopHereError):
        pretrain(
            replace(
                config,
                data=replace(config.data, views=views),
                monitor=MonitorConfig(every_epochs=0),
            )
        )

    (pixels, first, second), labels = seen
    data = StoreDataModule(store, replace(config.data, views=views), 8, 0)
    rows = data.batches().rows(0)[0].tolist()
    if views == "crops":
        assert 8 == len(pixels)
        assert first.equal(pixels)
        assert second.equal(pixels)
        assert isinstance(labels, Labels)
    else:
        assert 16 == len(pixels)
        assert first.equal(pixels[:8])
        assert second.equal(pixels[8:])
        assert not first.equal(second)
        for mine, own in zip(labels, (rows[:8], rows[8:]), strict=True):
            assert mine.multi_hot.equal(store.labels(own).multi_hot)
            assert mine.known.equal(store.labels(own).known)


def test_rarity_weighs_by_the_labels_of_the_training_scenes(store_path: Path) -> None:
    """The factors are those of the formula, over the training rows alone."""
    store = Store(store_path)
    data = StoreDataModule(store, DataConfig(holdout=0.25, balance="rarity"), 4, 0)
    labels = store.labels(data.train_rows).multi_hot.double()
    share = labels.mean(0)

    expected = (torch.sqrt(0.1 / share).clamp(min=1) * labels).max(1).values.clamp(min=1)
    assert np.allclose(expected.numpy(), data.batches().pool.factors)


def test_replay_mixes_a_second_store(
    store_path: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """A quarter of a batch is of the second store, not from held-out places, without labels."""
    other = make_store(tmp_path / "old", labels=False)
    config = DataConfig(holdout=0.25, replay=str(other), replay_share=0.25)
    store = Store(store_path)
    data = StoreDataModule(store, config, 4, 0)
    places = set(store.locations[data.test_rows].tolist())

    for epoch in range(4):
        for rows, labels in batches_of(data, epoch):
            assert [False] * 3 + [True] == [row >= len(store) for row in rows]
            assert [True] * 3 + [False] == labels.known.tolist()
            assert not labels.multi_hot[3].any()
            assert Store(other).locations[rows[3] - len(store)] not in places


def test_what_cannot_be_replayed(
    store_path: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """Another sensor, a share without a store and a store without a share are refused."""
    radar = make_store(tmp_path / "s1", Sensor.S1_GRD)
    with pytest.raises(StoreError, match="different spec"):
        StoreDataModule(Store(store_path), DataConfig(replay=str(radar), replay_share=0.5), 4, 0)
    for wrong in (DataConfig(replay_share=0.5), DataConfig(replay=str(radar))):
        with pytest.raises(ConfigError, match="replay_share"):
            PretrainConfig(data=wrong)


@pytest.mark.slow
def test_a_run_with_all_options(
    config: PretrainConfig, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """Seasons, rarity and replay together train to finite losses, and the report has figures."""
    other = make_store(tmp_path / "old", labels=False)
    chosen = replace(
        config.data, views="seasons", balance="rarity", replay=str(other), replay_share=0.25
    )
    config = replace(config, data=chosen, optim=replace(config.optim, batch=4, epochs=1))
    pretrain(replace(config, run=replace(config.run, figures=True)))

    out = Path(str(config.run.out))
    assert (out / "figures" / "views.png").is_file()
    assert 2 == len((out / "metrics.jsonl").read_text().splitlines())
    assert "25% of each batch from old" in (out / "export" / "student" / "card.json").read_text()


# ------------------------------------------------------------------------------- third split


@pytest.mark.parametrize(("holdout", "places"), [(0.25, 3), (0.34, 4), (0.5, 5)])
def test_what_chooses_is_not_scored(store_path: Path, holdout: float, places: int) -> None:
    """From four held-out places on, those that choose and those that are scored are apart."""
    store = Store(store_path)
    data = StoreDataModule(store, DataConfig(holdout=holdout), 8, 0)

    val, test, train = (
        set(store.locations[rows].tolist())
        for rows in (data.val_rows, data.test_rows, data.train_rows)
    )
    assert places == len(val | test)
    assert not (val | test) & train
    assert data.divided is (places >= 4)
    assert bool(val & test) is not data.divided
    assert val
    assert test


@pytest.mark.slow
def test_the_best_checkpoint_is_not_chosen_on_scored_scenes(config: PretrainConfig) -> None:
    """With four held-out places kNN chooses, on scenes that are not scored; with three the loss."""
    for holdout, expected in ((0.25, "loss"), (0.34, "monitor/knn")):
        out = f"{config.run.out}-{holdout}"
        pretrain(with_groups(config, data={"holdout": holdout}, run={"out": out}))
        saved = torch.load(Path(out) / "checkpoints" / "best.ckpt", weights_only=True)
        assert expected == saved["callbacks"]["Checkpoints"]["best"]["by"]
