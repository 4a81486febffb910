"""The README and the pages of the site are run as a reader would type them, block by block.

Everything happens in a folder with synthetic miniatures in true file layout. What would take hours,
a download or an installation has a stand-in here, with its reason.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import doc_files
import matplotlib.pyplot as plt
import pytest
import torch
from doc_blocks import Reader, blocks, commands

from eofm.cli import main
from eofm.contract.recipe import Recipe
from eofm.contract.sensors import SENSOR_BANDS, STATISTICS
from eofm.contract.spec import Normalization, Sensor, Unit
from eofm.weights.encoder import random_encoder, save_encoder

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

# a network of a second instead of one of minutes; nothing else about a run changes
SMALL = (
    "+--model.architecture vit-tiny-14 --model.size 28 --method.hidden 32 --method.dim 16"
    " --optim.epochs 1 --optim.batch 4 --run.threads 1 --trainer.accelerator cpu"
    " --monitor.every_epochs 0 --run.figures false"
)
OWN = f"{SMALL} --data.holdout 0.4"
DEMO = f"{SMALL} --data.scenes 4 --data.size 60"
# the miniature that stands for published weights, which would be fetched, is an untrained network
# of the same input; DINOv2's file is one of that layout
WORDS = {"softcon_vits14_s2": "weights/softcon", "path/to/clone": str(ROOT)}
NOT_RUN = {
    "pip install": "the environment of the tests has it",
    "git clone": "this is the clone",
}


def encoder() -> None:
    """Write an untrained encoder of Level-1C at 28 px to weights/softcon."""
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    statistics = STATISTICS["ssl4eo-s12-l1c"].select(bands)
    norm = Normalization.two_sigma(statistics, levels=255)
    recipe = Recipe(Sensor.S2_L1C, bands, Unit.DN, (56, 56), norm)
    save_encoder(random_encoder("vit-tiny-14", recipe, seed=0), "weights/softcon")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scene, polygons, tiles, maps, chips, a packed store, a run and weights."""
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        doc_files.write_scene(Path())
        doc_files.write_tiles(Path())
        doc_files.write_chips(Path("chips"))
        encoder()
        tiles = "--images S2/ --sensor s2-l1c --unit dn --landcover LULC/ --scheme terramesh"
        pack = f"pack tiles {tiles} --window 112 --stride 56 --out stores/mine"
        assert 0 == main(pack.split())
        train = f"pretrain --data.store stores/mine --run.out runs/mine {OWN[1:]}"
        assert 0 == main(train.split())
    return folder


@pytest.fixture
def desk(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the library to work in."""
    folder = tmp_path / "desk"
    shutil.copytree(library, folder)
    monkeypatch.chdir(folder)
    threads = torch.get_num_threads()
    yield folder
    torch.set_num_threads(threads)
    plt.close("all")


def read(page: Path, reader: Reader) -> list[str]:
    """Run a page; every block of shell or Python that it has must have been met."""
    done = reader.read(page)
    text = page.read_text("utf-8")
    kinds = [b for b in blocks(text) if b.language in {"bash", "python"}]
    lines = sum(len(commands(b.code)) if b.language == "bash" else 1 for b in kinds)
    assert lines == len(done)
    return done


def test_readme(desk: Path) -> None:
    """Every block of the README runs, in order; its two commands are the promised ones."""
    shutil.rmtree(desk / "runs")
    reader = Reader(
        stand_ins=[("pip install -e . && eofm pretrain", f"eofm pretrain {DEMO[1:]}")],
        words=WORDS,
        not_run={
            "pip install torch": "PyTorch's own line; it would replace the torch of the tests",
            "pip install -e '.": NOT_RUN["pip install"],
        },
    )

    read(ROOT / "README.md", reader)

    text = (ROOT / "README.md").read_text("utf-8")
    assert "```bash\npip install -e . && eofm pretrain\n```" in text
    assert "```bash\npip install -e '.[dev]' && pytest\n```" in text
    assert (desk / "maps/fields/map.tif").is_file()
    assert (desk / "explore.html").is_file()
    assert list((desk / "runs").glob("pretrain-*/report.md"))


def test_own_geotiffs(desk: Path) -> None:
    """The tutorial from a folder of GeoTIFFs to an encoder and its score."""
    shutil.rmtree(desk / "runs")
    shutil.rmtree(desk / "stores")
    # a run of one epoch, so that one step of a second is left to resume
    resume = "eofm pretrain --run.out runs/mine --run.resume true"
    reader = Reader(
        stand_ins=[(resume, resume), ("eofm pretrain", f"eofm pretrain {OWN[1:]}")],
        words={"--optim.epochs 20 --optim.batch 16": ""},
    )

    read(DOCS / "tutorials/own-geotiffs.md", reader)

    assert (desk / "runs/mine/report.html").is_file()


def test_scene_to_map(desk: Path) -> None:
    """The tutorial from one GeoTIFF to a map."""
    read(DOCS / "tutorials/scene-to-map.md", Reader(words=WORDS))

    assert (desk / "maps/fields/report.html").is_file()


def test_torch_hub(desk: Path) -> None:
    """The tutorial on torch.hub; the published network is there without its weights."""
    words = {**WORDS, '"softcon_vits14_s2", source="local")': '"softcon_vits14_s2", source="local", pretrained=False)'}
    read(DOCS / "tutorials/torch-hub.md", Reader(words={k: words[k] for k in words if k != "softcon_vits14_s2"}))

    assert (desk / "encoders/mine/encoder.pt2").is_file()
