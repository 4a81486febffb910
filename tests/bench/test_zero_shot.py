"""Zero-shot by texts: the templates, the vectors, and runs with a network of images and texts."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor, nn

from eofm.bench.predictions import predictions_of
from eofm.bench.records import read_results
from eofm.bench.run import BenchReport, bench
from eofm.bench.texts import (
    ClipName,
    ClipTowers,
    class_words,
    load_clip,
    templates,
    text_vectors,
    zero_shot,
)
from eofm.datasets.folder import BenchFolderConfig
from eofm.errors import ConfigError, WeightsError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

COLOURS = {"RedRoof": 0, "green_field": 1, "BlueWater": 2}
# as GeoRSCLIP lists them, some of every phrase
PUBLISHED = (
    "a remote sensing image of many {}.",
    "a remote sensing image of a hard to see {}.",
    "an aerial image of the {}.",
    "a low resolution aerial image of a {}.",
    "a black and white satellite image of the {}.",
    "a jpeg corrupted remote sensing image of a {}.",
    "an aerial image of a weird {}.",
    "a satellite image of the cool {}.",
)


class Toy(nn.Module):
    """Images are their mean colour; texts the colours they name, the longer the more."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))
        self.visual = SimpleNamespace(image_size=(8, 8))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Mean colour, (B, 3)."""
        return pixels.mean(dim=(2, 3)) @ self.weight

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Colours, (T, 3)."""
        return tokens.float() @ self.weight


def tokenize(words: list[str]) -> Tensor:
    """How long a text is, at the place of the colour that it names, and 1 elsewhere."""
    rows = []
    for text in words:
        named = [len(text) if colour in text else 1 for colour in ("red", "green", "blue")]
        rows.append([*named])
    return torch.tensor(rows)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A library of open_clip's interface with one architecture and no weights to distribute."""
    fake = ModuleType("open_clip")
    vars(fake).update(
        list_models=lambda: ["toy"],
        list_pretrained_tags_by_model=lambda name: ["published"],
        create_model=lambda name, pretrained=None: Toy(),
        get_tokenizer=lambda name: tokenize,
    )
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    return fake


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three colours, train and test."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 3)):
        for name, band in COLOURS.items():
            for number in range(count):
                pixels = rng.integers(20, 90, (3, 16, 16))
                pixels[band] += 120
                path = root / split / name / f"{name}-{split}-{number}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                east = 500_000 + 1000 * len(list(root.rglob("*.tif")))
                with rasterio.open(
                    path,
                    "w",
                    driver="GTiff",
                    dtype="uint8",
                    count=3,
                    height=16,
                    width=16,
                    crs="EPSG:32632",
                    transform=rasterio.Affine(1, 0, east, 0, -1, 5_400_000),
                ) as file:
                    file.write(pixels.astype(np.uint8))
    return root


def weights(folder: Path, model: nn.Module) -> Path:
    """A file as a training by several processes writes it."""
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "w.pt")
    return folder / "w.pt"


def run(root: Path, out: Path, **options: object) -> BenchReport:
    """One run without controls."""
    chosen = {
        "sensor": "rgb",
        "unit": "uint8",
        "probe": "text,text-unit",
        "controls": False,
        "out": str(out / "results.jsonl"),
        "cache": str(out / "cache"),
        "bootstrap": 20,
        **options,
    }
    return bench(BenchFolderConfig(str(root), **chosen))  # type: ignore[arg-type]


def test_the_templates_are_those_that_were_published() -> None:
    """105 of them, none twice, each with one place for the words of a class."""
    found = templates()

    assert 105 == len(found) == len(set(found))
    assert set(PUBLISHED) <= set(found)
    assert all(1 == one.count("{}") for one in found)
    assert not [one for one in found if one.startswith(("a aerial", "an satellite", "an remote"))]


