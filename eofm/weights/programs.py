"""Export an encoder as a program that runs without eofm: torch.export (`.pt2`) and ONNX.

The graph is traced once, at the recipe's size with any number of images, and both files are
generated from it. Each file is read back and compared with the network; a difference is an
error.

Shapes: B images, C bands, H by W pixels, D width.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from eofm.contract.preprocess import normalize
from eofm.contract.recipe import Recipe, ResizeOrder
from eofm.contract.spec import Normalization
from eofm.errors import WeightsError
from eofm.networks.trunk import Trunk
from eofm.weights.encoder import Encoder, sha256

__all__ = [
    "INPUT",
    "ONNX_PACKAGES",
    "OUTPUT",
    "TOLERANCE",
    "Graph",
    "Program",
    "ProgramFormat",
    "ProgramInput",
    "check_onnx_packages",
    "graph_of",
    "trace",
    "write_program",
]

INPUT: Final = "pixels"
OUTPUT: Final = "embedding"
ONNX_PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")

# Of the largest value of the embedding: float32 sums of some hundred terms in another order.
TOLERANCE: Final = 1e-4
_BATCHES: Final = (1, 3)
_TRACED_BATCH: Final = 2
_ONNX_LIMIT: Final = 2**31 - 2**24  # bytes; protobuf uses signed 32-bit sizes


class ProgramFormat(StrEnum):
    """File format with network and weights."""

    PT2 = "pt2"
    ONNX = "onnx"


class ProgramInput(StrEnum):
    """Input of a program: normalised pixels, or pixels in the recipe's unit at its size."""

    NORMALISED = "normalised"
    PHYSICAL = "physical"


@dataclass(frozen=True)
class Program:
    """A program on disk.

    Args:
        file: Its file name.
        input: Kind of input.
        sha256: Hash of the file.
        max_abs_diff: Largest observed difference from the network.
        tolerance: Largest accepted difference.
        batches: Numbers of images it was compared on.
    """

    file: str
    input: ProgramInput
    sha256: str
    max_abs_diff: float
    tolerance: float
    batches: tuple[int, ...] = _BATCHES


@final
class Graph(nn.Module):
    """Traced module: the network, preceded by the normalisation if that is included.

    Args:
        trunk: The network.
        normalization: Normalisation to apply to the pixels first, or None.
    """

    def __init__(self, trunk: Trunk, normalization: Normalization | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.normalization = normalization

    def forward(self, pixels: Tensor) -> Tensor:
        """Return one vector per image, (B, D), for pixels (B, C, H, W)."""
        if self.normalization is not None:
            pixels = normalize(pixels, self.normalization)
        vectors: Tensor = self.trunk(pixels)
        return vectors


def graph_of(encoder: Encoder, takes: ProgramInput) -> Graph:
    """Return the graph of an encoder: a copy in float32 on the CPU, in evaluation mode.

    Raises:
        WeightsError: If the normalisation is to be included, but precedes the resizing.
    """
    recipe = encoder.recipe
    inside = takes is ProgramInput.PHYSICAL
    if inside and recipe.resize.order is ResizeOrder.AFTER_NORMALIZATION:
        raise WeightsError(
            "this recipe normalises before it resizes, so a program cannot begin with it",
            found=takes,
            expected=ProgramInput.NORMALISED,
            where=encoder.card.name,
        )
    trunk = copy.deepcopy(encoder.trunk).cpu().float().eval().requires_grad_(requires_grad=False)
    return Graph(trunk, recipe.normalization if inside else None).eval()


def trace(graph: Graph, recipe: Recipe) -> ExportedProgram:
    """Return the traced graph for any number of images of the recipe's size."""
    example = _examples(recipe, graph.normalization, _TRACED_BATCH)
    program = torch.export.export(graph, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    program.example_inputs = None  # they would be written into the file
    return program


def write_program(
    form: ProgramFormat, traced: ExportedProgram, graph: Graph, recipe: Recipe, path: Path
) -> Program:
    """Write a program, read it back, and compare it with the network.

    Args:
        form: Format of the file.
        traced: The traced graph.
        graph: The graph itself, to compare with.
        recipe: Recipe of the network.
        path: The file; should be temporary, as it is not removed if it differs.

    Raises:
        WeightsError: If it differs from the network, or ONNX cannot represent it.
    """
    if form is ProgramFormat.PT2:
        torch.export.save(traced, path)
        run = _run_pt2(path)
    else:
        _save_onnx(traced, recipe, path)
        run = _run_onnx(path)
    difference, tolerance = _compare(run, graph, recipe)
    if not difference <= tolerance:
        raise WeightsError(
            f"the {form} program does not agree with the network",
            found=f"largest difference {difference:.3g}",
            expected=f"at most {tolerance:.3g}",
            where=path.name,
            remedy="nothing was written; try other versions of torch and onnxruntime",
        )
    takes = ProgramInput.NORMALISED if graph.normalization is None else ProgramInput.PHYSICAL
    return Program(f"encoder.{form}", takes, sha256(path.read_bytes()), difference, tolerance)


def check_onnx_packages() -> None:
    """Raise an error if the packages that write and check ONNX are not installed.

    Raises:
        WeightsError: Names the missing packages and the extra that installs them.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise WeightsError(
            "ONNX needs packages that are not installed",
            found=f"no {', no '.join(missing)}",
            expected=", ".join(ONNX_PACKAGES),
            remedy="pip install 'eofm[onnx]'",
        )


def _examples(recipe: Recipe, normalization: Normalization | None, batch: int) -> Tensor:
    """Return noise slightly beyond the usual range of inputs, in the unit of the graph."""
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, len(recipe.bands), *recipe.size)
    low, high = recipe.normalization.clip or (-2.0, 2.0)
    noise = low + (high - low) * torch.rand(shape, generator=generator)
    if normalization is None:
        return noise
    column = (1, -1, 1, 1)
    scale = torch.tensor(normalization.scale).view(column)
    return 1.2 * noise * scale + torch.tensor(normalization.shift).view(column)


@torch.no_grad()
def _compare(run: Callable[[Tensor], Tensor], graph: Graph, recipe: Recipe) -> tuple[float, float]:
    differences, sizes = [], []
    for batch in _BATCHES:
        pixels = _examples(recipe, graph.normalization, batch)
        expected, found = graph(pixels), run(pixels)
        if found.shape != expected.shape:
            return float("inf"), TOLERANCE
        differences.append((found - expected).abs().max())
        sizes.append(expected.abs().max())
    largest = max(1.0, torch.stack(sizes).max().item())
    return torch.stack(differences).max().item(), TOLERANCE * largest  # NaN if one of them is


def _run_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    module = torch.export.load(path).module()

    def run(pixels: Tensor) -> Tensor:
        vectors: Tensor = module(pixels)
        return vectors

    return run


def _save_onnx(traced: ExportedProgram, recipe: Recipe, path: Path) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in traced.state_dict.values())
    if size > _ONNX_LIMIT:
        raise WeightsError(
            "the network is too large for one ONNX file",
            found=f"{size / 1e9:.1f} GB of weights",
            expected="less than 2 GB",
            remedy="export pt2",
        )
    example = torch.zeros(_TRACED_BATCH, len(recipe.bands), *recipe.size)
    program = torch.onnx.export(
        traced,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: "batch"},),
        external_data=False,
        verbose=False,
    )
    assert program is not None  # noqa: S101 (dynamo=True returns one)
    program.save(path, external_data=False)


def _run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        (vectors,) = session.run([OUTPUT], {INPUT: pixels.numpy()})
        return torch.from_numpy(vectors)

    return run
