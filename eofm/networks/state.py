"""The tensors of a network: read from a file, loaded without leaving one over, hashed.

Batch norms remember the mean and variance of what they saw in training. A student that saw images
with hidden parts, or a network that saw two sensors in turn, remembers those of no image that it
will ever be given: before it is used, `refresh_batch_norms` computes them again.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eofm.errors import TrainingError, WeightsError
from eofm.formats.arrays import read_safetensors, read_torch
from eofm.formats.foreign import foreign, in_words

State = dict[str, Tensor]


def read_state(path: Path | str) -> State:
    """Read a plain state dict: `.safetensors`, or a `.pth` without code in it.

    Raises:
        WeightsError: If the file is missing, damaged, a web page, holds pickled code, or holds
            something else than named tensors.
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


# What torch.compile and DataParallel/DistributedDataParallel put before every name.
_WRAPPERS: Final = ("_orig_mod.", "module.")


def _unwrapped(state: State) -> State:
    """Return tensors without the prefix of a wrapper that all of them carry."""
    for wrapper in _WRAPPERS * 2:  # each may be around the other
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def _ungrouped(content: Mapping[object, object]) -> Mapping[object, object]:
    """Return a file of nothing but state dicts (CROMA's five) as one, with their names in front."""
    groups = {name: part for name, part in content.items() if isinstance(part, Mapping)}
    if not groups or len(groups) < len(content):
        return content
    return {f"{name}.{key}": value for name, part in groups.items() for key, value in part.items()}


def load_strict(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load every tensor of `state` into `module`, and fill every tensor of `module`.

    Args:
        module: Receives the tensors.
        state: Named tensors.
        where: File or card, for the message.

    Raises:
        WeightsError: If a name is missing or foreign, or a shape differs; all are listed.
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
    """Whether the network remembers statistics of batches."""
    return bool(_batch_norms(network))


@torch.no_grad()
def refresh_batch_norms(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace what the batch norms remember by the average over these batches.

    Each batch counts alike, so they should be of one size. Nothing but the statistics changes, and
    the network is left in the mode, evaluation or training, that it was in.

    Args:
        network: A network without batch norm is left alone.
        batches: Pixels as the network takes them, (B, C, H, W), normalised.

    Returns:
        How many batches were used; 0 where there is no batch norm.

    Raises:
        TrainingError: If there is no batch.
    """
    norms = _batch_norms(network)
    if not norms:
        return 0
    modes = {module: module.training for module in network.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the plain average over all batches
    network.eval()  # no dropout, no drop path: only the batch norms look at their batch
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
