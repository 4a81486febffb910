"""The README and the pages of the site are run as a reader would type them, block by block.

Everything happens in a folder with synthetic miniatures in true file layout. What would take hours,
a download or an installation has a stand-in here, with its reason.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import doc_files
import matplotlib.pyplot as plt
import pytest
import torch
from doc_blocks import Reader, blocks, commands
from safe_product import write_product

from eofm.cli import main
from eofm.contract.recipe import Recipe
from eofm.contract.spec import SENSOR_BANDS, STATISTICS, Normalization, Sensor, Unit
from eofm.networks.vit import build_vit
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
PRODUCT = "S2A_MSIL2A_20220301T103021_N0400_R108_T32UNV_20220301T132021.SAFE"


def encoder() -> None:
    """Write an untrained encoder of Level-1C at 28 px to weights/softcon."""
    bands = SENSOR_BANDS[Sensor.S2_L1C]
    statistics = STATISTICS["ssl4eo-s12-l1c"]
    norm = Normalization.two_sigma(statistics.mean, statistics.std, statistics.source)
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


@pytest.mark.slow
def test_readme(desk: Path) -> None:
    """Every block of the README runs, in order; its two commands are the promised ones."""
    shutil.rmtree(desk / "runs")
    reader = Reader(
        stand_ins=[("pip install -e . && eofm pretrain", f"eofm pretrain {DEMO[1:]}")],
        words={**WORDS, "--size 1320": "--size 240", "--window 112": "--window 28"},
        not_run={
            "pip install torch": "PyTorch's own line; it would replace the torch of the tests",
            "pip install -e '.": "the environment of the tests has it",
        },
    )

    read(ROOT / "README.md", reader)

    text = (ROOT / "README.md").read_text("utf-8")
    assert "```bash\npip install -e . && eofm pretrain\n```" in text
    assert "```bash\npip install -e '.[dev]' && pytest\n```" in text
    assert (desk / "maps/fields/map.tif").is_file()
    assert (desk / "explore.html").is_file()
    product = json.loads((desk / "maps/product/map.json").read_text())
    assert "dn-offset1000" == product["provenance"]["unit"]
    assert {"crops", "grass"} <= set(product["classes"])
    assert list((desk / "runs").glob("pretrain-*/report.md"))


@pytest.mark.slow
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


@pytest.mark.slow  # the README has the same verbs
def test_scene_to_map(desk: Path) -> None:
    """The tutorial from one GeoTIFF to a map."""
    read(DOCS / "tutorials/scene-to-map.md", Reader(words=WORDS))

    assert (desk / "maps/fields/report.html").is_file()


@pytest.mark.slow
def test_torch_hub(desk: Path) -> None:
    """The tutorial on torch.hub; the published network is there without its weights."""
    words = {
        "path/to/clone": str(ROOT),
        '"softcon_vits14_s2", source="local")': (
            '"softcon_vits14_s2", source="local", pretrained=False)'
        ),
        "(2, 13, 224, 224)": "(2, 13, 56, 56)",
    }
    read(DOCS / "tutorials/torch-hub.md", Reader(words=words))

    assert (desk / "encoders/mine/encoder.pt2").is_file()


DINO = "dinov2_vits14 --model.architecture vits14 --model.size 224"


@pytest.mark.slow
def test_dinov2_on_many_bands(desk: Path) -> None:
    """Continual pretraining from three bands to thirteen, from a file in DINOv2's layout."""
    network = build_vit("vits14", 3, (28, 28), torch.Generator().manual_seed(1))
    torch.save(network.state_dict(), "weights/dinov2.pth")
    small = OWN[1:].replace("--model.architecture vit-tiny-14 ", "").replace("--model.size 28 ", "")
    reader = Reader(
        stand_ins=[("eofm pretrain", f"eofm pretrain {small}")],
        words={
            DINO: "weights/dinov2.pth --model.architecture vits14 --model.size 28",
            "--optim.epochs 20 --optim.batch 16": "--optim.epochs 2",
        },
    )

    read(DOCS / "tutorials/dinov2-many-bands.md", reader)

    assert "rgb-nearest" in (desk / "runs/dinov2/weights.txt").read_text()


