"""Exports: programs that agree with the network, words that agree with the card."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from eofm.cli import main
from eofm.contract.imagery import Imagery
from eofm.contract.recipe import Kernel, Pooling, Recipe, ResizeOrder, ResizeRule
from eofm.contract.spec import STATISTICS, ImageSpec, Normalization, Sensor, Unit
from eofm.errors import ConfigError, WeightsError
from eofm.weights import export, programs
from eofm.weights.cards.card import Score
from eofm.weights.config import ExportConfig
from eofm.weights.encoder import Card, Encoder, load_encoder, random_encoder, save_encoder
from eofm.weights.export import Exported, export_encoder, export_source
from eofm.weights.programs import Program, ProgramFormat, ProgramInput

STATS = STATISTICS["ssl4eo-s12-l1c"]
RECIPE = Recipe(
    Sensor.S2_L1C,
    STATS.bands,
    Unit.DN,
    (56, 56),
    Normalization.two_sigma(STATS.mean, STATS.std, STATS.source),
)
PT2, ONNX = ProgramFormat.PT2, ProgramFormat.ONNX
ALWAYS = ["README.md", "card.json", "preprocess.json", "weights.safetensors"]


def encoder_of(
    architecture: str = "vit-tiny-14-2blocks", seed: int = 0, **changes: object
) -> Encoder:
    """An encoder whose tensors are all away from their initial values."""
    encoder = random_encoder(architecture, replace(RECIPE, **changes), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return encoder


def scene(size: int = 56) -> Imagery:
    """Two images of whole digital numbers, all valid, beyond both ends of the clip."""
    shape = (2, 13, size, size)
    pixels = np.random.default_rng(4).integers(0, 9000, shape).astype(np.float32)
    spec = ImageSpec(Sensor.S2_L1C, STATS.bands, Unit.DN, (size, size), 10.0)
    return Imagery(torch.from_numpy(pixels), spec, torch.ones(2, size, size, dtype=torch.bool))


def run_onnx(path: Path, pixels: torch.Tensor) -> torch.Tensor:
    """What ONNX Runtime makes of pixels."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["embedding"], {"pixels": pixels.numpy()})[0])


