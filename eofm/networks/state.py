"""Read named tensors from a file, and load them into a network without leaving one over."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from eofm.errors import WeightsError
from eofm.formats.foreign import foreign, in_words
from eofm.formats.tensors import read_safetensors, read_torch

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
