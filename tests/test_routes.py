"""One file, one mask, one refusal: each situation that users report, on every route it can take.

The routes are the file (`read_geotiff` and `embed`), the array (`preprocess`), `pack tiles`,
`data check`, `bench folder` and `labels`. The situations are those of files with margins, nodata,
dead bands and wrong units; the last tests change the one rule and see every route change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from levels import surface
from numpy.typing import NDArray
from remedies import run_rio
from torch import Tensor

from eofm import read_geotiff
from eofm.bench.run import bench
from eofm.contract import validity
from eofm.contract.imagery import Imagery
from eofm.contract.prepare import as_imagery
from eofm.contract.preprocess import to_grid
from eofm.contract.recipe import Recipe
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, ImageSpec, Normalization, Sensor, Unit
from eofm.datasets.check import CheckConfig
from eofm.datasets.check.run import check_data
from eofm.datasets.folder import BenchFolderConfig
from eofm.datasets.tiles import PackTilesConfig
from eofm.datasets.tiles.pack import pack_tiles
from eofm.errors import PixelError
from eofm.store.reader import Store
from eofm.weights.encoder import Encoder, random_encoder

SIZE = 64
L1C, L2A = SENSOR_BANDS[Sensor.S2_L1C], SENSOR_BANDS[Sensor.S2_L2A]
TYPICAL = dict(
    zip(
        L1C,
        [1500, 1300, 1200, 1100, 1500, 2200, 2500, 2400, 2700, 800, 20, 2000, 1300],
        strict=True,
    )
)

Pixels = NDArray[np.generic]


def top(seed: int) -> Pixels:
    """Level-1C as digital numbers."""
    noise = np.random.default_rng(seed).normal(1, 0.15, (13, SIZE, SIZE))
    levels = np.array([TYPICAL[band] for band in L1C])[:, None, None]
    return np.maximum(levels * noise, 1).astype("uint16")


def ground(seed: int) -> Pixels:
    """Level-2A as digital numbers, with water in it."""
    return surface(L2A, (SIZE, SIZE), seed).astype("uint16")


def radar(seed: int) -> Pixels:
    """VV and VH in dB."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.normal(m, 2, (SIZE, SIZE)) for m in (-11, -18)]).astype("float32")


def margin(pixels: Pixels, value: float, dtype: str | None = None) -> Pixels:
    """The first twenty columns of every band hold one value."""
    out = pixels.astype(dtype or pixels.dtype)
    out[:, :, :20] = value
    return out


def one_band(pixels: Pixels, place: int, values: Pixels | float) -> Pixels:
    """Other values in one band."""
    out = pixels.copy()
    out[place] = values
    return out


@dataclass(frozen=True)
class Case:
    """A situation.

    Args:
        make: Seed -> the pixels of an image.
        sensor: What they are stated to be.
        unit: What they are stated to be in.
        nodata: What the file declares.
        problem: The sentence with which every route refuses; None where none does.
        unmeasured: How many columns on the left hold no measurement.
    """

    make: Callable[[int], Pixels]
    sensor: Sensor = Sensor.S2_L1C
    unit: Unit = Unit.DN
    nodata: float | None = None
    problem: str | None = None
    unmeasured: int = 0


_NODATA = "a fill value marks pixels as nodata, but is not declared"
_BYTES = "8-bit files cannot store the digital numbers of Sentinel-2"
_SIZE = "the values are not in the range of unit dn"
_MIXED = "one band is in a different unit than the others"
_STRETCHED = "the values were stretched to the range of 16-bit integers"
_DEAD = "a band contains no measurement"
_OFFSET = "images stated to be without the offset of processing baseline 04.00 seem to carry it"
_NONE = "images stated to be with the offset of processing baseline 04.00 seem to lack it"