@pytest.mark.slow
def test_how_to_maps(desk: Path) -> None:
    """Every verb of maps; for `change`, the same scene stands for four dates."""
    for name in ("2017", "2018", "2019", "2024"):
        doc_files.write_scene(Path(), f"{name}.tif", seed=int(name))
        words = f"embed {name}.tif --sensor s2-l1c --unit dn --model weights/softcon --patches"
        assert 0 == main([*words.split(), "--out", f"emb/{name}"])

    read(DOCS / "howto/maps.md", Reader(words=WORDS))

    assert (desk / "changed").is_dir()


@pytest.mark.slow
def test_how_to_encoder_and_export(desk: Path) -> None:
    """An encoder in Python, and its export in every format."""
    product = write_product(Path("product"), Sensor.S2_L2A)
    words = {**WORDS, PRODUCT: str(product), "(0, 0, 240, 240)": "(0, 0, 48, 48)"}
    read(DOCS / "howto/encoder.md", Reader(words=words))
    read(DOCS / "howto/export.md", Reader())

    assert (desk / "encoders/mine/encoder.onnx").is_file()


@pytest.mark.slow
def test_how_to_data(desk: Path) -> None:
    """Packing known sets, labels, and stores; sets and maps are miniatures."""
    doc_files.write_sets(Path())
    for name, words in (("north", "--seed 1"), ("south", "--seed 2")):
        world = f"world --out worlds/{name} --scenes 2 --size 60 {words}"
        assert 0 == main(world.split())
        pack = f"pack ssl4eo --root worlds/{name} --sensor s2-l1c --out stores/{name}"
        assert 0 == main(pack.split())
    reader = Reader(words={"--workers 8": "--workers 1"})

    read(DOCS / "howto/data.md", reader)

    assert (desk / "mine.md").is_file()


@pytest.mark.slow
def test_how_to_bench(desk: Path) -> None:
    """EuroSAT in the layout `train/<class>`, and one's own chips."""
    doc_files.write_eurosat(Path("EuroSAT_MS"))

    # one percent of a miniature leaves classes without an image
    read(DOCS / "howto/bench.md", Reader(words={"1,10,5-shot,100": "1-shot,100"}))

    assert (desk / "runs/bench/eurosat.jsonl").is_file()


@pytest.mark.slow
def test_how_to_pretrain(desk: Path) -> None:
    """The shipped settings on a store of the synthetic world, and two runs side by side."""
    (desk / "configs").symlink_to(ROOT / "configs")
    network = build_vit("vit-tiny-14", 3, (28, 28), torch.Generator().manual_seed(1))
    torch.save(network.state_dict(), "weights/tiny.pth")
    doc_files.write_ssl4eo(Path())
    pack = "pack ssl4eo --root SSL4EO --sensors s2c,s1 --labels ssl4eo_multilabel.json"
    assert 0 == main([*pack.split(), "--out", "stores/ssl4eo"])
    for name in ("one", "other"):
        shutil.copytree("runs/mine", f"runs/{name}")
    small = f"{OWN[1:]} --model.weights weights/tiny.pth --trainer.devices 1"
    reader = Reader(
        stand_ins=[("eofm pretrain", "eofm pretrain")],
        words={"--trainer.devices 4": small, DINO: f"weights/tiny.pth {OWN[1:]}"},
    )

    read(DOCS / "howto/pretrain.md", reader)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["terms/index.md", "terms/mim.md", "terms/cropmae.md", "terms/croco.md"]
)
def test_terms(page: str, desk: Path) -> None:
    """Every term that a page names is trained by, on one sensor's store or on that of both."""
    doc_files.write_ssl4eo(Path())
    pack = "pack ssl4eo --root SSL4EO --sensors s2c,s1 --labels ssl4eo_multilabel.json"
    assert 0 == main([*pack.split(), "--out", "stores/ssl4eo"])

    read(DOCS / page, Reader(stand_ins=[("eofm pretrain", OWN)]))


def test_every_page_with_commands_is_run() -> None:
    """A page that gains a first block gains a test: no block of the site is never run."""
    text = Path(__file__).read_text("utf-8")
    elsewhere = {
        "pixels.md",  # no blocks of its own
        "minimal.md",  # tests/test_minimal.py
        "scenes.md",  # calls with products of one's own
        "index.md",  # the first command of the README
        "install.md",  # installing
        "embedding.md",  # tests/geo
        "maps.md",  # tests/geo
        "contributing.md",  # tests/test_contributing.py
    }
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(DOCS).as_posix()
        if name in elsewhere or not any(
            block.language in {"bash", "python"} for block in blocks(page.read_text("utf-8"))
        ):
            continue
        assert name in text, name
