"""One trunk for several sensors, with separate input layers and all other layers shared.

    both = share_trunk({"s2-l1c": optical, "s1-grd": radar})
    both(pixels)                        # 13 bands go through one input layer, 2 through the other
    both.trunks["s1-grd"]               # a normal trunk, which can be exported

Every trunk is complete; blocks, positions and CLS token are the same tensors in memory. So each can
be exported with its recipe, and a deep copy of the joint trunk stays shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from eofm.contract.recipe import Pooling
from eofm.errors import ConfigError, MismatchKind, SpecMismatch
from eofm.networks.trunk import Trunk

__all__ = ["JointTrunk", "share_trunk"]


@final
class JointTrunk(nn.Module):
    """Trunks that share all but their input layers; the number of bands selects the trunk.

    Batch norms are shared too: before a sensor's trunk is used alone, their statistics are computed
    from its images (`eofm.networks.state.refresh_batch_norms`).

    Args:
        trunks: Name of a sensor -> its trunk; `share_trunk` makes them share.

    Raises:
        ConfigError: If there are fewer than two trunks, or they have the same number of bands or
            differ in width, patches or pooling.
    """

    def __init__(self, trunks: Mapping[str, Trunk]) -> None:
        super().__init__()
        _check(trunks)
        self.trunks = nn.ModuleDict(trunks)
        self._of_bands = {trunk.channels: name for name, trunk in trunks.items()}
        first = next(iter(trunks.values()))
        self._dim, self._tokens, self._block = first.dim, first.tokens, first.block
        self._drops_tokens = first.drops_tokens
        self._grid, self._prefix, self._pooling = first.grid, first.prefix, first.pooling

    @property
    def dim(self) -> int:
        """Width of the embedding, D."""
        return self._dim

    @property
    def tokens(self) -> int:
        """Number of patches, P."""
        return self._tokens

    @property
    def block(self) -> int:
        """Side of a patch in pixels."""
        return self._block

    @property
    def drops_tokens(self) -> bool:
        """Whether `keep` is supported."""
        return self._drops_tokens

    @property
    def channels(self) -> tuple[int, ...]:
        """Bands of each sensor, in their order."""
        return tuple(self._of_bands)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self._grid

    @property
    def prefix(self) -> int:
        """Tokens before the patches in `forward_features`."""
        return self._prefix

    @property
    def pooling(self) -> Pooling:
        """What `forward` returns: the CLS token, or the mean over the patches."""
        return self._pooling

    def of(self, name: str) -> Trunk:
        """Return the trunk of a sensor.

        Raises:
            ConfigError: If there is no sensor of that name.
        """
        if name not in self.trunks:
            raise ConfigError(
                "the network has no input layer for this sensor",
                found=name,
                expected=", ".join(self.trunks),
            )
        trunk: Trunk = self.trunks[name]  # type: ignore[assignment]
        return trunk

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return one vector per image, (B, D).

        Args:
            pixels: (B, C, H, W), normalised for the trunk of the sensor with C bands.
            keep: int64 (B, K), the patches to see; all of them if None.

        Raises:
            SpecMismatch: If no sensor has that number of bands, or the trunk refuses the size.
        """
        vectors: Tensor = self._taker(pixels)(pixels, keep)
        return vectors

    def forward_features(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens after the final norm, (B, prefix + P, D): see `Trunk.forward_features`.

        Args:
            pixels: (B, C, H, W), normalised for the trunk of the sensor with C bands.
            keep: int64 (B, K), the patches to see; all of them if None.

        Raises:
            SpecMismatch: If no sensor has that number of bands, or the trunk refuses the size.
        """
        return self._taker(pixels).forward_features(pixels, keep)

    def _taker(self, pixels: Tensor) -> Trunk:
        """Return the trunk with the number of bands of the pixels.

        Raises:
            SpecMismatch: If there is no such trunk.
        """
        if pixels.ndim != 4 or pixels.shape[1] not in self._of_bands:
            raise SpecMismatch(
                MismatchKind.BANDS,
                "no input layer takes this number of bands",
                found=f"pixels of shape {tuple(pixels.shape)}",
                expected=", ".join(f"{c} ({name})" for c, name in self._of_bands.items()),
            )
        return self.of(self._of_bands[pixels.shape[1]])


def _check(trunks: Mapping[str, Trunk]) -> None:
    bands = [trunk.channels for trunk in trunks.values()]
    if len(set(bands)) < max(len(bands), 2):
        raise ConfigError(
            "a joint network tells its sensors apart by their number of bands",
            found=", ".join(f"{name}: {trunk.channels}" for name, trunk in trunks.items()),
            expected="two sensors or more, each with another number",
        )
    kinds = {(trunk.dim, trunk.grid, trunk.pooling) for trunk in trunks.values()}
    if len(kinds) > 1:
        raise ConfigError(
            "the trunks of a joint network are of one kind",
            found="; ".join(sorted(map(str, kinds))),
            expected="equal width, patches and pooling",
        )


def share_trunk(trunks: Mapping[str, Trunk]) -> JointTrunk:
    """Make all trunks use the first one's tensors except for input layers, and join them.

    Args:
        trunks: Name of a sensor -> its trunk, all of one architecture; modified in place.

    Raises:
        ConfigError: If they cannot be joined: see `JointTrunk`.
    """
    _check(trunks)
    first, *others = trunks.values()
    for other in others:
        _share(first, other, other.input_layer)
    return JointTrunk(trunks)


def _share(first: nn.Module, other: nn.Module, own: str) -> None:
    """Replace the parts of `other` by those of `first`, except the layer that stays separate."""
    head, _, rest = own.partition(".")
    for name, parameter in list(first.named_parameters(recurse=False)):
        other.register_parameter(name, parameter)
    for name, buffer in list(first.named_buffers(recurse=False)):
        other.register_buffer(name, buffer)
    for name, child in first.named_children():
        if name != head:
            other.add_module(name, child)
        elif rest:
            _share(child, other.get_submodule(name), rest)
