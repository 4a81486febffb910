"""What a key map gives, and the checks that key maps share.

Shapes: as in the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from eofm.errors import WeightsError
from eofm.networks.state import State

# A transformer's LayerScale is built at 1e-5 by DINOv2 and timm; a trained one is far above.
UNTRAINED_GAMMA: Final = 1e-4
_LAYER_SCALE: Final = re.compile(r"\.(ls[12]\.gamma|gamma_[12])$")


@dataclass(frozen=True)
class Mapped:
    """Weights under the names of our networks, and the names of what was deliberately left out."""

    state: State
    dropped: tuple[str, ...]


KeyMap = Callable[[Mapping[str, Tensor]], Mapped]


def check_names(found: Collection[str], expected: Collection[str], what: str, remedy: str) -> None:
    """Raise where names are unknown or missing; all are listed, the first twelve by name.

    Args:
        found: Names in the file that are to be used.
        expected: Names that the network needs.
        what: What the file should have been: "a DINOv2 ViT".
        remedy: What to do about it.

    Raises:
        WeightsError: If the two differ.
    """
    faults = [f"unknown {name}" for name in sorted(set(found) - set(expected))]
    faults += [f"missing {name}" for name in sorted(set(expected) - set(found))]
    if faults:
        more = f"; and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise WeightsError(
            f"these are not the tensors of {what}",
            found="; ".join(faults[:12]) + more,
            expected=f"the {len(expected)} tensors of {what}",
            remedy=remedy,
        )


def check_layer_scale(state: Mapping[str, Tensor]) -> None:
    """Raise where a transformer's LayerScale is still at its initial value.

    Raises:
        WeightsError: If the mean magnitude of a scale is below `UNTRAINED_GAMMA`: such a network
            is nearly the identity, and would train without complaint.
    """
    scales = {key: value for key, value in state.items() if _LAYER_SCALE.search(key)}
    means = {key: value.float().abs().mean().item() for key, value in scales.items()}
    low = [f"{key} = {mean:.1e}" for key, mean in means.items() if not mean > UNTRAINED_GAMMA]
    if low:
        raise WeightsError(
            "LayerScale was not loaded or never trained: the network is nearly an identity",
            found=", ".join(low),
            expected=f"mean |gamma| > {UNTRAINED_GAMMA:g}",
            remedy="use the trained weights, with their LayerScale",
        )