REFUSED: Mapping[str, Case] = {
    "c11 -9999": Case(lambda s: margin(top(s), -9999, "int16"), problem=_NODATA),
    "c11 -32768": Case(lambda s: margin(top(s), -32_768, "int16"), problem=_NODATA),
    "c11 65535": Case(lambda s: margin(top(s), 65_535), problem=_NODATA),
    "c11 1e20": Case(lambda s: margin(top(s), 1e20, "float32"), problem=_NODATA),
    "c11 radar -9999": Case(
        lambda s: margin(radar(s), -9999), Sensor.S1_GRD, Unit.DB, problem=_NODATA
    ),
    "c13": Case(lambda s: one_band(ground(s), L2A.index("B08"), 0), Sensor.S2_L2A, problem=_DEAD),
    "c16 plus 1000": Case(lambda s: top(s) + 1000, problem=_OFFSET),
    "c16 plus 1000, level 2a": Case(lambda s: ground(s) + 1000, Sensor.S2_L2A, problem=_OFFSET),
    "c16 no offset": Case(top, unit=Unit.DN_OFFSET1000, problem=_NONE),
    "c16 reflectance": Case(lambda s: (top(s) / 1e4).astype("float32"), problem=_SIZE),
    "c16 eight bit": Case(lambda s: (top(s) / 12).astype("uint8"), problem=_BYTES),
    "c16 eight bit, level 2a": Case(
        lambda s: (ground(s) / 16).astype("uint8"), Sensor.S2_L2A, problem=_BYTES
    ),
    "one band in reflectance": Case(
        lambda s: one_band(ground(s).astype("float32"), 3, ground(s)[3] / 1e4),
        Sensor.S2_L2A,
        problem=_MIXED,
    ),
    "VH in power": Case(
        lambda s: one_band(radar(s), 1, 10 ** (radar(s)[1] / 10)),
        Sensor.S1_GRD,
        Unit.DB,
        problem=_MIXED,
    ),
    "65535 for a reflectance of 1": Case(
        lambda s: (ground(s) * 6.5535).round().astype("uint16"), Sensor.S2_L2A, problem=_STRETCHED
    ),
    "a preview stretched to 16 bits": Case(
        lambda s: (ground(s) // 16).astype("uint16") * 257, Sensor.S2_L2A, problem=_STRETCHED
    ),
    "a copied band": Case(
        lambda s: one_band(ground(s), 3, ground(s)[2]),
        Sensor.S2_L2A,
        problem="two bands contain the same values",
    ),
    "power as dB": Case(
        lambda s: 10 ** (radar(s) / 10),
        Sensor.S1_GRD,
        Unit.DB,
        problem="backscatter in dB is mostly negative, but these values are not",
    ),
    "VH first": Case(
        lambda s: radar(s)[::-1],
        Sensor.S1_GRD,
        Unit.DB,
        problem="VH is brighter than VV, although it is darker on nearly every surface",
    ),
}
TAKEN: Mapping[str, Case] = {
    "sound": Case(top),
    "sound, level 2a": Case(ground, Sensor.S2_L2A),
    "c10": Case(lambda s: margin(top(s), 0), unmeasured=20),
    "c10 declared": Case(lambda s: margin(top(s), 0), nodata=0, unmeasured=20),
    "c11 -9999 declared": Case(
        lambda s: margin(top(s), -9999, "int16"), nodata=-9999, unmeasured=20
    ),
    "c11 -32768 declared": Case(
        lambda s: margin(top(s), -32_768, "int16"), nodata=-32_768, unmeasured=20
    ),
    "c11 65535 declared": Case(lambda s: margin(top(s), 65_535), nodata=65_535, unmeasured=20),
    "c11 1e20 declared": Case(
        lambda s: margin(top(s), 1e20, "float32"), nodata=1e20, unmeasured=20
    ),
    "c11 nan": Case(lambda s: margin(top(s), np.nan, "float32"), unmeasured=20),
    "c12": Case(lambda s: margin(radar(s), 0), Sensor.S1_GRD, Unit.DB, unmeasured=20),
    "c12 infinite": Case(
        lambda s: margin(radar(s), -np.inf), Sensor.S1_GRD, Unit.DB, unmeasured=20
    ),
    "c14": Case(
        lambda s: one_band(
            top(s),
            L1C.index("B10"),
            np.random.default_rng(s).integers(0, 3, (SIZE, SIZE)).astype("uint16"),
        ),
        nodata=0,
    ),
    "c16 stated": Case(lambda s: top(s) + 1000, unit=Unit.DN_OFFSET1000),
}


def write(path: Path, case: Case, seed: int) -> Path:
    """Write an image of a case, on ground of its own."""
    pixels = case.make(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = rasterio.Affine(10, 0, 500_000 + 10_000 * seed, 0, -10, 6_000_000)
    options = {"crs": "EPSG:32632", "transform": transform, "nodata": case.nodata}
    with rasterio.open(
        path, "w", "GTiff", SIZE, SIZE, len(pixels), dtype=pixels.dtype, **options
    ) as file:
        file.write(pixels)
    return path


def encoder_for(sensor: Sensor) -> Encoder:
    """An untrained encoder of all bands of a sensor."""
    names = {Sensor.S2_L1C: "l1c", Sensor.S2_L2A: "l2a", Sensor.S1_GRD: "grd"}
    table = STATISTICS[f"ssl4eo-s12-{names[sensor]}"]
    rule = Normalization.two_sigma(table.mean, table.std, table.source)
    return random_encoder(
        "vit-tiny-14-2blocks", Recipe(sensor, table.bands, table.unit, (28, 28), rule), 0
    )


@pytest.fixture(scope="module")
def encoders() -> dict[Sensor, Encoder]:
    """One encoder for each sensor."""
    return {s: encoder_for(s) for s in (Sensor.S2_L1C, Sensor.S2_L2A, Sensor.S1_GRD)}


# -------------------------------------------------------------------------------- routes


@dataclass(frozen=True)
class Outcome:
    """What a route makes of an image: mask (H, W) and vector (D,), where it gives them."""

    valid: Tensor | None = None
    vector: Tensor | None = None


def by_file(case: Case, root: Path, encoder: Encoder) -> Outcome:
    """`read_geotiff` and `embed`."""
    image = read_geotiff(write(root / "a.tif", case, 0), sensor=case.sensor, unit=case.unit)
    return Outcome(image.valid[0], encoder.embed(image)[0])


def by_array(case: Case, root: Path, encoder: Encoder) -> Outcome:
    """Pixels read by plain rasterio, masked as the file declares, with a spec beside them."""
    with rasterio.open(write(root / "a.tif", case, 0)) as file:
        pixels = file.read(masked=case.nodata is not None)
    spec = ImageSpec(case.sensor, SENSOR_BANDS[case.sensor], case.unit, None, 10.0)
    with torch.no_grad():
        vector = encoder(encoder.preprocess(pixels, spec))[0]
    assert torch.equal(vector, encoder.embed(pixels, spec=spec)[0])
    return Outcome(as_imagery(pixels, spec).valid[0], vector)


def by_store(case: Case, root: Path, encoder: Encoder) -> Outcome:
    """`pack tiles`, and the row read back."""
    write(root / "images" / "a.tif", case, 0)
    out = root / "store"
    pack_tiles(
        PackTilesConfig(
            str(root / "images"),
            case.sensor.value,
            case.unit.value,
            str(out),  # type: ignore[arg-type]
            window=SIZE,
            min_pixels=0.1,
        )
    )
    image: Imagery = to_grid(Store(out).images([0]))
    return Outcome(image.valid[0], encoder.embed(image)[0])


def by_check(case: Case, root: Path, _: Encoder) -> Outcome:
    """`data check`: what it finds first is raised as the others raise it."""
    for seed in range(2):
        write(root / "images" / f"{seed}.tif", case, seed)
    report = check_data(
        CheckConfig(str(root / "images"), sensor=case.sensor.value, unit=case.unit.value)  # type: ignore[arg-type]
    )
    if report.status:
        raise PixelError(next(iter(report.by_problem)))
    return Outcome()


def by_bench(case: Case, root: Path, _: Encoder) -> Outcome:
    """`bench folder` with the control that needs no network."""
    for seed in range(6):
        split, name = ("test" if seed > 3 else "train"), "ab"[seed % 2]
        write(root / "labelled" / split / name / f"{seed}.tif", case, seed)
    bench(
        BenchFolderConfig(
            str(root / "labelled"),
            model="imagestats",
            controls=False,
            probe="knn",
            k=1,
            bootstrap=10,
            out=str(root / "r.jsonl"),
            cache=str(root / "cache"),
            sensor=case.sensor.value,
            unit=case.unit.value,  # type: ignore[arg-type]
        )
    )
    return Outcome()


ROUTES = {
    "file": by_file,
    "array": by_array,
    "store": by_store,
    "check": by_check,
    "bench": by_bench,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", REFUSED)
def test_every_route_refuses_with_one_sentence(
    name: str, route: str, tmp_path: Path, encoders: dict[Sensor, Encoder]
) -> None:
    """What contradicts its statement goes nowhere, and the words are the same everywhere."""
    case = REFUSED[name]

    with pytest.raises(PixelError) as caught:
        ROUTES[route](case, tmp_path, encoders[case.sensor])

    assert case.problem == caught.value.problem


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", TAKEN)
def test_every_route_sees_one_mask_and_gives_one_vector(
    name: str, route: str, tmp_path: Path, encoders: dict[Sensor, Encoder]
) -> None:
    """The mask is that of the situation, and the vector that of the imagery made by hand."""
    case = TAKEN[name]
    expected = torch.ones(SIZE, SIZE, dtype=torch.bool)
    expected[:, : case.unmeasured] = False
    encoder = encoders[case.sensor]

    found = ROUTES[route](case, tmp_path, encoder)

    if found.valid is None or found.vector is None:
        return
    assert torch.equal(expected, found.valid)
    pixels = torch.from_numpy(case.make(0).astype("float32"))[None]
    spec = ImageSpec(case.sensor, SENSOR_BANDS[case.sensor], case.unit, (SIZE, SIZE), 10.0)
    by_hand = encoder.embed(Imagery(pixels, spec, expected[None]))[0]
    torch.testing.assert_close(by_hand, found.vector, rtol=0, atol=2e-4)


# --------------------------------------------------------------------- the rule is one rule


@pytest.mark.parametrize("route", ["file", "array", "store"])
def test_another_rule_for_measured_changes_every_route(
    route: str, tmp_path: Path, encoders: dict[Sensor, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where everything is measured no route masks a margin any more."""
    monkeypatch.setattr(validity, "_ZERO_IS_UNMEASURED", frozenset())
    case = TAKEN["c12"]

    found = ROUTES[route](case, tmp_path, encoders[case.sensor])

    assert found.valid is not None
    assert bool(found.valid.all())


@pytest.mark.parametrize("route", ROUTES)
def test_another_rule_for_plausible_changes_every_route(
    route: str, tmp_path: Path, encoders: dict[Sensor, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every route refuses the offset, and none does any more where B10 may be bright."""
    case = REFUSED["c16 plus 1000"]
    encoder = encoders[case.sensor]
    with pytest.raises(PixelError) as caught:
        ROUTES[route](case, tmp_path / "before", encoder)
    monkeypatch.setattr(validity, "_LIFTED", (5_000.0, 6_000.0))

    found = ROUTES[route](case, tmp_path / "after", encoder)

    assert _OFFSET == caught.value.problem
    assert (found.valid is None) == (route in {"check", "bench"})
    assert found.valid is None or bool(found.valid.all())


@pytest.mark.parametrize("route", ROUTES)
def test_a_stricter_rule_is_met_on_every_route(
    route: str, tmp_path: Path, encoders: dict[Sensor, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing above 100 is a digital number every route refuses."""
    monkeypatch.setattr(validity, "_RANGE", {**validity._RANGE, Unit.DN: (30, 100)})
    case = TAKEN["sound"]

    with pytest.raises(PixelError, match="in the range of unit dn"):
        ROUTES[route](case, tmp_path, encoders[case.sensor])


def test_the_command_of_a_benchmark_names_the_file(
    tmp_path: Path, encoders: dict[Sensor, Encoder]
) -> None:
    """The first of the images with the fault; typed, the command found no FILE."""
    case = REFUSED["c11 -9999"]

    with pytest.raises(PixelError) as caught:
        by_bench(case, tmp_path, encoders[case.sensor])

    file = run_rio(caught.value)[4]
    with rasterio.open(file) as image:
        assert -9999 == image.nodata
    assert str(tmp_path / "labelled" / "train") in file
