"""torch.hub: from a copy that is not installed, with torch and timm only, and no network."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import eofm.hub
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import Recipe
from eofm.contract.spec import STATISTICS, ImageSpec, Normalization, Sensor, Unit
from eofm.errors import WeightsError
from eofm.weights.cards import WEIGHTS
from eofm.weights.encoder import random_encoder, save_encoder
from eofm.weights.load import load_weights

REPOSITORY = Path(__file__).parent.parent
SIX = [f"softcon_{net}_{s}" for s in ("s2", "s1") for net in ("rn50", "vits14", "vitb14")]
RADAR = ImageSpec(Sensor.S1_GRD, ("VH", "VV"), Unit.DB, None, 10.0)

# What a machine with torch, torchvision and timm lacks. PyYAML is there: timm's hub needs it.
ABSENT = [
    "rasterio",
    "rioxarray",
    "xarray",
    "torchgeo",
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
    "kornia",
    "torchmetrics",
    "jaxtyping",
    "lightly",
    "jsonargparse",
    "rich",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "pandas",
    "scipy",
    "onnx",
    "onnxscript",
    "onnxruntime",
]

PRELUDE = """
import json, socket, sys
sys.path[:0] = {packages!r}  # without its .pth files: an editable eofm is not seen
absent = {absent!r}
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent: return None
        return self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
def refuse(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and hubconf.py, as `git clone` gives them but compiled, under another name."""
    folder = tmp_path_factory.mktemp("clone") / "somewhere"
    shutil.copytree(REPOSITORY / "eofm", folder / "eofm")
    shutil.copy(REPOSITORY / "hubconf.py", folder)
    return folder


def run(code: str, folder: Path, *, without: tuple[str, ...] = ()) -> str:
    """What a fresh interpreter prints that has torch and timm, and nothing of this project."""
    prelude = PRELUDE.format(packages=site.getsitepackages(), absent=[*ABSENT, *without])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", prelude + code],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert 0 == done.returncode, done.stderr[-3000:]
    return done.stdout


def published_file(name: str, folder: Path) -> Path:
    """A file with the keys and shapes of a published one, and random values."""
    card = WEIGHTS[name]
    state = random_encoder(card.architecture, card.recipe, seed=3).trunk.state_dict()
    if "vit" in name:
        state = {"mask_token": torch.zeros(1, state["cls_token"].shape[2]), **state}
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / card.filename)
    return folder / card.filename


def backscatter() -> np.ndarray:
    """Two fractional radar images in dB, one of them with holes, VH first."""
    pixels = np.random.default_rng(5).normal(-15, 4, (2, 2, 100, 100))
    pixels[1, 0, :7, :9] = -np.inf
    return pixels


@pytest.mark.slow
def test_hub_from_a_clone(clone: Path, tmp_path: Path) -> None:
    """List, help, load by path, preprocess, embed: the vectors are those of `load_weights`.

    The file lies where no clone is, no network is there, and neither is any library that only
    other parts of eofm need. The same process compiles, pickles and halves the module.
    """
    name = "softcon_vits14_s1"
    path = published_file(name, tmp_path / "weights")
    np.save(tmp_path / "db.npy", backscatter())
    code = f"""
import copy, importlib.util, pickle, numpy as np, torch
repo, path = {str(clone)!r}, {str(path)!r}
sys.path.insert(0, repo)  # hub's list() and help() know GitHub only; this is what they do
spec = importlib.util.spec_from_file_location("hubconf", repo + "/hubconf.py")
hubconf = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hubconf)
listed = [n for n, f in vars(hubconf).items() if callable(f) and n[0] != "_"]
early = [m for m in ("timm", "torchvision") if m in sys.modules]
words = hubconf.{name}.__doc__
sys.path.remove(repo)
encoder = torch.hub.load(repo, {name!r}, source="local", weights=path, check_hash=False)
import eofm
assert eofm.__file__.startswith(repo), eofm.__file__
spec = eofm.ImageSpec(eofm.Sensor("s1-grd"), ("VH", "VV"), eofm.Unit("db"), None, 10.0)
pixels = encoder.preprocess(np.load({str(tmp_path / "db.npy")!r}), spec)
with torch.no_grad():
    vectors = encoder(pixels)
    same = [torch.equal(vectors, other(pixels)) for other in (
        copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)))]
    half = encoder.half().preprocess(np.load({str(tmp_path / "db.npy")!r}), spec)
