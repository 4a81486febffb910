"""`read_geotiff` reads what users have, and says which of several things is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import eofm


def test_real_images_of_each_kind_are_read(real_data: Path) -> None:
    """A 13-band L1C site, decibels, and a folder of band files arrive with their own spec."""
    site = eofm.read_geotiff(
        real_data / "terramesh/S2L1C/637U_59R_1_3.tif", sensor="s2-l1c", unit="dn"
    )
    radar = eofm.read_geotiff(
        real_data / "terramesh/S1RTC/637U_59R_1_3.tif", sensor="s1-rtc", unit="db"
    )
    folder = next((real_data / "bigearthnet_v1/BigEarthNet-v1.0").iterdir())
    patch = eofm.read_geotiff(folder, sensor="s2-l2a", unit="dn", window=(60, 0, 60, 60))

    assert (1, 13, 224, 224) == tuple(site.pixels.shape)
    assert 17 == round(site.pixels[0, site.spec.bands.index("B10")].mean().item())
    assert ("VV", "VH") == radar.spec.bands
    assert not torch.equal(radar.pixels, radar.pixels.round())
    assert (1, 12, 60, 60) == tuple(patch.pixels.shape)


def test_an_encoder_refuses_imagery_that_does_not_fit(real_data: Path) -> None:
    """The L2A version of a site is not what an L1C network expects, and the message says so."""
    from eofm.contract.spec import STATISTICS
    from eofm.weights.encoder import random_encoder

    stats = STATISTICS["ssl4eo-s12-l1c"]
    norm = eofm.Normalization.two_sigma(stats.mean, stats.std, stats.source)
    recipe = eofm.Recipe(eofm.Sensor.S2_L1C, stats.bands, eofm.Unit.DN, (56, 56), norm)
    encoder = random_encoder("vit-tiny-14", recipe, 0)
    name = "637U_59R_1_3.tif"
    site = eofm.read_geotiff(real_data / "terramesh/S2L1C" / name, sensor="s2-l1c", unit="dn")
    other = eofm.read_geotiff(real_data / "terramesh/S2L2A" / name, sensor="s2-l2a", unit="dn")

    assert (1, 192) == tuple(encoder.embed(site).shape)
    with pytest.raises(eofm.SpecMismatch, match="another sensor or product level"):
        encoder.embed(other)


def test_a_folder_of_several_images_is_not_one(real_data: Path) -> None:
    """The message names some of them and the verb that takes a folder."""
    with pytest.raises(eofm.EofmError, match="several images"):
        eofm.read_geotiff(real_data / "terramesh/S2L1C", sensor="s2-l1c", unit="dn")


def test_sensor_and_unit_are_checked_before_anything_is_read() -> None:
    """A misspelt sensor or unit is an error that offers one that is right."""
    for stated, right in (({"sensor": "s2l1c"}, "s2-l1c"), ({"unit": "D N"}, "dn")):
        with pytest.raises(eofm.EofmError, match="did you mean") as caught:
            eofm.read_geotiff("nowhere.tif", **({"sensor": "s2-l1c", "unit": "dn"} | stated))
        assert f"did you mean {right!r}?" == caught.value.remedy