def export_all(architecture: str, pooling: Pooling, folder: Path) -> tuple[Encoder, Exported]:
    """An encoder and its export in every format, made from its folder as by the verb."""
    encoder = encoder_of(architecture, pooling=pooling)
    save_encoder(encoder, folder / "here")
    there = str(folder / "new" / "mine")
    return encoder, export_source(ExportConfig(str(folder / "here"), there, formats="pt2,onnx"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> tuple[Encoder, Exported]:
    """A vision transformer."""
    return export_all("vit-tiny-14-2blocks", Pooling.CLS, tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> tuple[Encoder, Exported]:
    """A ResNet."""
    return export_all("resnet18", Pooling.MEAN, tmp_path_factory.mktemp("resnet"))


@pytest.fixture(params=["vit", pytest.param("resnet", marks=pytest.mark.slow)])
def exported(request) -> tuple[Encoder, Exported]:
    """Both, one after the other; each is exported once, in whatever order the tests come."""
    pair: tuple[Encoder, Exported] = request.getfixturevalue(request.param)
    return pair


def test_every_file_gives_the_same_vectors(exported):
    """Folder, pt2 and ONNX, on batches of 1, 2 and 5: what `embed` gives, to 1e-4."""
    encoder, done = exported
    folder, expected = done.directory, encoder.embed(scene())
    pixels = encoder.preprocess(scene())
    run = torch.export.load(folder / "encoder.pt2").module()

    assert sorted([*ALWAYS, "encoder.onnx", "encoder.pt2"]) == sorted(
        path.name for path in folder.iterdir()
    )
    assert torch.equal(expected, load_encoder(folder).embed(scene()))
    for count in (1, 2, 5):
        batch = pixels[[0, 1, 0, 0, 1][:count]]
        vectors = expected[[0, 1, 0, 0, 1][:count]]
        for found in (run(batch), run_onnx(folder / "encoder.onnx", batch)):
            torch.testing.assert_close(found, vectors, atol=1e-4, rtol=1e-4)
    onnx.checker.check_model(folder / "encoder.onnx", full_check=True)


def test_the_sidecar_tells_the_truth(exported):
    """Hashes are those of the files, differences small and stated, recipe and shapes right."""
    encoder, done = exported
    second_store = json.loads((done.directory / "preprocess.json").read_text())

    assert encoder.recipe == Recipe.from_dict(second_store["recipe"])
    assert done.card.sha256 == second_store["weights_sha256"]
    assert ["batch", encoder.dim] == second_store["output"]["shape"]
    assert {"encoder.pt2", "encoder.onnx"} == set(second_store["programs"])
    for name, facts in second_store["programs"].items():
        data = (done.directory / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == facts["sha256"]
        assert 0 <= facts["max_abs_diff"] <= facts["tolerance"]
        assert ["batch", 13, 56, 56] == facts["input"]["shape"]
        assert "normalised" in facts["input"]["values"]
    assert f"{done.programs[1].max_abs_diff:.2g}" in done.describe()


def test_what_the_sidecar_says_can_be_carried_out(exported):
    """Someone with NumPy and that file alone gets the numbers of the plan."""
    encoder, done = exported
    second_store = json.loads((done.directory / "preprocess.json").read_text())
    norm = second_store["recipe"]["normalization"]

    def by_hand(pixels: np.ndarray) -> np.ndarray:
        shift, scale = (np.array(norm[key], np.float32) for key in ("shift", "scale"))
        y = (pixels - shift) / scale
        y = np.clip(y, *norm["clip"])
        return np.floor(y * norm["levels"]) / norm["levels"]

    example = second_store["example"]
    np.testing.assert_allclose(by_hand(np.array(example["pixels"])), example["normalised"], 1e-5)
    assert {0.0, 1.0} < {y for row in example["normalised"] for y in row}
    columns = scene().pixels.permute(0, 2, 3, 1).numpy()
    mine = torch.from_numpy(by_hand(columns)).permute(0, 3, 1, 2)
    torch.testing.assert_close(mine.float(), encoder.preprocess(scene()), atol=1e-6, rtol=0)
    said = " ".join(second_store["steps"])
    for word in ("B8A", "56 x 56", "bilinear", "floor(255 y)", "align_corners=False"):
        assert word in said


@pytest.mark.slow
def test_programs_for_physical_pixels(tmp_path):
    """With the normalisation inside, digital numbers go in and the vectors of `embed` come out."""
    encoder = encoder_of()
    done = export_encoder(encoder, tmp_path, [PT2, ONNX], takes=ProgramInput.PHYSICAL)
    pixels = scene().pixels
    run = torch.export.load(tmp_path / "encoder.pt2").module()

    for found in (run(pixels), run_onnx(tmp_path / "encoder.onnx", pixels)):
        torch.testing.assert_close(found, encoder.embed(scene()), atol=1e-4, rtol=1e-4)
    programs = json.loads((tmp_path / "preprocess.json").read_text())["programs"]
    for facts in programs.values():
        assert "dn: after all steps but the normalisation" == facts["input"]["values"]
    assert 2 == done.describe().count("takes physical pixels")


def test_a_recipe_that_normalises_first_has_no_physical_program(tmp_path):
    """Resizing would come after what is inside the program: refused, and nothing is written."""
    rule = ResizeRule(Kernel.BILINEAR, order=ResizeOrder.AFTER_NORMALIZATION)
    encoder = encoder_of(resize=rule)
    with pytest.raises(WeightsError, match="before it resizes"):
        export_encoder(encoder, tmp_path / "x", [PT2], takes=ProgramInput.PHYSICAL)
    assert not (tmp_path / "x").exists()


def test_half_precision_and_training_mode_do_not_leak():
    """What is traced is a float32 copy in evaluation mode; the encoder stays as it was."""
    encoder = encoder_of("resnet18", pooling=Pooling.MEAN).bfloat16().train()
    graph = programs.graph_of(encoder, ProgramInput.NORMALISED)
    pixels = torch.rand(3, 13, 56, 56)

    assert torch.float32 is graph(pixels).dtype
    # a batch of three may run through other kernels than one image: as with the programs above
    torch.testing.assert_close(graph(pixels)[:1], graph(pixels[:1]), atol=1e-4, rtol=1e-4)
    assert not graph(pixels).requires_grad
    assert all(module.training for module in encoder.modules())
    assert torch.bfloat16 is next(encoder.parameters()).dtype
    assert next(encoder.parameters()).requires_grad


# ------------------------------------------------------------------------- what can go wrong


def test_a_program_that_disagrees_is_not_kept(tmp_path, monkeypatch):
    """One number of one image off: an error with the difference; the folder stays as it was.

    The same for vectors of another shape, and for vectors that are not numbers.
    """
    encoder = encoder_of(seed=1)
    export_encoder(encoder, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    graph = programs.graph_of(encoder, ProgramInput.NORMALISED)
    one = torch.zeros(3, 192)
    one[2, 7] = 0.01
    monkeypatch.setattr("eofm.weights.export.trace", lambda *_: None)
    monkeypatch.setattr(torch.export, "save", lambda *_: None)
    for run, said in (
        (lambda pixels: graph(pixels) + one[-len(pixels) :], r"0\.01"),
        (lambda pixels: graph(pixels)[:, :9], "inf"),
        (lambda pixels: graph(pixels) * (math.nan if len(pixels) == 3 else 1), "nan"),
    ):
        monkeypatch.setattr(programs, "_run_pt2", lambda _, run=run: run)
        with pytest.raises(WeightsError, match=said):
            export_encoder(encoder, tmp_path, [PT2])

    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    """Without onnxscript: the extra to install, before any work is done; pt2 still works."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(WeightsError, match="no onnxscript") as caught:
        export_encoder(encoder_of(), tmp_path / "x", [ONNX])

    assert "eofm[onnx]" in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_a_network_too_large_for_onnx(monkeypatch, tmp_path):
    """More weights than one protobuf file can hold: said, not a crash of the serialiser."""
    monkeypatch.setattr(programs, "_ONNX_LIMIT", 1_000_000)
    with pytest.raises(WeightsError, match="too large for one ONNX file"):
        export_encoder(encoder_of(), tmp_path, [ONNX])


def test_programs_of_other_weights_do_not_stand_beside(tmp_path, monkeypatch):
    """Other weights into a folder with programs: refused unless those are replaced."""

    def quick(encoder, formats, takes, scratch) -> tuple[Program, ...]:
        for form in formats:
            (scratch / f"encoder.{form}").write_text(encoder.card.source)
        return tuple(Program(f"encoder.{form}", takes, "", 0.0, 1.0) for form in formats)

    monkeypatch.setattr("eofm.weights.export._make_programs", quick)
    first, second = encoder_of(seed=1), encoder_of(seed=2)
    export_encoder(first, tmp_path, [PT2])
    export_encoder(first, tmp_path, [ONNX])
    kept = export_encoder(first, tmp_path, [])
    for formats in ([], [PT2]):
        with pytest.raises(WeightsError, match=r"encoder\.onnx"):
            export_encoder(second, tmp_path, formats)
    assert kept.card == load_encoder(tmp_path).card
    second_store = json.loads((tmp_path / export.PREPROCESS).read_text())
    assert {"encoder.pt2", "encoder.onnx"} == set(second_store["programs"])

    export_encoder(second, tmp_path, [PT2, ONNX])
    assert "random weights, seed 2" == (tmp_path / "encoder.onnx").read_text()
    (tmp_path / export.PREPROCESS).unlink()
    with pytest.raises(WeightsError, match="programs of other weights"):
        export_encoder(second, tmp_path, [])


def test_a_readme_of_ones_own_is_not_replaced(tmp_path):
    """`--to .` in somebody's project is refused; our own model card is replaced."""
    (tmp_path / "README.md").write_text("# My thesis\n")
    with pytest.raises(WeightsError, match="its own README"):
        export_encoder(encoder_of(), tmp_path)
    assert ["README.md"] == [path.name for path in tmp_path.iterdir()]

    (tmp_path / "README.md").unlink()
    for seed in (1, 2):
        export_encoder(encoder_of(seed=seed), tmp_path)
    assert "seed 2" in (tmp_path / "README.md").read_text()


def test_a_full_disk_is_an_error_of_ours(tmp_path, monkeypatch):
    """The programs cannot be written: found, where, remedy."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eofm.weights.export.write_whole", full)
    with pytest.raises(WeightsError, match="No space left"):
        export_encoder(encoder_of(), tmp_path)


# ------------------------------------------------------------------------------- the words


def published(card: Card) -> Card:
    """A card as `load_weights` makes it."""
    return replace(
        card,
        name="softcon_vits14_s2",
        objective="soft contrastive learning (SoftCon, arXiv 2405.20462)",
        source="B13_vits14_softcon.pth, as published",
        training_data="SSL4EO-S12 with SSL4EO-S12-ML: labelled images",
        counts={"images": 780371},
        licence="CC-BY-4.0",
        url="https://example.org/B13_vits14_softcon.pth",
        paper="2405.20462",
    )


def front_matter(text: str) -> dict[str, object]:
    """The YAML between the first two rules."""
    yaml = pytest.importorskip("yaml")
    _, head, _ = text.split("---\n", 2)
    content = yaml.safe_load(head)
    assert isinstance(content, dict)
    return content


def test_the_model_card():
    """Front matter that hubs read, the input contract with every constant, ways to load, scores."""
    card = published(encoder_of().card)
    score = Score("eurosat", "linear", "overall accuracy", 97.1, "README of zhu-xlab/softcon")
    text = export.model_card(card, 192, [PT2, ONNX], [score], "softcon")
    head = front_matter(text)

    assert ("cc-by-4.0", "eofm") == (head["license"], head["library_name"])
    assert ["ssl4eo-s12", "ssl4eo-s12-ml"] == head["datasets"]
    assert "sentinel-2" in head["tags"]
    assert "synthetic-data" not in head["tags"]
    # the template of geoembeddings.org
    assert (192, "vit-tiny-14-2blocks") == (head["embedding_dimension"], head["model_architecture"])
    assert ["patch", "scene"] == head["embedding_spatial_types"]
    assert "https://arxiv.org/abs/2405.20462" == head["publication_link"]
    assert ["sentinel-2-l1c"] == head["inference"]["product_names"]
    assert card.objective == head["pretraining"]["training_strategy"]
    assert 97.1 == head["model-index"][0]["results"][0]["metrics"][0]["value"]
    for band, shift in zip(STATS.bands, RECIPE.normalization.shift, strict=True):
        assert f"| `{band}` | {shift:g} |" in text
    for words in (
        'eofm.load_encoder("softcon")',
        'source="local", weights="softcon"',
        'load_file("softcon/weights.safetensors")',
        'torch.export.load("softcon/encoder.pt2")',
        'InferenceSession("softcon/encoder.onnx")',
        "(B, 13, 56, 56)",
        "780371 images",
        "arxiv.org/abs/2405.20462",
        "| eurosat | linear | overall accuracy | 97.1 |",
        "measured neither here",
    ):
        assert words in text, words


def test_a_model_card_invents_nothing():
    """No scores, no paper, no data set, where the card has none; made-up imagery is called so."""
    card = replace(encoder_of().card, synthetic=True, training_data="packed store x (synthetic)")
    text = export.model_card(card, 192, [], [], "x")

    assert "Scores" not in text
    assert "arxiv" not in text
    assert "torch.export" not in text
    assert "synthetic-data" in front_matter(text)["tags"]
    assert "**Synthetic**" in text
    untrained = export.model_card(encoder_of().card, 192, [], [], "x")
    assert "Untrained" in untrained
    assert {"datasets", "pretraining", "publication_link", "model-index"}.isdisjoint(
        front_matter(untrained)
    )
    assert "not stated" == front_matter(untrained)["provider"]


def test_the_snippets_run(exported, monkeypatch):
    """The code on the card is executed as it stands, in the folder above the export."""
    encoder, done = exported
    monkeypatch.chdir(done.directory.parent)
    pixels = encoder.preprocess(scene())
    blocks = (done.directory / "README.md").read_text().split("```python\n")[1:]
    codes = [block.split("```")[0] for block in blocks]
    ran = 0
    for code in codes:
        if "read_geotiff" in code or "torch.hub" in code:  # tested where a scene and a clone are
            continue
        names = {"pixels": pixels.numpy() if "onnxruntime" in code else pixels}
        exec(code, names)
        if "vectors" in names:
            found = torch.as_tensor(names["vectors"])
            torch.testing.assert_close(found, encoder.embed(scene()), atol=1e-4, rtol=1e-4)
        ran += 1

    assert 3 == ran
    state = load_file(done.directory / "weights.safetensors")
    assert set(state) == set(encoder.trunk.state_dict())


# -------------------------------------------------------------------------- the command line


def test_the_verb_takes_an_export(tmp_path, capsys, monkeypatch):
    """`eofm models export FOLDER --formats ...` writes another folder with the same encoder."""
    encoder, there = encoder_of(), tmp_path / "there"
    save_encoder(encoder, tmp_path / "here")

    def quick(encoder, formats, takes, scratch) -> tuple[Program, ...]:
        (scratch / "encoder.pt2").touch()
        return tuple(Program(f"encoder.{form}", takes, "", 0.0, 1.0) for form in formats)

    monkeypatch.setattr("eofm.weights.export._make_programs", quick)  # made in `vit`
    words = ["models", "export", str(tmp_path / "here"), "--to", str(there), "--formats", "pt2"]

    assert 0 == main(words)
    assert "encoder.pt2: takes normalised pixels" in capsys.readouterr().out
    assert torch.equal(encoder.embed(scene()), load_encoder(there).embed(scene()))
    assert sorted([*ALWAYS, "encoder.pt2"]) == sorted(path.name for path in there.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": "pt2,tflite"}, "formats"),
        ({"formats": ""}, "formats"),
        ({"branch": "teacher"}, "branch"),
    ],
)
def test_settings_out_of_range(settings, message):
    """An unknown format, and a branch of something that has none, are wrong settings."""
    with pytest.raises(ConfigError, match=message):
        ExportConfig("folder", "to", **settings)


def test_a_source_that_is_nothing(tmp_path):
    """Neither name nor place: the error says what a source may be."""
    with pytest.raises(WeightsError, match="models list"):
        export_source(ExportConfig("softcon_vits14", str(tmp_path)))


def test_formats_are_listed_once():
    """Repeated words ask for one file."""
    assert ("pt2", "onnx") == ExportConfig("x", "y", formats="pt2, onnx,safetensors,pt2").programs
    assert () == ExportConfig("x", "y").programs
    assert Program("f", ProgramInput.NORMALISED, "", 0.0, 1.0).batches == (1, 3)