def test_a_class_is_the_mean_of_its_texts() -> None:
    """As the paper averages, or each of unit length before as CLIP does: loops say the same."""
    towers = ClipTowers(Toy(), tokenize)
    for unit in (False, True):
        found = text_vectors(towers, list(COLOURS), unit=unit)
        for row, name in zip(found, COLOURS, strict=True):
            total = np.zeros(3)
            for one in templates():
                text = one.replace("{}", class_words(name))
                vector = np.array([len(text) if c in text else 1 for c in ("red", "green", "blue")])
                total += vector / np.linalg.norm(vector) if unit else vector
            assert (total / np.linalg.norm(total)).tolist() == pytest.approx(row.tolist())


def test_logits_are_cosines() -> None:
    """A hundred times the cosine, whatever the length of an image's vector."""
    generator = torch.Generator().manual_seed(0)
    x, vectors = torch.randn(7, 5, generator=generator), torch.eye(5)[:3].double()

    found = zero_shot("text", x, vectors, multi_label=False)
    several = zero_shot("text", 3 * x, vectors, multi_label=True)

    expected = 100 * torch.nn.functional.cosine_similarity(x[:, None], torch.eye(5)[None, :3], -1)
    assert torch.allclose(expected.double(), found.scores, atol=1e-4)
    assert torch.allclose(found.scores, several.scores)
    assert several.probability is None
    assert found.probability is not None


def test_pictures_are_told_by_the_names_of_their_classes(
    library: ModuleType, pictures: Path, tmp_path: Path
) -> None:
    """Nothing is fitted; a record holds what the weights saw, and a second run computes nothing."""
    target = f"toy=openclip:toy@{weights(tmp_path, Toy())}#RS5M"
    report = run(pictures, tmp_path, model=target, probe="text,text-unit,knn,georsclip")
    vars(library)["get_tokenizer"] = lambda name: None  # texts would need one
    again = run(pictures, tmp_path, model=target, probe="text,text-unit,knn,georsclip")

    assert 0 == again.appended
    text = [r for r in report.results if r.kind == "text"]
    assert {"text", "text-unit", "knn"} == {r.kind for r in report.results}
    assert [1.0] == [r.value for r in text if r.metric == "oa"]
    assert "text[cosine,105 templates,scale=100]" == text[0].probe
    assert "RS5M" == text[0].model.trained_on
    assert "georsclip: source" in text[0].details
    assert not [flag for flag in text[0].flags if "declared" in flag]
    assert "zero-shot by the texts of class names" in report.describe()
    for result in read_results(report.out):
        predictions_of(result, report.out)


def test_shares_of_labels_do_not_matter_to_texts(
    library: ModuleType, pictures: Path, tmp_path: Path
) -> None:
    """One row, of all labels."""
    target = f"toy=openclip:toy@{weights(tmp_path, Toy())}"
    report = run(pictures, tmp_path, model=target, probe="text,nmc", shares="1-shot,100", draws=1)

    assert [""] == list({r.sample.labels for r in report.results if r.kind == "text"})
    alone = run(pictures, tmp_path, model=target, probe="text", shares="1-shot", draws=1)
    assert 0 == alone.appended
    assert {"text"} == {r.kind for r in alone.results}
    assert 2 == len({r.sample.labels for r in report.results if r.kind == "nmc"})
    assert any("not declared" in flag for r in report.results for flag in r.flags)


def test_other_models_have_no_texts(library: ModuleType, pictures: Path, tmp_path: Path) -> None:
    """Refused where none has; beside one that has, they get no row; what the remedy names runs."""
    with pytest.raises(ConfigError, match="no model here has a tower of texts") as caught:
        run(pictures, tmp_path, model="imagestats")
    assert "--model openclip:ARCHITECTURE@WEIGHTS" in str(caught.value)
    target = "toy=openclip:toy@published"
    report = run(pictures, tmp_path, model=f"imagestats,{target}", probe="text")

    assert {"toy"} == {r.model.name for r in report.results}


