"""The tensors of a network: reading files, adapting, strict loading, hashing.

Adaptations of published weights map a state dict to a state dict. They are pure functions that do
not modify their input. `eofm.weights.keymaps` defines which tensors a file may hold, and their
names.

Batch norms store the mean and variance of their inputs in training. For a student that was trained
on masked images, or a network trained on two sensors in turn, these statistics match no later
input. `refresh_batch_norms` recomputes them before the network is used.

Shapes: O output channels, C bands, k by k pixels of a patch, P patches, D width.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from eofm.contract.spec import BANDS
from eofm.errors import TrainingError, WeightsError
from eofm.formats.arrays import read_safetensors, read_torch
from eofm.formats.foreign import foreign, in_words

__all__ = [
    "InputInit",
    "PositionRecipe",
    "State",
    "adapt_input",
    "colour_bands",
    "colour_shares",
    "fold_affine",
    "has_batch_norm",
    "load_strict",
    "nearest_colours",
    "read_state",
    "refresh_batch_norms",
    "resample_positions",
    "resize_position_embedding",
    "select_input_bands",
    "state_sha256",
]

State = dict[str, Tensor]


def read_state(path: Path | str) -> State:
    """Read a plain state dict: `.safetensors`, or a `.pth` without code in it.

    Raises:
        WeightsError: If the file is missing, damaged, a web page, or holds pickled code or anything
            other than named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            "there is no such weights file",
            found=path,
            expected="a .pth or .safetensors file",
            remedy="download it first; nothing is fetched in the background",
        )
    with path.open("rb") as file:
        head = file.read(64)
    if head.lstrip()[:1] == b"<":
        raise WeightsError(
            "this is a web page, not weights",
            found=head.decode(errors="replace").strip().splitlines()[0],
            where=path,
            remedy="download the file itself: on a hub, its 'raw' or 'resolve' address",
        )
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    return _only_tensors(content, path)


_UNREADABLE: Final = "the weights file cannot be read"
_FETCH: Final = "it may be cut short: compare its size and sha256, and download it again"


def _load_safetensors(path: Path) -> object:
    with foreign(WeightsError, _UNREADABLE, expected="safetensors", where=path, remedy=_FETCH):
        return read_safetensors(path)


def _load_torch(path: Path) -> object:
    expected = "a dictionary of tensors saved by torch.save"
    with foreign(WeightsError, _UNREADABLE, expected=expected, where=path, remedy=_FETCH):
        try:
            return read_torch(path)
        except pickle.UnpicklingError as error:
            raise WeightsError(
                "the weights file holds more than tensors, or is no weights file",
                found=in_words(error),
                expected=expected,
                where=path,
                remedy="code in a weights file is never run: ask for a plain state dict",
            ) from error


def _only_tensors(content: object, path: Path) -> State:
    if not isinstance(content, Mapping):
        raise WeightsError("the file holds no state dict", found=type(content).__name__, where=path)
    content = _ungrouped(content)
    other = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if other or not content:
        raise WeightsError(
            "the file holds something else than named tensors",
            found=", ".join(other[:8]) or "nothing",
            expected="tensors only",
            where=path,
            remedy="save the inner state dict on its own: torch.save(checkpoint[key], path)",
        )
    return _unwrapped({str(k): v for k, v in content.items() if isinstance(v, Tensor)})


# Prefixes of names from torch.compile and DataParallel/DistributedDataParallel.
_WRAPPERS: Final = ("_orig_mod.", "module.")


def _unwrapped(state: State) -> State:
    """Remove the prefix of a wrapper if all names have it."""
    for wrapper in _WRAPPERS * 2:  # they may be nested in either order
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def _ungrouped(content: Mapping[object, object]) -> Mapping[object, object]:
    """Merge a file of several state dicts (CROMA's five) into one, with their names as prefix."""
    groups = {name: part for name, part in content.items() if isinstance(part, Mapping)}
    if not groups or len(groups) < len(content):
        return content
    return {f"{name}.{key}": value for name, part in groups.items() for key, value in part.items()}


