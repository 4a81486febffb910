"""Two processes with half of the batch each are one with all of it, invalid pixels unevenly."""

from __future__ import annotations

import pytest
import torch
from term_ranks import TERMS, run, work
from torch import multiprocessing


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each of two processes made of all terms."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, args=(2, folder), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TERMS))
def test_two_processes_are_one(name, two):
    """Error, floor and every gradient to 1e-5, though one process has far fewer valid pixels."""
    alone = run(name, 0, 1)

    for rank in two:
        assert alone.keys() == rank[name].keys()
        for key, value in alone.items():
            torch.testing.assert_close(rank[name][key], value, rtol=1e-4, atol=1e-5, msg=key)
    gradients = [value for key, value in alone.items() if "decoders" in key]
    assert max(each.abs().max().item() for each in gradients) > 1e-3
