"""Features of several layers, computed and kept in one pass, for a grid of linear read-outs.

DINOv2's linear evaluation (arXiv 2304.07193, appendix B.3) tries 1 or 4 layers, with the CLS token
alone or with the mean of the patch tokens beside it. All four are columns of one matrix.

Shapes: B images, N of a split, D width, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from eofm.bench.features import EncoderSource, FeatureSource, Identity
from eofm.bench.models import Candidate
from eofm.bench.network import NetworkSource
from eofm.bench.trainee import Trainee, check_evaluating, columns_of, last_layers, readouts_of
from eofm.contract.imagery import Imagery
from eofm.contract.spec import ImageSpec
from eofm.errors import ConfigError
from eofm.networks.trunk import Trunk
from eofm.probes.linear import Scaling


@final
class LayeredSource:
    """The last layers of an encoder, frozen.

    Args:
        source: The encoder.
    """

    scaling = Scaling.NONE

    def __init__(self, source: EncoderSource) -> None:
        self.name = source.name
        self._source = source
        self.trainee: Trainee = source.trainee

    @property
    def trunk(self) -> Trunk:
        """The network."""
        assert self.trainee.trunk is not None  # noqa: S101 (an encoder's network is a trunk)
        return self.trainee.trunk

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self._source.network

    def identity(self, spec: ImageSpec) -> Identity:
        """Return what the encoder is.

        Raises:
            SpecMismatch: If it cannot take such images.
        """
        return self._source.identity(spec)

    @torch.no_grad()
    def embed(self, imagery: Imagery) -> Tensor:
        """Return `eofm.bench.trainee.last_layers`: float32 (B, W), on the CPU.

        Raises:
            WeightsError: If a part of the network is in training mode.
        """
        trunk, device = self.trunk, self.trainee.device
        check_evaluating(trunk, self.name, "call .eval() before you hand it over")
        weight = next(trunk.parameters())
        pixels = self.trainee.pixels(imagery.to(device)).to(weight.dtype)
        return last_layers(trunk, pixels).float().cpu()

    def check_frozen(self) -> None:
        """Raise if the encoder has changed.

        Raises:
            WeightsError: If so.
        """
        self._source.check_frozen()


def layered_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates to be read by layer; controls without a network are left out.

    Raises:
        ConfigError: If a network of the user's own is among them, which shows no layers, or if
            nothing is left.
    """
    found = []
    for candidate in candidates:
        check_layers(candidate)
        parts = [part for part in candidate.parts if isinstance(part, EncoderSource)]
        if len(parts) == len(candidate.parts):
            layered: tuple[FeatureSource, ...] = tuple(map(LayeredSource, parts))
            found.append(Candidate(candidate.name, layered, candidate.of))
    if not found:
        raise nothing_to_read(candidates)
    return found


def nothing_to_read(candidates: Sequence[Candidate]) -> ConfigError:
    """Return what is said where a probe needs a network and no candidate has one."""
    return ConfigError(
        "this probe needs a network, and no model here has one",
        found=", ".join(candidate.name for candidate in candidates),
        where="--probe",
        remedy="name an encoder with --model",
    )


def check_layers(candidate: Candidate) -> None:
    """Refuse a network of which only the embedding can be read.

    Raises:
        ConfigError: If one of the candidate's is of that kind.
    """
    for part in candidate.parts:
        if isinstance(part, NetworkSource) and part.trainee is not None:
            raise ConfigError(
                "this probe reads layers, and a network of your own shows its embedding only",
                found=candidate.name,
                where="--probe",
                remedy="leave it out of --model, or return an eofm.Encoder from your function",
            )


def readout_columns(candidate: Candidate) -> Mapping[str, Tensor]:
    """Return which columns of a candidate's features each read-out takes, by its name.

    Args:
        candidate: One of `layered_candidates`. The read-outs are those that all its networks have.
    """
    trunks = [part.trunk for part in candidate.parts if isinstance(part, LayeredSource)]
    shared = [r for r in readouts_of(trunks[0]) if all(r in readouts_of(t) for t in trunks)]
    found: dict[str, Tensor] = {}
    for readout in shared:
        places, start = [], 0
        for trunk in trunks:
            width = _width(trunk)
            places += list(range(start, start + width)[columns_of(trunk, width)[readout]])
            start += width
        found[readout.name] = torch.tensor(places)
    return found


@torch.no_grad()
def _width(trunk: Trunk) -> int:
    weight = next(trunk.parameters())
    return last_layers(trunk, weight.new_zeros(1, trunk.channels, *trunk.size)).shape[1]
