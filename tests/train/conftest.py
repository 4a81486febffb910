"""A small packed store whose labels can be seen in its pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eofm.contract.imagery import NativeImagery
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Sensor, resolution_groups
from eofm.method import SoftUnit
from eofm.store.format import LabelRule, StoreCard
from eofm.store.writer import Entry, StoreWriter
from eofm.train.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    RunConfig,
    SoftConConfig,
    TrainerConfig,
)
from eofm.train.module import PretrainModule
from eofm.train.run import pretrain

CLASSES = ("water", "trees", "crops")
SIZE = 60
LOCATIONS, SEASONS = 12, 2


def write_store(
    path: Path,
    sensor: Sensor = Sensor.S2_L1C,
    *,
    unlabelled: int = 2,
    equal_labels: bool = False,
    labels: bool = True,
    locations: int = LOCATIONS,
) -> Path:
    """Write two images of each location: each class present adds its own shift and texture."""
    bands = SENSOR_BANDS[sensor]
    radar = sensor in {Sensor.S1_GRD, Sensor.S1_RTC}
    stats = STATISTICS["ssl4eo-s12-grd" if radar else "ssl4eo-s12-l1c"]
    spec = ImageSpec(sensor, bands, stats.unit, (SIZE, SIZE), 10.0)
    groups = resolution_groups(bands)
    card = StoreCard(
        spec,
        groups,
        LabelRule("dynamic-world", CLASSES, 0.0, 0.25) if labels else None,
        settings={"made_for": "tests"},
        provenance={"synthetic": True},
    )
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(len(CLASSES), len(bands), generator=generator)
    with StoreWriter(path, card) as writer:
        for i in range(locations * SEASONS):
            location = i // SEASONS
            code = 5 if equal_labels else location % 7 + 1
            hot = [int(code >> k & 1) for k in range(len(CLASSES))]
            level = torch.tensor(hot, dtype=torch.float32) @ shift
            planes = {}
            for gsd, names in groups.items():
                side = SIZE * 10 // gsd
                index = [bands.index(b) for b in names]
                mean = (
                    torch.tensor(stats.mean)[index]
                    + 0.5 * level[index] * torch.tensor(stats.std)[index]
                )
                noise = torch.randn(1, len(names), side, side, generator=generator)
                plane = mean.view(1, -1, 1, 1) + 0.1 * noise * torch.tensor(stats.std)[index].view(
                    1, -1, 1, 1
                )
                planes[gsd] = plane if radar else plane.clamp(0, 60000).to(torch.uint16)
            native = NativeImagery(
                planes, groups, spec, torch.ones(1, SIZE, SIZE, dtype=torch.bool)
            )
            known = labels and i >= unlabelled
            entry = Entry(
                id=f"{location:03d}-{i % SEASONS}",
                location=f"{location:03d}",
                season=str(i % SEASONS),
                longitude=10.0 + location,
                latitude=50.0,
                date="2021-06-01T10:00:00",
                source=f"image-{i}",
                source_unit=spec.unit.value,
                fraction=tuple(h / sum(hot) for h in hot) if labels else (),
                multi_hot=() if not labels else tuple(hot) if known else (0, 0, 0),
                known=known,
                valid_share=1.0,
            )
            writer.append(entry, native)
            writer.source_done(entry.source, 0)
        writer.finish()
    return path


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled Sentinel-2 store."""
    return write_store(tmp_path_factory.mktemp("stores") / "s2")


@pytest.fixture
def config(store_path: Path, tmp_path: Path) -> PretrainConfig:
    """Two epochs on that store, seconds on a CPU."""
    return PretrainConfig(
        data=DataConfig(store=str(store_path), holdout=0.25),
        model=ModelConfig(architecture="vit-tiny-14-2blocks", size=56),
        method=SoftConConfig(hidden=32, dim=16, mask_ratio=0.5, soft_unit=SoftUnit.PLAIN),
        optim=OptimConfig(epochs=2, batch=8, lr=1e-2),
        trainer=TrainerConfig(accelerator="cpu"),
        run=RunConfig(out=str(tmp_path / "run"), figures=False),
    )


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Path]:
    """`write_store`, for tests that need a store of their own."""
    return write_store


@pytest.fixture
def pretrain_interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[PretrainConfig], None]:
    """Pretrain, and die in the second step of the second epoch."""

    def run(config: PretrainConfig) -> None:
        step = PretrainModule.training_step

        def stop(self: PretrainModule, batch: object, batch_idx: int) -> torch.Tensor:
            if self.current_epoch == 1 and batch_idx == 1:
                raise RuntimeError("the machine went away")
            return step(self, batch, batch_idx)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(PretrainModule, "training_step", stop)
            with pytest.raises(RuntimeError, match="went away"):
                pretrain(config)

    return run
