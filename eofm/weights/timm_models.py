"""SoftCon's published networks as timm's own: importing this module registers them.

    import timm
    import eofm.weights.timm_models

    model = timm.create_model("eofm_softcon_vits14_s2", pretrained=True, num_classes=19)

The result is timm's `VisionTransformer` or `ResNet`, with all features of timm: a head
of `num_classes`, `features_only`, `img_size`. `eofm.load_weights` loads the weights: by name, hash
checked, or from a file, `pretrained_cfg_overlay={"file": "B13_vits14_softcon.pth"}`.

timm's transforms are for photographs and cannot apply the recipe. `mean` and `std` in
`pretrained_cfg` are such that (x - mean) / std of a digital number (Sentinel-2) or of dB
(Sentinel-1) is what the network expects, but the recipe also clips to [0, 1] and truncates to 255
levels, which mean and std cannot express. `eofm.contract.preprocess.Preprocess`, or the
`preprocess` of an `eofm.Encoder`, applies all of it.

Shapes: a network takes (B, C, 224, 224), C = 13 or 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from eofm.errors import WeightsError
from eofm.networks.state import PositionRecipe, State, load_strict, resize_position_embedding
from eofm.weights.cards import WEIGHTS
from eofm.weights.cards.card import WeightCard
from eofm.weights.load import load_weights

__all__ = ["ENTRIES", "PREFIX", "default_cfgs"]

PREFIX: Final = "eofm_"

_VITS: Final[Mapping[str, Mapping[str, object]]] = {
    "vits14": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vitb14": {"embed_dim": 768, "depth": 12, "num_heads": 12},
}
_NAMES: Final = (
    "softcon_vits14_s2",
    "softcon_vitb14_s2",
    "softcon_rn50_s2",
    "softcon_vits14_s1",
    "softcon_vitb14_s1",
    "softcon_rn50_s1",
)


def _cfg(card: WeightCard) -> dict[str, object]:
    recipe, norm = card.recipe, card.recipe.normalization
    vit = card.architecture in _VITS
    return {
        "url": card.url,
        "input_size": (len(recipe.bands), *recipe.size),
        "fixed_input_size": vit,
        "num_classes": 0,
        "pool_size": None if vit else (7, 7),
        "interpolation": str(recipe.resize.kernel),
        "crop_pct": 1.0,
        "mean": norm.shift,
        "std": norm.scale,
        "first_conv": "patch_embed.proj" if vit else "conv1",
        "classifier": "head" if vit else "fc",
        "license": card.licence.lower(),
        "paper_ids": f"arXiv:{card.paper}",
        "description": card.objective,
        "notes": (
            f"bands {' '.join(recipe.bands)} of {recipe.sensor} in {recipe.unit}",
            f"after (x - mean) / std: clip to {norm.clip}, truncate to {norm.levels} levels",
            "no transform of timm does this: see eofm.contract.preprocess",
        ),
    }


default_cfgs = generate_default_cfgs({PREFIX + name: _cfg(WEIGHTS[name]) for name in _NAMES})


def _create(card: WeightCard, *, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Build a network as timm's own entry points do, and load it before timm wraps it."""
    overlay = dict(options.pop("pretrained_cfg_overlay", None) or {})
    file = overlay.pop("file", None)
    vit = card.architecture in _VITS
    if vit:
        own: dict[str, Any] = {"patch_size": 14, "init_values": 1e-5, **_VITS[card.architecture]}
        features = {"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"}
    else:
        own, features = {"block": Bottleneck, "layers": (3, 4, 6, 3)}, {}

    def make(**arguments: Any) -> nn.Module:  # noqa: ANN401 (timm's protocol)
        network: nn.Module = (VisionTransformer if vit else ResNet)(**arguments)
        if pretrained:
            _fill(network, card, file or card.name)
        return network

    model: nn.Module = build_model_with_cfg(
        make,
        PREFIX + card.name,
        pretrained=False,  # already loaded: timm does not know our hashes and key maps
        pretrained_cfg_overlay=overlay,
        feature_cfg=features,
        **{**own, **options},
    )
    return model


def _fill(network: nn.Module, card: WeightCard, weights: str) -> None:
    """Load published weights into a network, except for its head."""
    conv = network.get_submodule("patch_embed.proj" if card.architecture in _VITS else "conv1")
    bands = len(card.recipe.bands)
    if not isinstance(conv, nn.Conv2d) or conv.in_channels != bands:
        raise WeightsError(
            "the weights are for other bands",
            found=f"in_chans={conv.in_channels if isinstance(conv, nn.Conv2d) else '?'}",
            expected=f"in_chans={bands}: {' '.join(card.recipe.bands)}",
            where=PREFIX + card.name,
            remedy="leave out in_chans; eofm.networks.state makes input layers for other bands",
        )
    encoder = load_weights(weights, card=None if weights == card.name else card.name)
    tensors: State = dict(encoder.trunk.state_dict())
    if isinstance(network, VisionTransformer):
        side_y, side_x = network.patch_embed.grid_size
        tensors = resize_position_embedding(tensors, (side_y, side_x), PositionRecipe.DINOV2)
    head = ("head.", "fc.")
    own = {key: value for key, value in network.state_dict().items() if key.startswith(head)}
    load_strict(network, {**tensors, **own}, where=weights)


def _entry(card: WeightCard) -> Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401
        return _create(card, pretrained=pretrained, options=options)

    entry.__name__ = entry.__qualname__ = PREFIX + card.name
    entry.__module__ = __name__
    entry.__doc__ = f"{card.name}: {card.objective}."
    return entry


ENTRIES: Final = {PREFIX + name: register_model(_entry(WEIGHTS[name])) for name in _NAMES}
