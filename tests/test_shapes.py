"""The shapes of tensors stand in the signatures of the method, the probes and the contract."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import jaxtyping
import pytest
import shape_checker
import torch

import eofm
from eofm.contract.preprocess import Kernel, convert_unit, resize
from eofm.contract.spec import Unit
from eofm.contract.validity import coarse_mask
from eofm.probes.features import effective_rank, scale
from eofm.probes.knn import knn_scores
from eofm.probes.logistic import Eigenbasis, Loss, fit_logistic

PACKAGE = Path(eofm.__file__).parent
FOLDERS = ("method", "probes", "contract")
NAMES = {"Bool", "Float", "Float32", "Float64", "Int", "Int64", "Integer", "Num", "Real", "Shaped"}
SOURCES = ("jaxtyping", "eofm.contract.shapes")  # of those names

# Arguments that take a tensor of any shape, or an index of any kind.
ANY = {
    "contract/imagery.py": {"__getitem__", "_each"},
    "contract/prepare.py": {"_check_order", "_masked", "_numbers"},
    "method/similarity.py": {"_at_least_single"},
    "method/branches.py": {"in_chunks", "_run"},
    "probes/linear.py": {"attempt", "_ahead", "accuracy", "micro"},
}


def bare(annotation: ast.expr | None) -> bool:
    """Whether a tensor without a shape is part of an annotation; functions as values may be.

    >>> bare(ast.parse("Tensor | None", mode="eval").body)
    True
    >>> bare(ast.parse('Float[Tensor, "b n"] | None', mode="eval").body)
    False
    """
    if annotation is None:
        return False
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in {
        *NAMES,
        "Callable",
    }:
        return False
    if isinstance(annotation, ast.Name):
        return annotation.id == "Tensor"
    return any(bare(child) for child in ast.iter_child_nodes(annotation) if _is_type(child))


def _is_type(node: ast.AST) -> bool:
    return isinstance(node, ast.expr)


def without_shape(source: str) -> set[str]:
    """The functions of a file that take or give a tensor whose shape is not said."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            hints = [each.annotation for each in arguments] + [node.returns]
            if any(map(bare, hints)):
                found.add(node.name)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_tensor_in_a_signature_has_a_shape(folder: str) -> None:
    """A reader need not look for it, and tests check it; the exceptions take any shape."""
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        assert set() == without_shape(path.read_text()) - ANY.get(name, set()), name


def test_a_tensor_without_shape_is_seen() -> None:
    """Also as a part of what a function gives."""
    source = 'def f(x: Tensor | None): ...\ndef g(y: Float[Tensor, "n"]) -> tuple[Tensor, int]: ...'

    assert {"f", "g"} == without_shape(source)


def test_the_shapes_are_checked_while_tests_run() -> None:
    """Every file with shapes is read by the hook, but those whose types are not there at run time.

    `Imagery` and `prepare` name types of xarray and matplotlib, which are not imported with them;
    `shapes` has no signatures.
    """
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    (option,) = [
        word
        for word in settings["tool"]["pytest"]["ini_options"]["addopts"]
        if word.startswith("--jaxtyping-packages=")
    ]
    hooked = option.partition("=")[2].split(",")[:-1]
    for path in (p for folder in FOLDERS for p in sorted((PACKAGE / folder).rglob("*.py"))):
        module = ".".join(["eofm", *path.relative_to(PACKAGE).with_suffix("").parts])
        shaped = any(f"from {name} import" in path.read_text() for name in SOURCES)
        if shaped and module not in {"eofm.contract.imagery", "eofm.contract.shapes"}:
            assert any(f"{module}.".startswith(f"{name}.") for name in hooked), module


def test_wrong_shapes_are_noticed() -> None:
    """Where torch would broadcast, or fail far from the fault, the signature says no."""
    x, y = torch.rand(6, 3).double(), torch.arange(6) % 2
    for call in (
        lambda: knn_scores(x, y[:5], x, k=1),
        lambda: effective_rank(x[0]),
        lambda: scale(x, "none", x[:, :2]),  # type: ignore[arg-type]
        lambda: fit_logistic(Eigenbasis.of(x), y.double(), Loss.SOFTMAX, 1.0),  # type: ignore[arg-type]
        lambda: resize(x, (2, 2), Kernel.BILINEAR, antialias=False),
        lambda: coarse_mask(x, (2, 2)),
        lambda: convert_unit(y, Unit.DN, Unit.DN),
    ):
        with pytest.raises(jaxtyping.TypeCheckError):
            call()


def test_first_calls_are_checked_and_all_of_them_on_demand() -> None:
    """A wrong shape after many right calls is passed by, but not where every call is checked."""
    right, wrong = torch.ones(1, 4, 4, dtype=torch.bool), torch.rand(3, 3)
    for every_call in (True, False, False):
        shape_checker.start_test(every_call=every_call)
        with pytest.raises(jaxtyping.TypeCheckError):
            coarse_mask(wrong, (3, 3))
        for _ in range(shape_checker.FIRST_CALLS):
            coarse_mask(right, (4, 4))
        if every_call:
            with pytest.raises(jaxtyping.TypeCheckError):
                coarse_mask(wrong, (3, 3))
        else:
            assert wrong is coarse_mask(wrong, (3, 3))


def test_right_shapes_are_not() -> None:
    """The same calls with shapes that fit."""
    x, y = torch.rand(6, 3).double(), torch.arange(6) % 2

    assert (6, 2) == tuple(knn_scores(x, y, x, k=1).shape)
    assert effective_rank(x) > 1
    hot = torch.nn.functional.one_hot(y).double()
    assert (2, 4) == tuple(fit_logistic(Eigenbasis.of(x), hot, Loss.SOFTMAX, 1.0).theta.shape)
    pixels = torch.rand(1, 2, 4, 4)
    assert (1, 2, 2, 2) == tuple(resize(pixels, (2, 2), Kernel.BILINEAR, antialias=False).shape)
    assert torch.equal(pixels, convert_unit(pixels, Unit.DN, Unit.DN))