def load_strict(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `module`, requiring exactly the same tensors.

    Args:
        module: Module to load into.
        state: Named tensors.
        where: File or card, for the message.

    Raises:
        WeightsError: If a name is missing or unexpected, or a shape differs; all are listed.
    """
    own = module.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"foreign {key}" for key in state if key not in own]
    faults += [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if faults:
        raise WeightsError(
            "the weights do not fit the architecture",
            found="; ".join(faults[:12]) + (f"; and {len(faults) - 12} more" * (len(faults) > 12)),
            expected=f"the {len(own)} tensors of {type(module).__name__}",
            where=where,
            remedy="state the architecture, bands and input size the weights were made for",
        )
    module.load_state_dict(dict(state))


def state_sha256(module: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers, with names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def has_batch_norm(network: nn.Module) -> bool:
    """Whether the network stores statistics of batches."""
    return bool(_batch_norms(network))


@torch.no_grad()
def refresh_batch_norms(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the batch norm statistics by the average over these batches.

    Batches have equal weight, so they should have the same size. Only the statistics change; the
    mode of the network (evaluation or training) is preserved.

    Args:
        network: Network to update; without batch norm it is unchanged.
        batches: Normalised pixels as network input, (B, C, H, W).

    Returns:
        Number of batches used; 0 if there is no batch norm.

    Raises:
        TrainingError: If there are no batches.
    """
    norms = _batch_norms(network)
    if not norms:
        return 0
    modes = {module: module.training for module in network.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the plain average over all batches
    network.eval()  # no dropout or drop path: only batch norms use batch statistics
    count = 0
    try:
        for norm in norms:
            norm.train()
        for pixels in batches:
            network(pixels)
            count += 1
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    if not count:
        raise TrainingError(
            "there are no images to take the statistics of batch norm from",
            found="no batch",
            expected="one or more",
        )
    return count


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    modules = network.modules()
    return [m for m in modules if isinstance(m, _BatchNorm) and m.track_running_stats]


# --------------------------------------------------------------------- adapting published weights

# ----------------------------------------------------------------------------- input layer


class InputInit(StrEnum):
    """Initialisation of the input layer for C bands from that for red, green and blue.

    All rules except `RANDOM` copy: band c gets a sum of the colours' filters, weighted by
    `colour_shares`. They keep the bias. For an image with the same value in every band, the
    response is exactly the RGB layer's response to gray of that value if each colour's shares add
    to 1.

    `RANDOM` draws new weight and bias, as SoftCon is reported to do.
    `RGB_MATCHED` gives the red, green and blue bands their own filters unchanged, and the others
    zeros. Gray is exact if all three colours are among the bands; a missing colour is lost.
    `RGB_NEAREST` divides each colour's filter equally among the bands for which it is the nearest
    colour; a colour without such a band goes to the band nearest to it. Gray is exact for any
    bands. Both rules equal `MEAN` for Sentinel-1, which has no colours.
    `MEAN` gives every band (R + G + B) / C. Gray is exact for any bands.
    `TIMM` cycles R, G, B over the channels, times 3 / C: spectrally wrong for Sentinel-2, whose
    blue gets the green filter; kept for comparison. Gray is exact only if 3 divides C.
    """

    RANDOM = "random"
    RGB_MATCHED = "rgb-matched"
    RGB_NEAREST = "rgb-nearest"
    MEAN = "mean"
    TIMM = "timm"


_COLOURS: Final = ("R", "G", "B")
_COLOUR_OF: Final = {"B04": 0, "B03": 1, "B02": 2, "R": 0, "G": 1, "B": 2}
# Above this wavelength reflected sunlight is negligible; such bands are radar.
_LONGEST_OPTICAL_NM: Final = 1e5


def colour_shares(bands: Sequence[str], rule: InputInit) -> Tensor:
    """Return the share of each colour's filter for each band: float32 (3, C), rows R, G, B.

    Args:
        bands: Canonical names in input order.
        rule: Any rule that copies.

    Raises:
        WeightsError: If the rule is `RANDOM`, which copies nothing.
    """
    count = len(bands)
    match rule:
        case InputInit.RANDOM:
            raise WeightsError("a random input layer has no share of the RGB filters", found=rule)
        case InputInit.TIMM if count > 1:
            cycle = functional.one_hot(torch.arange(count) % 3, 3).T
            return cycle * (3 / count)
        case InputInit.RGB_MATCHED if any(band in _COLOUR_OF for band in bands):
            own = [[float(_COLOUR_OF.get(band) == colour) for band in bands] for colour in range(3)]
            return torch.tensor(own)
        case InputInit.RGB_NEAREST if any(_is_optical(band) for band in bands):
            return _nearest_shares(bands)
    return torch.full((3, count), 1 / count)


def _is_optical(band: str) -> bool:
    return BANDS[band].wavelength_nm < _LONGEST_OPTICAL_NM


def nearest_colours(bands: Sequence[str]) -> Tensor:
    """Return the index of the colour (R, G, B) nearest to each band in wavelength, int64 (C,)."""
    return _distances(bands).argmin(dim=0)


def colour_bands(bands: Sequence[str]) -> tuple[int, ...] | None:
    """Return the positions of red, green and blue among bands; None if one is missing."""
    at = {_COLOUR_OF[band]: i for i, band in enumerate(bands) if band in _COLOUR_OF}
    return (at[0], at[1], at[2]) if len(at) == 3 else None


def _distances(bands: Sequence[str]) -> Tensor:
    """Return the distance of each band from each colour in nanometres, (3, C)."""
    band_nm = torch.tensor([BANDS[band].wavelength_nm for band in bands])
    colour_nm = torch.tensor([BANDS[colour].wavelength_nm for colour in _COLOURS])
    return (colour_nm[:, None] - band_nm).abs()


def _nearest_shares(bands: Sequence[str]) -> Tensor:
    """Divide each colour among the bands nearest to it; radar bands get nothing."""
    optical = torch.tensor([_is_optical(band) for band in bands])
    mine = functional.one_hot(nearest_colours(bands), 3).T.bool() & optical
    nearest = _distances(bands).where(optical, torch.inf).argmin(dim=1)
    orphan = ~mine.any(dim=1)
    mine[orphan, nearest[orphan]] = True
    return mine / mine.sum(dim=1, keepdim=True)


def adapt_input(
    state: Mapping[str, Tensor],
    bands: Sequence[str],
    rule: InputInit,
    generator: torch.Generator,
    key: str = "patch_embed.proj",
) -> State:
    """Return `state` with an input layer for `bands` in place of the one for red, green, blue.

    Args:
        state: Holds `{key}.weight` (O, 3, k, k) in the order R, G, B, and, unless the layer has
            none, `{key}.bias` (O,).
        bands: Canonical names in input order.
        rule: Rule for the new layer.
        generator: Random generator for `RANDOM`.
        key: Name of the layer.

    Raises:
        WeightsError: If the layer is missing, or not for three channels.
    """
    rgb, bias = _input_layer(state, key)
    if rgb.shape[1] != 3:
        raise WeightsError(
            "the input layer to adapt must be for red, green and blue",
            found=f"{rgb.shape[1]} channels",
            expected="3 channels",
            where=f"{key}.weight",
            remedy="start from RGB weights, or continue with the bands the weights are for",
        )
    if rule is InputInit.RANDOM:
        weight, bias = _random_layer(rgb, bias, len(bands), generator)
        return {**state, f"{key}.weight": weight, **_named(f"{key}.bias", bias)}
    shares = colour_shares(bands, rule).to(rgb.device)
    # colour by colour, so that a fully copied filter is bit-identical
    parts = [rgb[:, i, None].float() * shares[i, :, None, None] for i in range(3)]
    return {**state, f"{key}.weight": (parts[0] + parts[1] + parts[2]).to(rgb.dtype)}


def _input_layer(state: Mapping[str, Tensor], key: str) -> tuple[Tensor, Tensor | None]:
    if f"{key}.weight" not in state or state[f"{key}.weight"].ndim != 4:
        raise WeightsError(
            "the weights have no such input layer",
            found=", ".join(list(state)[:6]),
            expected=f"{key}.weight, (O, C, k, k)",
        )
    return state[f"{key}.weight"], state.get(f"{key}.bias")


def _named(name: str, tensor: Tensor | None) -> State:
    return {} if tensor is None else {name: tensor}


def _random_layer(
    like: Tensor, bias: Tensor | None, channels: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Draw U(±1/sqrt(C k²)), torch's default for a convolution and DINOv2's for its input."""
    weight = like.new_empty((like.shape[0], channels, *like.shape[2:]))
    bound = weight[0].numel() ** -0.5
    weight.uniform_(-bound, bound, generator=generator)
    if bias is not None:
        bias = torch.empty_like(bias).uniform_(-bound, bound, generator=generator)
    return weight, bias


def fold_affine(
    state: Mapping[str, Tensor],
    scale: float = 4.0,
    offset: float = -2.0,
    key: str = "patch_embed.proj",
    norm: str | None = None,
) -> State:
    """Return `state` with an input layer for u instead of z = scale * u + offset.

    DINOv2's filters expect roughly unit variance; `two_sigma` pixels are u = (z + 2) / 4, hence
    the defaults. The result is exact without padding, as in a patch embedding. A layer without a
    bias (as in a ResNet) cannot absorb the offset; the batch norm after it does, by its batch
    statistics in training, and by its running mean if `norm` names it.

    Args:
        state: Holds `{key}.weight` (O, C, k, k) and, unless the layer has none, `{key}.bias` (O,).
        scale: Factor from u to z.
        offset: Offset from u to z.
        key: Name of the layer.
        norm: Name of the batch norm after a layer without a bias.

    Raises:
        WeightsError: If the layer is missing.
    """
    weight, _ = _input_layer(state, key)
    shifted = _shift_response(state, offset * weight.sum(dim=(1, 2, 3)), key, norm)
    return {**shifted, f"{key}.weight": weight * scale}


def _shift_response(state: Mapping[str, Tensor], by: Tensor, key: str, norm: str | None) -> State:
    """Add `by` (O,) to the layer's response: to its bias, or by the next norm's running mean."""
    _, bias = _input_layer(state, key)
    mean = f"{norm}.running_mean"
    if bias is not None:
        return {**state, f"{key}.bias": bias + by}
    return {**state, mean: state[mean] - by} if mean in state else dict(state)


def select_input_bands(
    state: Mapping[str, Tensor],
    have: Sequence[str],
    want: Sequence[str],
    key: str = "patch_embed.proj",
    norm: str | None = None,
    held: Mapping[str, float] | None = None,
) -> State:
    """Return `state` with an input layer for the bands `want` instead of `have`.

    Bands keep their filters in the new order. A new band gets zeros and has no effect until it is
    trained. A removed band is treated as constant, and its response is kept, which is exact for
    images in which it had that value everywhere (except where the layer pads with zeros).

    So an encoder for L1C (13 bands) can continue on L2A (12), and vice versa.

    Args:
        state: Holds `{key}.weight` (O, C, k, k) and, unless the layer has none, `{key}.bias` (O,).
        have: Canonical names of the C bands the layer is for.
        want: Canonical names in the new input order.
        key: Name of the layer.
        norm: Name of the batch norm after a layer without a bias.
        held: Normalised value of each removed band, 0 if not given. 0.5 is the mean of a band
            under `two_sigma`, 0 under `zscore`.

    Raises:
        WeightsError: If the layer is not for the bands `have`, or the two share no band.
    """
    weight, _ = _input_layer(state, key)
    if weight.shape[1] != len(have) or not set(have) & set(want):
        raise WeightsError(
            "the input layer cannot be brought to these bands",
            found=f"{weight.shape[1]} channels, said to be {' '.join(have)}",
            expected=f"one channel per band, and some of {' '.join(want)}",
            where=f"{key}.weight",
        )
    new = weight.new_zeros((weight.shape[0], len(want), *weight.shape[2:]))
    for channel, band in enumerate(want):
        if band in have:
            new[:, channel] = weight[:, have.index(band)]
    out: State = {**state, f"{key}.weight": new}
    if set(have) <= set(want):
        return out
    values = {} if held is None else held
    gone = [(c, values.get(band, 0.0)) for c, band in enumerate(have) if band not in want]
    lost = torch.stack([value * weight[:, c].sum(dim=(1, 2)) for c, value in gone]).sum(dim=0)
    return _shift_response(out, lost, key, norm)


# ----------------------------------------------------------------------- position embedding


class PositionRecipe(StrEnum):
    """Interpolation of a table of position embeddings to another grid; results differ.

    `DINOV2` is DINOv2's interpolation at run time: for models without registers bicubic by the
    scale factor (target + 0.1) / source, without antialiasing; for models with registers as `TIMM`.
    `TIMM` is bicubic by size with antialiasing.
    """

    DINOV2 = "dinov2"
    TIMM = "timm"


def resize_position_embedding(
    state: Mapping[str, Tensor],
    grid: tuple[int, int],
    recipe: PositionRecipe,
    key: str = "pos_embed",
    prefix: int = 1,
    *,
    registers: bool = False,
) -> State:
    """Return `state` with its position table interpolated from a square grid to `grid`.

    Args:
        state: Holds `key`, (1, prefix + P, D) with P a square number: 37 x 37 for DINOv2.
        grid: Target rows and columns of patches.
        recipe: Method of interpolation.
        key: Name of the table.
        prefix: Entries before the patches: 1 for a CLS token (DINOv2, also with registers), 0
            if no such token has a position (timm's DINOv2 with registers).
        registers: The model has registers.

    Raises:
        WeightsError: If there is no table, or its grid is not square.
    """
    if key not in state or state[key].ndim != 3:
        raise WeightsError("the weights have no position table", expected=f"{key}: (1, 1 + P, D)")
    patches = state[key].shape[1] - prefix
    side = round(max(patches, 0) ** 0.5)
    if side * side != patches or patches < 1:
        raise WeightsError(
            f"the position table is not that of a square grid with {prefix} entries before it",
            found=tuple(state[key].shape),
            expected=f"(1, {prefix} + n², D)",
            where=key,
        )
    table = resample_positions(state[key], (side, side), grid, recipe, prefix, registers=registers)
    return {**state, key: table}


def resample_positions(
    table: Tensor,
    source: tuple[int, int],
    target: tuple[int, int],
    recipe: PositionRecipe,
    prefix: int = 1,
    *,
    registers: bool = False,
) -> Tensor:
    """Interpolate the patch part of a position table in float32; entries before it are kept.

    Args:
        table: (1, prefix + P, D), patches by row.
        source: Rows and columns of the table.
        target: Target rows and columns.
        recipe: Method of interpolation.
        prefix: Entries before the patches.
        registers: The model has registers.

    Returns:
        (1, prefix + P', D); the table itself if the grids are equal.
    """
    if source == target:
        return table
    field = table[:, prefix:].float().reshape(1, *source, -1).permute(0, 3, 1, 2)
    if recipe is PositionRecipe.TIMM or registers:
        field = functional.interpolate(field, size=target, mode="bicubic", antialias=True)
    else:
        factors = [(t + 0.1) / s for t, s in zip(target, source, strict=True)]
        field = functional.interpolate(field, scale_factor=factors, mode="bicubic")
    patches = field.permute(0, 2, 3, 1).reshape(1, target[0] * target[1], -1)
    return torch.cat([table[:, :prefix], patches.to(table.dtype)], dim=1)