def test_only_pictures_are_taken(library: ModuleType, eurosat: Path, tmp_path: Path) -> None:
    """Thirteen bands of Sentinel-2 are no picture."""
    from eofm.bench.run import bench as score
    from eofm.datasets.eurosat import BenchEurosatConfig
    from eofm.errors import SpecMismatch

    with pytest.raises(SpecMismatch):
        score(
            BenchEurosatConfig(
                str(eurosat),
                model="openclip:toy@published",
                probe="text",
                controls=False,
                out=str(tmp_path / "r.jsonl"),
                cache="",
            )
        )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("openclip:toy", "by its architecture and its weights"),
        ("openclip:@x", "by its architecture and its weights"),
        ("openclip:huge@published", "no such architecture"),
        ("openclip:toy@absent.pt", "neither a file nor known"),
    ],
)
def test_what_names_no_network_is_refused(library: ModuleType, target: str, message: str) -> None:
    """With what there is."""
    with pytest.raises(WeightsError, match=message):
        load_clip(target)


def test_weights_that_do_not_fit_are_refused(library: ModuleType, tmp_path: Path) -> None:
    """Of another shape, with names that are not its own, and no weights at all."""
    files = {}
    for name, state in (
        ("shape", {"weight": torch.eye(4)}),
        ("names", {"weight": torch.eye(3), "more": torch.eye(3)}),
    ):
        files[name] = tmp_path / f"{name}.pt"
        torch.save(state, files[name])
    for file in files.values():
        with pytest.raises(WeightsError, match="do not fit the architecture"):
            load_clip(f"openclip:toy@{file}")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_clip(f"openclip:toy@{tmp_path / 'text.pt'}")


def test_without_the_library_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error with the extra, which pyproject.toml declares."""
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigError, match="zero-shot text needs open_clip") as caught:
        load_clip("openclip:ViT-B-32@openai")

    assert 'pip install "eofm[clip]"' in str(caught.value)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any("open_clip" in line for line in project["optional-dependencies"]["clip"])


def test_the_parts_of_a_name() -> None:
    """Architecture, weights, and what they saw."""
    found = ClipName.of("openclip:ViT-B-32@/a/RS5M_ViT-B-32.pt#RS5M, LAION-2B")

    assert ("ViT-B-32", "/a/RS5M_ViT-B-32.pt") == (found.architecture, found.weights)
    assert "RS5M, LAION-2B" == found.trained_on


def test_open_clip_itself_says_the_same(pictures: Path, tmp_path: Path) -> None:
    """A small untrained network of the real library: image, texts and logits as it makes them."""
    open_clip = pytest.importorskip("open_clip")
    from PIL import Image

    small = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            **{"context_length": 77, "vocab_size": 49408},
            **{"width": 16, "heads": 2, "layers": 1},
        },
    }
    (tmp_path / "eofm-small.json").write_text(json.dumps(small))
    open_clip.add_model_config(tmp_path / "eofm-small.json")
    torch.manual_seed(0)
    model, _, step = open_clip.create_model_and_transforms("eofm-small")
    model.eval()
    path = weights(tmp_path, model)

    report = run(pictures, tmp_path, model=f"small=openclip:eofm-small@{path}", probe="text")

    tokens = open_clip.get_tokenizer("eofm-small")
    names = sorted(COLOURS)
    with torch.no_grad():
        rows = []
        for name in names:
            texts = [one.replace("{}", class_words(name)) for one in templates()]
            rows.append(model.encode_text(tokens(texts)).mean(dim=0))
        classes = torch.nn.functional.normalize(torch.stack(rows), dim=1)
        kept = predictions_of(report.results[0], report.out)
        files = {file.stem: file for file in pictures.rglob("*.tif")}
        pixels = torch.stack(
            [step(Image.open(files[Path(name).stem])) for name in kept.ids]  # its own transform
        )
        images = torch.nn.functional.normalize(model.encode_image(pixels), dim=1)
    expected = (100 * images @ classes.T).double()

    assert list(kept.classes) == names
    assert torch.allclose(expected, kept.scores, atol=0.02)
