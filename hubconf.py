"""What torch.hub offers from a clone of this repository, which need not be installed.

    import torch

    encoder = torch.hub.load("path/to/clone", "softcon_vits14_s2", source="local")

The functions are written in `eofm/hub.py`; nothing heavy is imported until one is called.
"""

from eofm.hub import (
    ENTRIES,
    eofm,
    softcon_rn50_s1,
    softcon_rn50_s2,
    softcon_vitb14_s1,
    softcon_vitb14_s2,
    softcon_vits14_s1,
    softcon_vits14_s2,
)

__all__ = [
    "eofm",
    "softcon_rn50_s1",
    "softcon_rn50_s2",
    "softcon_vitb14_s1",
    "softcon_vitb14_s2",
    "softcon_vits14_s1",
    "softcon_vits14_s2",
]

dependencies = ["torch", "timm"]

# every other published network, so that hub finds it by name
globals().update(ENTRIES)