torch.save(vectors, {str(tmp_path / "vectors.pt")!r})
foreign = [m for m in absent if m in sys.modules] + early
print(json.dumps([listed, words, same, str(half.dtype), type(encoder).__name__, foreign]))
"""
    listed, words, same, half, kind, foreign = json.loads(run(code, tmp_path).splitlines()[-1])

    encoder = load_weights(path, card=name, check_hash=False)
    imagery = torch.from_numpy(backscatter()).float()
    valid = torch.isfinite(imagery).all(1)
    expected = encoder.embed(
        Imagery(imagery.nan_to_num(neginf=0.0), replace(RADAR, size=(100, 100)), valid)
    )
    assert torch.equal(expected, torch.load(tmp_path / "vectors.pt"))
    assert {"eofm", *SIX} <= set(listed)
    assert {n for n, c in WEIGHTS.items() if not c.layout.needs_torchgeo} | {"eofm"} == set(listed)
    assert "Sentinel-1" in words
    assert [True, True] == same
    assert ("torch.float16", "Encoder", []) == (half, kind, foreign)


@pytest.mark.slow
def test_an_export_loads_through_hub(clone: Path, tmp_path: Path) -> None:
    """`eofm(weights=FOLDER)` gives the exported encoder, and paths may be relative.

    The same process asks for published weights that are not here, offline: one error, with the
    name of the file to bring.
    """
    statistics = STATISTICS["ssl4eo-s12-grd"]
    norm = Normalization.two_sigma(statistics.mean, statistics.std, statistics.source)
    recipe = Recipe(statistics.sensor, statistics.bands, Unit.DB, (28, 28), norm)
    encoder = random_encoder("vit-tiny-14", recipe, seed=1)
    save_encoder(encoder, clone.parent / "mine")
    code = f"""
import torch
encoder = torch.hub.load("somewhere", "eofm", source="local", weights="mine")
torch.save(encoder(torch.ones(1, 2, 28, 28)).detach(), {str(tmp_path / "v.pt")!r})
import os, eofm.weights.catalogue  # a module not imported yet is still found
os.environ |= {{"EOFM_OFFLINE": "1", "EOFM_WEIGHTS": {str(tmp_path)!r}}}
try: torch.hub.load("somewhere", "softcon_vits14_s1", source="local", progress=False)
except Exception as error: print(type(error).__name__, error)
"""
    said = run(code, clone.parent)

    with torch.no_grad():
        expected = encoder(torch.ones(1, 2, 28, 28))
    assert torch.equal(expected, torch.load(tmp_path / "v.pt"))
    assert "WeightsError" in said
    assert "B2_vits14_softcon.pth" in said


@pytest.mark.slow
def test_a_missing_dependency_is_named(clone: Path, tmp_path: Path) -> None:
    """Without timm, hub itself says so: reading hubconf.py imports neither timm nor torchvision."""
    code = f"""
import torch
try: torch.hub.load({str(clone)!r}, "softcon_vits14_s1", source="local")
except RuntimeError as error: print(error)
"""
    assert "Missing dependencies: timm" in run(code, tmp_path, without=("timm",))


# ---------------------------------------------------------------- the functions themselves


def test_random_weights_follow_the_global_seed() -> None:
    """`pretrained=False` gives the recipe of the published weights, and asks for no file."""
    torch.manual_seed(1)
    one, other = (eofm.hub.softcon_vits14_s1(pretrained=False) for _ in range(2))
    torch.manual_seed(1)
    again = eofm.hub.eofm(weights="softcon_vits14_s1", pretrained=False)

    assert WEIGHTS["softcon_vits14_s1"].recipe == one.recipe == other.recipe
    assert one.card.sha256 == again.card.sha256 != other.card.sha256
    assert "random" in one.card.source


def test_every_network_has_one_function() -> None:
    """Six functions are written out, the others made from the table; each says what it is."""
    written = [vars(eofm.hub)[name] for name in SIX]
    for function in (*written, *eofm.hub.ENTRIES.values()):
        assert WEIGHTS[function.__name__]
        assert len(function.__doc__ or "") > 40
    assert not set(SIX) & set(eofm.hub.ENTRIES)


@pytest.mark.parametrize("name", SIX)
def test_the_written_functions_are_for_their_own_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each passes its own name on, and the arguments as they are given."""
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        eofm.hub, "_load", lambda *a, **k: seen.append((*a, *k.values())) or load_nothing()
    )
    with pytest.raises(NotImplementedError):
        vars(eofm.hub)[name](check_hash=False, progress=False)
    with pytest.raises(NotImplementedError):
        vars(eofm.hub)[name](weights="/there/file.pth")

    assert [(name, None, False, False), ("/there/file.pth", name, True, True)] == seen


def load_nothing() -> None:
    """End a call that would load."""
    raise NotImplementedError


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """An export under the name of a published network, and random weights from a file."""
    recipe = WEIGHTS["softcon_vits14_s1"].recipe
    save_encoder(random_encoder("vit-tiny-14", recipe, seed=1), tmp_path)

    with pytest.raises(WeightsError, match="for another network"):
        eofm.hub.softcon_vits14_s1(weights=str(tmp_path))
    with pytest.raises(WeightsError, match="from no file"):
        eofm.hub.softcon_vits14_s1(pretrained=False, weights=str(tmp_path))
    with pytest.raises(WeightsError, match="softcon_vits14_s1"):
        eofm.hub.eofm(weights="softcon_vits14_s", pretrained=False)
