"""Networks of timm with timm's own weights, under a recipe that the user states."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import nn

from eofm.contract.recipe import Recipe
from eofm.errors import WeightsError
from eofm.networks.build import build
from eofm.networks.state import load_strict
from eofm.networks.timm_network import as_timm
from eofm.networks.timm_trunk import PREFIX
from eofm.weights.encoder import Encoder
from eofm.weights.encoder_card import Card, library_versions

_RGB_BANDS: Final = 3


def load_timm(reference: str, recipe: Recipe) -> Encoder:
    """Return a network of timm with its pretrained weights.

    timm would repeat the filters of red, green and blue over any number of bands; such a network
    is another one, and is refused.

    Args:
        reference: `timm:NAME`, or `timm:NAME@FILE` with a file of those weights.
        recipe: What it expects: three bands.

    Raises:
        WeightsError: If timm has no such network, the weights cannot be fetched or do not fit, or
            the recipe has not three bands.
        SpecError: If the network does not take images of the recipe's size and pooling.
    """
    architecture, _, file = reference.partition("@")
    name = architecture.removeprefix(PREFIX)
    if len(recipe.bands) != _RGB_BANDS:
        raise WeightsError(
            "timm's weights are for three bands",
            found=f"a recipe of {len(recipe.bands)}: {' '.join(recipe.bands)}",
            expected="red, green and blue, such as B04 B03 B02",
            where=reference,
        )
    trunk = build(architecture, recipe, torch.Generator().manual_seed(0))
    if file and not Path(file).is_file():
        raise WeightsError("there is no such file of weights", found=file, where=reference)
    donor = _pretrained(name, recipe.size, file, reference)
    state = {f"model.{key}": value for key, value in donor.state_dict().items()}
    load_strict(trunk, state, where=reference)
    config = as_timm(donor).pretrained_cfg
    digest = hashlib.sha256()
    for key, value in sorted(trunk.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy())
    said = "as timm's card of it says" if not file else "not stated by the file"
    card = Card(
        name=reference,
        architecture=architecture,
        recipe=recipe,
        objective=said,
        source=f"timm {timm.__version__}, {file or config.get('tag') or name}",
        training_data=said,
        counts={},
        synthetic=False,
        licence=str((not file and config.get("license")) or said),
        versions=library_versions(),
        sha256=digest.hexdigest(),
    )
    return Encoder(trunk, card)


def _pretrained(name: str, size: tuple[int, int], file: str, reference: str) -> nn.Module:
    overlay = {"file": file} if file else None
    sized: tuple[dict[str, Any], ...] = (
        {"img_size": size, "dynamic_img_size": True},
        {"img_size": size},
        {},
    )
    for options in sized:
        try:
            model: nn.Module = timm.create_model(
                name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options
            )
        except TypeError:
            continue  # the constructor does not have the option; which has which is not stated
        except Exception as error:
            raise WeightsError(
                "timm's weights cannot be fetched",
                found=f"{type(error).__name__}: {error}",
                where=reference,
                remedy=f"name a file of them: {PREFIX}{name}@FILE",
            ) from error
        return model
    raise WeightsError("timm cannot build this network", found=name, where=reference)
